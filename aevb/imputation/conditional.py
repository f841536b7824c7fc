"""log p(x|y), the likelihood of what was not seen: with its error, from both sides."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_decode, check_scalar
from aevb.marginal.annealed import (
    AnnealedEstimate,
    annealed_log_likelihood,
    reverse_annealed_log_likelihood,
)
from aevb.observations.channel import Channel
from aevb.types import Decode, Encode, Likelihood, Posterior, PyTree

__all__ = [
    "ConditionalEstimate",
    "ConditionalSandwich",
    "conditional_bdmc",
    "conditional_log_likelihood",
]


class ConditionalEstimate(NamedTuple):
    """An estimate of log p(x|y) of one datapoint.

    Attributes:
      log_likelihood: `[]` log p(x|y) in nats: `whole` + log p(y|x) − `seen`. With
        `aevb.masked` it is log p(x_missing | x_observed).
      std_error: `[]` of it over chains, in nats: of the two parts together.
      whole: `[]` the estimate of log p(x), in nats.
      seen: `[]` the estimate of log p(y), in nats.
    """

    log_likelihood: jax.Array
    std_error: jax.Array
    whole: jax.Array
    seen: jax.Array


class ConditionalSandwich(NamedTuple):
    """Both bounds on log p(x|y) for one x and y simulated from the model.

    Attributes:
      lower: from below in expectation: forward of x, in reverse of y.
      upper: from above in expectation: in reverse of x, forward of y.
      x: `[D]` the datapoint.
      y: what is seen of it.
      z: `[J]`, or a pytree: the latent that x was made from, and so an exact draw of
        both p(z|x) and p(z|y).
    """

    lower: ConditionalEstimate
    upper: ConditionalEstimate
    x: PyTree
    y: PyTree
    z: PyTree


def conditional_log_likelihood(
    encode: Encode,
    encode_y: Encode,
    decode: Decode,
    observe: Channel,
    key: jax.Array,
    x: PyTree,
    y: PyTree,
    *,
    prior: Posterior | None = None,
    temperatures: jax.Array,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    step_size: jax.Array | float | None = None,
    step_size_y: jax.Array | float | None = None,
) -> ConditionalEstimate:
    """Estimates log p(x|y), both of its parts by annealed importance sampling.

    log p(x|y) = log p(x) + log p(y|x) − log p(y)

    It tells a good imputation model from one with pretty pictures. Each part is below
    the truth in expectation, so that their difference is on no known side:
    `conditional_bdmc` has both.

    Args:
      encode: x `[D]` -> where the path to p(z|x) starts.
      encode_y: y -> where the path to p(z|y) starts: the encoder of a filled-in x, say.
      decode: z `[J]` -> p(x|z).
      observe: a channel with `given`, such as `aevb.masked(observed)`.
      key: consumed.
      x: `[D]` the whole datapoint.
      y: what is seen of it.
      prior: p(z); None is the standard normal of z's shape.
      temperatures: `[T]` from 0 to 1.
      num_chains: of either part, static.
      num_leapfrog_steps: of each transition, static.
      step_size: `[]` or `[T - 2]` of the path to p(z|x); None is a preliminary run.
      step_size_y: of the path to p(z|y).

    Returns:
      `ConditionalEstimate`.

    Raises:
      TypeError, ValueError: as `aevb.annealed_log_likelihood`.

    Source: the two parts: Wu et al., arXiv 1611.04273.

    >>> from aevb import DiagNormal, linear_temperatures, masked
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> encode = lambda x: DiagNormal(  # both exact, given two numbers and one
    ...     jnp.sum(x)[None] / 3, jnp.full(1, -0.5 * jnp.log(3.0)))
    >>> encode_y = lambda y: DiagNormal(y[:1] / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> x, observe = jnp.zeros(2), masked(jnp.array([True, False]))
    >>> estimate = conditional_log_likelihood(
    ...     encode, encode_y, decode, observe, jax.random.key(0), x, x,
    ...     temperatures=linear_temperatures(5), step_size=0.5, step_size_y=0.5)
    >>> print(f"{estimate.log_likelihood:.4f}")  # N(0; 0, 3/2)
    -1.1217
    """
    given = _given(observe, x, y)
    whole_key, seen_key = jax.random.split(key)
    run: dict[str, Any] = {
        "prior": prior,
        "temperatures": temperatures,
        "num_chains": num_chains,
        "num_leapfrog_steps": num_leapfrog_steps,
    }
    whole = annealed_log_likelihood(
        encode, decode, whole_key, x, step_size=step_size, **run
    )
    seen = annealed_log_likelihood(
        encode_y, _behind(observe, decode), seen_key, y, step_size=step_size_y, **run
    )
    return _difference(whole, seen, given)


def conditional_bdmc(
    encode: Encode,
    encode_y: Encode,
    decode: Decode,
    observe: Channel,
    key: jax.Array,
    *,
    prior: Posterior,
    temperatures: jax.Array,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    step_size: jax.Array | float | None = None,
    step_size_y: jax.Array | float | None = None,
) -> ConditionalSandwich:
    """Bounds log p(x|y) from both sides, on an x and a y simulated from the model.

    z ~ p(z), x ~ p(x|z), y ~ p(y|x). The z is an exact draw of p(z|x) and of p(z|y):
    reverse AIS of both starts from it, and each bound takes one part from either side.

    Args:
      encode: x `[D]` -> where the path to p(z|x) starts.
      encode_y: y -> where the path to p(z|y) starts.
      decode: z `[J]` -> p(x|z), with `sample(key)`.
      observe: a channel with `given`, such as `aevb.masked(observed)`.
      key: consumed; one simulated datapoint a key.
      prior: p(z), which z is drawn from.
      temperatures: `[T]` from 0 to 1.
      num_chains: of each of the four runs, static.
      num_leapfrog_steps: of each transition, static.
      step_size: as `conditional_log_likelihood`.
      step_size_y: as `conditional_log_likelihood`.

    Returns:
      `ConditionalSandwich`.

    Raises:
      TypeError, ValueError: as `aevb.annealed_log_likelihood`.

    Source: Grosse et al., arXiv 1511.02543, for both parts.

    >>> from functools import partial
    >>> from aevb import DiagNormal, linear_temperatures, masked
    >>> prior = DiagNormal(jnp.zeros(1), jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> both = jax.jit(partial(
    ...     conditional_bdmc, lambda x: prior, lambda y: prior, decode,
    ...     masked(jnp.array([True, False])), prior=prior, step_size=0.3,
    ...     step_size_y=0.3, temperatures=linear_temperatures(50)))(jax.random.key(0))
    >>> bool(abs(both.upper.log_likelihood - both.lower.log_likelihood) < 0.5)
    True
    """
    z_key, x_key, y_key, forward_key, reverse_key = jax.random.split(key, 5)
    z = prior.sample(z_key)
    likelihood: Any = call_decode(decode, z)
    x = likelihood.sample(x_key)
    noise: Any = _noise(observe, x)
    y = noise.sample(y_key)
    run: dict[str, Any] = {
        "prior": prior,
        "temperatures": temperatures,
        "num_chains": num_chains,
        "num_leapfrog_steps": num_leapfrog_steps,
    }
    whole = (encode, decode, step_size, x)
    seen = (encode_y, _behind(observe, decode), step_size_y, y)

    def forward(part: tuple, key: jax.Array) -> AnnealedEstimate:
        encode, decode, step_size, value = part
        return annealed_log_likelihood(
            encode, decode, key, value, step_size=step_size, **run
        )

    def reverse(part: tuple, key: jax.Array) -> AnnealedEstimate:
        encode, decode, step_size, value = part
        return reverse_annealed_log_likelihood(
            encode, decode, key, value, z, step_size=step_size, **run
        )

    below, above = jax.random.split(forward_key), jax.random.split(reverse_key)
    given = _given(observe, x, y)
    return ConditionalSandwich(
        lower=_difference(forward(whole, below[0]), reverse(seen, above[0]), given),
        upper=_difference(reverse(whole, above[1]), forward(seen, below[1]), given),
        x=x,
        y=y,
        z=z,
    )


def _behind(observe: Channel, decode: Decode) -> Decode:
    """The decoder of y: p(y|z)."""
    return lambda z: observe(call_decode(decode, z))


def _given(observe: Channel, x: PyTree, y: PyTree) -> jax.Array:
    """log p(y|x)."""
    log_prob = _noise(observe, x).log_prob(y)
    return check_scalar(log_prob, "observe.given(x).log_prob(y)")


def _noise(observe: Channel, x: PyTree) -> Likelihood:
    """p(y|x)."""
    if not hasattr(observe, "given"):
        raise TypeError(
            f"observe is {getattr(observe, '__name__', type(observe).__name__)}, which "
            "has no given(x), the p(y|x) that log p(x|y) is made with: expected a "
            "channel such as aevb.masked(observed)"
        )
    return observe.given(x)


def _difference(
    whole: AnnealedEstimate, seen: AnnealedEstimate, given: jax.Array
) -> ConditionalEstimate:
    return ConditionalEstimate(
        log_likelihood=whole.log_likelihood + given - seen.log_likelihood,
        std_error=jnp.hypot(whole.std_error, seen.std_error),
        whole=whole.log_likelihood,
        seen=seen.log_likelihood,
    )
