"""Estimates of the marginal likelihood log p(x) of one datapoint.

An estimate comes back with what is needed to judge it. Averages over datapoints are a
separate step: `map_datapoints` (or `jax.vmap`), then `summarize`.

This module has importance sampling and the truth, `quadrature`; `aevb.annealed` and
`aevb.reciprocal` have the estimators that use a Markov chain.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_decode, call_encode, check_scalar, prior_or_normal
from aevb.distributions import Bernoulli
from aevb.evaluation import check_binary, pareto_k, tail_size
from aevb.types import Decode, Encode, Posterior

__all__ = [
    "ImportanceEstimate",
    "Quadrature",
    "curve_sizes",
    "importance_log_likelihood",
    "log_joint",
    "quadrature",
]


def log_joint(
    decode: Decode, z: jax.Array, x: jax.Array, *, prior: Posterior | None = None
) -> jax.Array:
    """The log joint density log p(x, z) = log p(x|z) + log p(z).

    Args:
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      z: `[J]`.
      x: `[D]` one datapoint; binary under a `Bernoulli`.
      prior: p(z); None is the standard normal of z's shape.

    Returns:
      `[]` in nats.

    Raises:
      TypeError: `decode` does not return a distribution.
      ValueError: a log density is not a scalar; x has grey levels under a `Bernoulli`
        (seen where x is not traced: see `check_binary`).

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> print(f"{log_joint(decode, jnp.zeros(1), jnp.zeros(1)):.4f}")
    -1.8379
    """
    likelihood = call_decode(decode, z)
    if isinstance(likelihood, Bernoulli):
        check_binary(x)
    log_likelihood = check_scalar(likelihood.log_prob(x), "decode(z).log_prob(x)")
    log_prior = prior_or_normal(prior, z).log_prob(z)
    return log_likelihood + check_scalar(log_prior, "prior.log_prob(z)")


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
    for name, count in (("num_samples", num_samples), ("chunk_size", chunk_size)):
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")
    q = call_encode(encode, x)
    sizes = jnp.asarray(curve_sizes(num_samples))
    chunk_size = min(chunk_size, num_samples)

    def log_weight(index: jax.Array) -> jax.Array:
        z = q.sample(jax.random.fold_in(key, index))
        log_q = check_scalar(q.log_prob(z), "encode(x).log_prob(z)")
        return log_joint(decode, z, x, prior=prior) - log_q

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


class Quadrature(NamedTuple):
    """The truth about one datapoint, by integration over z.

    Attributes:
      log_likelihood: `[]` log p(x) = log ∫ p(x|z) p(z) dz, in nats.
      mean: `[J]` the posterior mean E[z|x].
      covariance: `[J, J]` the posterior covariance.
    """

    log_likelihood: jax.Array
    mean: jax.Array
    covariance: jax.Array


def quadrature(
    decode: Decode,
    x: jax.Array,
    *,
    latent_dim: int,
    num_points: int = 401,
    limit: float = 9.0,
    prior: Posterior | None = None,
    loc: jax.Array | None = None,
    scale_tril: jax.Array | None = None,
) -> Quadrature:
    """Integrates a model with up to three latent dimensions on a grid.

    log p(x) = log |det S| hᴶ Σ_u p(x, m + S u),  u on the grid of spacing h

    The trapezoidal rule on u in [−limit, limit]^J; for an analytic integrand that
    vanishes at the ends its error falls faster than any power of the spacing. The
    spacing must resolve the posterior: `2 limit / num_points` below its standard
    deviation, in units of S. A posterior that is too narrow for the grid around the
    prior is integrated again around the mean and covariance found first:

        truth = quadrature(decode, x, latent_dim=3, num_points=101)
        truth = quadrature(decode, x, latent_dim=3, num_points=101, loc=truth.mean,
                           scale_tril=jnp.linalg.cholesky(truth.covariance))

    Args:
      decode: z `[J]` -> p(x|z).
      x: `[D]` one datapoint; binary under a `Bernoulli`.
      latent_dim: J; the grid has `num_points` ** J points (101 are 1e6 with J = 3).
      num_points: along each axis.
      limit: where each axis ends, in units of S.
      prior: p(z); None is the standard normal.
      loc: `[J]` m, the middle of the grid; None is 0.
      scale_tril: `[J, J]` S, lower triangular; None is the identity.

    Returns:
      `Quadrature`.

    Raises:
      ValueError: latent_dim is not 1, 2 or 3; x has grey levels under a `Bernoulli`.

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> truth = quadrature(decode, jnp.zeros(1), latent_dim=1)
    >>> print(f"{truth.log_likelihood:.4f} {truth.covariance[0, 0]:.4f}")
    -1.2655 0.5000
    """
    if latent_dim not in (1, 2, 3):
        raise ValueError(
            f"latent_dim is {latent_dim}, expected 1, 2 or 3: a grid of {num_points} "
            f"points along each axis would have {num_points}^{latent_dim}; use "
            "aevb.annealed_log_likelihood"
        )
    loc = jnp.zeros(latent_dim) if loc is None else loc
    scale_tril = jnp.eye(latent_dim) if scale_tril is None else scale_tril
    axis = jnp.linspace(-limit, limit, num_points)
    shape = (num_points,) * latent_dim

    def log_density(index: jax.Array) -> jax.Array:
        u = jnp.stack([axis[i] for i in jnp.unravel_index(index, shape)])
        return log_joint(decode, loc + scale_tril @ u, x, prior=prior)

    # The grid is made as it is visited: what is stored is one number a point.
    log_mass = jax.lax.map(
        log_density, jnp.arange(num_points**latent_dim), batch_size=4096
    )
    log_mass += latent_dim * math.log(2 * limit / (num_points - 1))
    log_mass += jnp.linalg.slogdet(scale_tril)[1]
    log_likelihood = jax.nn.logsumexp(log_mass)
    weights = jnp.exp(log_mass - log_likelihood).reshape(shape)

    us = jnp.meshgrid(*[axis] * latent_dim, indexing="ij", sparse=True)
    mean = jnp.stack([jnp.sum(weights * u) for u in us])
    centred = [u - m for u, m in zip(us, mean, strict=True)]
    covariance = jnp.stack(
        [jnp.stack([jnp.sum(weights * u * v) for v in centred]) for u in centred]
    )
    return Quadrature(
        log_likelihood=log_likelihood,
        mean=loc + scale_tril @ mean,
        covariance=scale_tril @ covariance @ scale_tril.T,
    )
