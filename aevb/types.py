"""The contracts of the core: what an encoder, a decoder and an algorithm are.

Everything here describes **one datapoint**: there is no batch axis anywhere in
`aevb`; callers batch with `jax.vmap`. Arrays are named with their shapes, where
`D` is the number of observed dimensions, `J` the number of latent dimensions and
`[]` is a scalar.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

__all__ = [
    "Algorithm",
    "Decode",
    "Encode",
    "Info",
    "Likelihood",
    "Model",
    "Objective",
    "Posterior",
    "PyTree",
    "State",
    "standard_normal_prior",
]

PyTree = Any


class Posterior(Protocol):
    """A distribution over z that can be reparameterised: q(z|x), or a prior p(z)."""

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z = g(eps), eps ~ p(eps), differentiable in the parameters. `[J]`"""
        ...

    def log_prob(self, z: jax.Array) -> jax.Array:
        """The log density of one z, in nats, summed over its dimensions. `[]`"""
        ...


class Likelihood(Protocol):
    """A distribution over one datapoint x: p(x|z).

    Generation also uses `sample(key) -> [D]` and the property `mean: [D]`, where a
    likelihood has them; no estimator does. One with `check_value(x)` refuses by it an x
    that it gives no density, and one of independent dimensions says its terms, one a
    dimension, with `log_probs(x)`: `aevb.masked` needs them.
    """

    def log_prob(self, x: jax.Array) -> jax.Array:
        """The log density of one x, in nats, summed over its dimensions. `[]`"""
        ...


Encode = Callable[[jax.Array], Posterior]
"""`encode(x) -> q(z|x)`, for one x `[D]`."""

Decode = Callable[[jax.Array], Likelihood]
"""`decode(z) -> p(x|z)`, for one z `[J]`."""

Objective = Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
"""`objective(params, key, batch) -> (value, aux)`: `value` `[]` goes *up*."""


def standard_normal_prior(params: PyTree) -> None:
    """The prior of a model that has none of its own: the standard normal.

    >>> standard_normal_prior({}) is None
    True
    """
    del params


class Model(NamedTuple):
    """An encoder, a decoder and a prior with their parameters made explicit.

    Attributes:
      init: `init(key, x) -> params`; x `[D]` gives shapes and dtype only.
      encode: `encode(params, x) -> q(z|x)`.
      decode: `decode(params, z) -> p(x|z)`.
      prior: `prior(params) -> p(z)`, which may be learned with the rest; None stands
        for the standard normal of z's shape, as everywhere in `aevb`.
    """

    init: Callable[[jax.Array, jax.Array], PyTree]
    encode: Callable[[PyTree, jax.Array], Posterior]
    decode: Callable[[PyTree, jax.Array], Likelihood]
    prior: Callable[[PyTree], Posterior | None] = standard_normal_prior


class State(NamedTuple):
    """What an algorithm carries from step to step: arrays only, no key, no function.

    Being a plain pytree it vmaps (one lane a run), shards and saves as it is.

    Attributes:
      step: `[]` int32, the number of updates made.
      params: the parameters, theta and phi together.
      opt_state: whatever else the algorithm carries: an optax state, or something of
        each datapoint, such as Markov chains `[N, J]`.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree


class Info(NamedTuple):
    """Diagnostics of one update; averaged over an epoch by `aevb.epoch`.

    Attributes:
      objective: `[]` what was maximised, at the parameters *before* the update,
        in nats per datapoint.
      aux: what the objective returned beside its value: scalars to be averaged.
      grad_norm: `[]` the Euclidean norm of the gradient.
    """

    objective: jax.Array
    aux: PyTree
    grad_norm: jax.Array


class Algorithm(NamedTuple):
    """A training algorithm as a pair of pure functions, as in optax.

    Attributes:
      init: `init(params) -> State`.
      update: `update(key, state, batch, *, indices=None) -> (State, Info)`; the key is
        consumed. The batch has a leading axis of datapoints: `[M, D]`. `indices` `[M]`
        int32 says which datapoints of the data set they are, for an algorithm that
        keeps something of each; `aevb.epoch` always says so, and None is not known.
    """

    init: Callable[[PyTree], State]
    update: Callable[..., tuple[State, Info]]
