"""Importance sampling of log p(x), in bounded memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_encode, check_count
from aevb.estimators import weighted_draw
from aevb.marginal.diagnostics import pareto_k, tail_size
from aevb.types import Decode, Encode, Posterior

__all__ = ["ImportanceEstimate", "curve_sizes", "importance_log_likelihood"]


class ImportanceEstimate(NamedTuple):
    """An importance-sampled log p(x) of one datapoint.

    Attributes:
      log_likelihood: `[]` log (1/K) Σ_k w_k, in nats. Its expectation is *below*
        log p(x), by about Var(w) / (2 K p(x)²) when K is large.
      ess: `[]` effective sample size (Σw)² / Σw², between 1 and K. Near 1, the sum is
        one draw's: the estimate has not converged.
      std_error: `[]` delta-method standard error of `log_likelihood` over draws, in
        nats: sqrt(1/ess − 1/K). Itself unreliable where `pareto_k` is above 0.7.
      pareto_k: `[]` k-hat of the K weights; see `aevb.pareto_k`.
      curve: `[len(curve_sizes(K))]` the estimate from the first 1, 10, 100, ... K
        draws, in nats. Still rising at its end: biased.
    """

    log_likelihood: jax.Array
    ess: jax.Array
    std_error: jax.Array
    pareto_k: jax.Array
    curve: jax.Array


class _Sums(NamedTuple):
    """Σw and Σw² relative to the largest log weight so far, for each curve size."""

    max: jax.Array
    first: jax.Array
    second: jax.Array


def curve_sizes(num_samples: int) -> tuple[int, ...]:
    """The numbers of draws that `ImportanceEstimate.curve` has: powers of ten, and K.

    >>> curve_sizes(5000)
    (1, 10, 100, 1000, 5000)
    """
    num_samples = check_count("num_samples", num_samples)
    powers = [10**i for i in range(len(str(num_samples)))]
    return (*[size for size in powers if size < num_samples], num_samples)


def importance_log_likelihood(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    num_samples: int,
    chunk_size: int = 100,
    axis_name: str | None = None,
) -> ImportanceEstimate:
    """Estimates log p(x) with exactly K importance samples, in bounded memory.

    log p̂(x) = log (1/K) Σ_k p(x, z_k) / q(z_k|x),  z_k ~ q(z|x)

    Samples are drawn `chunk_size` at a time, so that memory is that of one chunk, and
    of the 3√K largest weights for k-hat, whatever K is. Sample k uses the key
    `fold_in(key, k)`: any chunk size gives the same draws, and the same estimate up to
    rounding; it equals `iwae` with the same K.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`; called once.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed.
      x: `[D]` one datapoint; binary under a `Bernoulli` p(x|z).
      prior: p(z); None is the standard normal of z's shape.
      num_samples: K, static.
      chunk_size: samples at a time, static; need not divide K.
      axis_name: an axis of `jax.shard_map` whose devices share the K samples of
        this datapoint: the same draws, chunk by chunk in turn. None is one device.

    Returns:
      `ImportanceEstimate`.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar, a count is not positive, or x has grey
        levels under a `Bernoulli` (seen where x is not traced: see `check_binary`).

    Source: Burda et al., arXiv 1509.00519, section 5 (K = 5000 there).

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> estimate = importance_log_likelihood(
    ...     encode, decode, jax.random.key(0), jnp.zeros(1), num_samples=50)
    >>> print(f"{estimate.log_likelihood:.4f} {estimate.ess:.1f}")
    -1.2655 50.0
    """
    num_samples = check_count("num_samples", num_samples)
    chunk_size = min(check_count("chunk_size", chunk_size), num_samples)
    q = call_encode(encode, x)
    sizes = jnp.asarray(curve_sizes(num_samples))

    def log_weight(index: jax.Array) -> jax.Array:
        draw_key = jax.random.fold_in(key, index)
        draw = weighted_draw(q, decode, draw_key, x, prior=prior, refuse_grey=True)
        return draw.log_weight

    def step(carry: tuple, start: jax.Array) -> tuple[tuple, None]:
        sums, lost, top = carry
        indices = start + jnp.arange(chunk_size)
        log_w = jax.vmap(log_weight)(indices)
        # Beyond a curve's size, and beyond K in the last chunk, a draw has no weight.
        log_w = jnp.where(indices[None, :] < sizes[:, None], log_w[None, :], -jnp.inf)
        peak = jnp.max(log_w, axis=1)
        w = jnp.exp(log_w - _finite(peak)[:, None])
        chunk = _Sums(peak, jnp.sum(w, axis=1), jnp.sum(w**2, axis=1))
        top, _ = jax.lax.top_k(jnp.concatenate([top, log_w[-1]]), len(top))
        return (*_merge(sums, lost, chunk), top), None

    starts = jnp.arange(0, num_samples, chunk_size)
    if axis_name is not None:
        starts = _share(starts, num_samples, axis_name)
    # Only the type matters, which inside a shard_map says where the weights differ: a
    # scan's carry needs it from the start. XLA drops the value.
    like = log_weight(starts[0])
    zero = jnp.where(jnp.isnan(like), 0, jnp.zeros_like(like))
    zeros = jnp.broadcast_to(zero, sizes.shape)
    sums, lost = _Sums(zeros - jnp.inf, zeros, zeros), _Sums(zeros, zeros, zeros)
    num_top = min(tail_size(num_samples) + 1, num_samples)
    top = jnp.broadcast_to(zero - jnp.inf, (num_top,))
    (sums, _, top), _ = jax.lax.scan(step, (sums, lost, top), starts)
    if axis_name is not None:
        sums, top = _combine(sums, top, axis_name)

    curve = sums.max + jnp.log(sums.first) - jnp.log(sizes.astype(like.dtype))
    ess = sums.first[-1] ** 2 / sums.second[-1]
    return ImportanceEstimate(
        log_likelihood=curve[-1],
        ess=ess,
        std_error=jnp.sqrt(jnp.maximum(1 / ess - 1 / num_samples, 0)),
        pareto_k=pareto_k(top, num_samples=num_samples),
        curve=curve,
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


def _share(starts: jax.Array, num_samples: int, axis_name: str) -> jax.Array:
    """This device's chunks, in turn; one beyond K, of no weight, where none is left."""
    num_devices = jax.lax.axis_size(axis_name)
    starts = jnp.pad(
        starts, (0, -len(starts) % num_devices), constant_values=num_samples
    )
    return starts.reshape(-1, num_devices)[:, jax.lax.axis_index(axis_name)]


def _combine(sums: _Sums, top: jax.Array, axis_name: str) -> tuple[_Sums, jax.Array]:
    """The sums over all devices, and the largest of all their weights."""
    peak = jax.lax.pmax(sums.max, axis_name)
    scale = jnp.exp(sums.max - _finite(peak))
    first, second = jax.lax.psum(
        (sums.first * scale, sums.second * scale**2), axis_name
    )
    # A psum, not an all_gather, so that it is known to be the same everywhere.
    mine = jax.lax.axis_index(axis_name) == jnp.arange(jax.lax.axis_size(axis_name))
    weights = jax.lax.psum(jnp.where(mine[:, None], top, 0), axis_name)
    top, _ = jax.lax.top_k(weights.reshape(-1), len(top))
    return _Sums(peak, first, second), top


def _finite(peak: jax.Array) -> jax.Array:
    """A reference point to subtract: all weights zero gives −inf, not NaN."""
    return jnp.where(jnp.isneginf(peak), jnp.zeros_like(peak), peak)
