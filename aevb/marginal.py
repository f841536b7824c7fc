"""Estimates of the marginal likelihood log p(x) of one datapoint.

An estimate comes back with what is needed to judge it. Averages over datapoints are
the caller's: `jax.vmap`, then a mean that weights every datapoint once.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.estimators import log_weight
from aevb.types import Decode, Encode, Posterior

__all__ = ["ImportanceEstimate", "importance_log_likelihood"]


class ImportanceEstimate(NamedTuple):
    """An importance-sampled log p(x) of one datapoint.

    Attributes:
      log_likelihood: `[]` log (1/K) Σ_k w_k, in nats. Its expectation is *below*
        log p(x), by about Var(w) / (2 K p(x)²) when K is large.
      ess: `[]` effective sample size (Σw)² / Σw², between 1 and K. Near 1, the sum is
        one draw's: the estimate has not converged.
      std_error: `[]` delta-method standard error of `log_likelihood` over draws, in
        nats: sqrt(1/ess − 1/K). Itself unreliable where `ess` is small.
    """

    log_likelihood: jax.Array
    ess: jax.Array
    std_error: jax.Array


class _Sums(NamedTuple):
    """Σw and Σw² relative to the largest log weight so far."""

    max: jax.Array
    first: jax.Array
    second: jax.Array


def importance_log_likelihood(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    num_samples: int,
    chunk_size: int = 100,
) -> ImportanceEstimate:
    """Estimates log p(x) with exactly K importance samples, in bounded memory.

    log p̂(x) = log (1/K) Σ_k p(x, z_k) / q(z_k|x),  z_k ~ q(z|x)

    Samples are drawn `chunk_size` at a time, so that memory is that of one chunk
    whatever K is. Sample k uses the key `fold_in(key, k)`: any chunk size gives the
    same draws, and the same estimate up to rounding; it equals `iwae` with the same K.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`; called once.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed.
      x: `[D]` one datapoint. Under a Bernoulli p(x|z) it must be binary: with grey
        pixels the result is not a likelihood.
      prior: p(z); None is the standard normal of z's shape.
      num_samples: K, static.
      chunk_size: samples at a time, static; need not divide K.

    Returns:
      `ImportanceEstimate` of scalars.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar, or a count is not positive.

    Source: Burda et al., arXiv 1509.00519, section 5 (K = 5000 there).

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> estimate = importance_log_likelihood(
    ...     encode, decode, jax.random.key(0), jnp.zeros(1), num_samples=50)
    >>> print(f"{estimate.log_likelihood:.4f} {estimate.ess:.1f}")
    -1.2655 50.0
    """
    for name, count in (("num_samples", num_samples), ("chunk_size", chunk_size)):
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")
    q = encode(x)
    draw = partial(log_weight, lambda _: q, decode, prior=prior)

    def chunk_sums(start: jax.Array | int, size: int) -> _Sums:
        indices = start + jnp.arange(size)
        log_w = jax.vmap(lambda k: draw(jax.random.fold_in(key, k), x))(indices)
        peak = jnp.max(log_w)
        w = jnp.exp(log_w - _finite(peak))
        return _Sums(peak, jnp.sum(w), jnp.sum(w**2))

    chunk_size = min(chunk_size, num_samples)
    num_chunks, rest = divmod(num_samples, chunk_size)

    # Starting from the first chunk gives the carry its dtype, x64 or not.
    sums = chunk_sums(jnp.zeros((), jnp.int32), chunk_size)
    lost = jax.tree.map(jnp.zeros_like, sums)

    def step(carry: tuple[_Sums, _Sums], start: jax.Array) -> tuple:
        return _merge(*carry, chunk_sums(start, chunk_size)), None

    starts = chunk_size * jnp.arange(1, num_chunks)
    (sums, lost), _ = jax.lax.scan(step, (sums, lost), starts)
    if rest:
        sums, lost = _merge(sums, lost, chunk_sums(num_samples - rest, rest))

    ess = sums.first**2 / sums.second
    return ImportanceEstimate(
        log_likelihood=sums.max + jnp.log(sums.first) - jnp.log(num_samples),
        ess=ess,
        std_error=jnp.sqrt(jnp.maximum(1 / ess - 1 / num_samples, 0)),
    )


def _merge(total: _Sums, lost: _Sums, chunk: _Sums) -> tuple[_Sums, _Sums]:
    """Adds a chunk by running max, with Kahan's compensation of what adding loses.

    Without it, float32 sums over the thousands of chunks of a large K drift.
    """
    peak = jnp.maximum(total.max, chunk.max)
    scale = jnp.exp(total.max - _finite(peak))
    chunk_scale = jnp.exp(chunk.max - _finite(peak))

    def add(total, lost, chunk, power):
        addend = chunk * chunk_scale**power - lost * scale**power
        scaled = total * scale**power
        new = scaled + addend
        return new, (new - scaled) - addend

    first, first_lost = add(total.first, lost.first, chunk.first, 1)
    second, second_lost = add(total.second, lost.second, chunk.second, 2)
    return (
        _Sums(peak, first, second),
        _Sums(jnp.zeros_like(peak), first_lost, second_lost),
    )


def _finite(peak: jax.Array) -> jax.Array:
    """A reference point to subtract: all weights zero gives −inf, not NaN."""
    return jnp.where(jnp.isneginf(peak), jnp.zeros_like(peak), peak)
