"""Bidirectional Monte Carlo: log p(x) between two bounds, on simulated data."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from aevb.marginal.annealed import (
    AnnealedEstimate,
    annealed_log_likelihood,
    annealing_step_sizes,
    reverse_annealed_log_likelihood,
)
from aevb.types import Encode, Posterior, PyTree

__all__ = ["Sandwich", "bdmc"]


class _Generative(Protocol):
    def sample(self, key: jax.Array) -> jax.Array: ...

    def log_prob(self, x: jax.Array) -> jax.Array: ...


class Sandwich(NamedTuple):
    """Both bounds for one datapoint simulated from the model.

    Attributes:
      lower: forward AIS; its expectation is at most E[log p(x)].
      upper: reverse AIS; its expectation is at least E[log p(x)].
      x: `[D]` the datapoint.
      z: `[J]`, or a pytree: the latent it was made from: an exact draw of p(z|x).
    """

    lower: AnnealedEstimate
    upper: AnnealedEstimate
    x: jax.Array
    z: PyTree


def bdmc(
    encode: Encode,
    decode: Callable[[PyTree], _Generative],
    key: jax.Array,
    *,
    prior: Posterior,
    temperatures: jax.Array,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    step_size: jax.Array | float | None = None,
) -> Sandwich:
    """Bounds log p(x) from both sides on a datapoint simulated from the model.

    z ~ p(z), x ~ p(x|z); then z is an exact draw of p(z|x), from which reverse AIS
    starts. The mean over keys of `upper - lower` bounds the bias of both, on data that
    the model makes; real data may be harder.

    Args:
      encode: x `[D]` -> the start of the path, as in `annealed_log_likelihood`.
      decode: z `[J]` -> p(x|z), with `sample(key)` and `log_prob(x)`.
      key: consumed; one simulated datapoint a key.
      prior: p(z), which z is drawn from.
      temperatures: `[T]` from 0 to 1.
      num_chains: C of either direction, static.
      num_leapfrog_steps: of each transition, static.
      step_size: `[]` or `[T - 2]`; None is a preliminary run.

    Returns:
      `Sandwich`.

    Raises:
      TypeError, ValueError: as `annealed_log_likelihood`.

    Source: Grosse et al., arXiv 1511.02543; Wu et al., arXiv 1611.04273, section 3.

    >>> import jax.numpy as jnp, aevb
    >>> from aevb import DiagNormal
    >>> prior = DiagNormal(jnp.zeros(1), jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> sandwich = bdmc(lambda x: prior, decode, jax.random.key(0), prior=prior,
    ...                 temperatures=aevb.linear_temperatures(50), step_size=0.3)
    >>> gap = sandwich.upper.log_likelihood - sandwich.lower.log_likelihood
    >>> bool(abs(gap) < 0.5)
    True
    """
    z_key, x_key, tune_key, lower_key, upper_key = jax.random.split(key, 5)
    z = prior.sample(z_key)
    x = decode(z).sample(x_key)
    path: dict[str, Any] = {
        "prior": prior,
        "temperatures": temperatures,
        "num_leapfrog_steps": num_leapfrog_steps,
    }
    if step_size is None:
        step_size = annealing_step_sizes(encode, decode, tune_key, x, **path)
    run = {**path, "num_chains": num_chains, "step_size": step_size}
    lower = annealed_log_likelihood(encode, decode, lower_key, x, **run)
    upper = reverse_annealed_log_likelihood(encode, decode, upper_key, x, z, **run)
    return Sandwich(lower, upper, x, z)
