"""Diagnostics of estimates: heavy tails of weights, and chains that disagree."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.types import PyTree

__all__ = [
    "LogMean",
    "effective_sample_size",
    "log_mean_weight",
    "pareto_k",
    "split_r_hat",
    "tail_size",
]


def tail_size(num_samples: int) -> int:
    """The number of largest weights that k-hat is fitted to: ⌈min(K/5, 3√K)⌉.

    >>> tail_size(5000)
    213
    """
    num_samples = check_count("num_samples", num_samples)
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k(log_weights: jax.Array, *, num_samples: int | None = None) -> jax.Array:
    """The Pareto k-hat of importance weights: how heavy their upper tail is.

    The generalised Pareto distribution is fitted to the `tail_size(K)` largest
    weights; with shape k, moments of the weights of order 1/k and above do not exist.
    Below 0.7 the estimate can be trusted, above it neither the estimate nor its
    standard error can, whatever K; above 1 the mean itself need not exist.

    Args:
      log_weights: `[K]` in any order; or only the largest `tail_size(K) + 1` of them.
      num_samples: K, static, where `log_weights` are the largest of K.

    Returns:
      `[]` k-hat. +inf where fewer than five weights are above the cutoff, so that it
      cannot be judged (K below 21; one weight that outweighs the rest by 80 nats);
      −inf where the largest weights are all equal, as with the exact posterior.

    Source: Zhang and Stephens (2009), Technometrics 51(3); Vehtari et al.,
    arXiv 1507.02646, algorithm 1 and appendix G.

    >>> weights = jax.random.pareto(jax.random.key(0), 2.0, (100_000,))  # k = 1/2
    >>> print(f"{pareto_k(jnp.log(weights)):.1f}")
    0.5
    """
    if num_samples is None:
        num_samples = len(log_weights)
    size = tail_size(num_samples)
    dtype = log_weights.dtype
    if size < 5:
        return jnp.full((), jnp.inf, dtype)
    if len(log_weights) < size + 1:
        raise ValueError(
            f"got {len(log_weights)} log weights, expected at least the largest "
            f"{size + 1} of {num_samples}"
        )
    top, _ = jax.lax.top_k(log_weights, size + 1)
    relative = top - top[0]
    cutoff = jnp.maximum(relative[-1], math.log(jnp.finfo(dtype).tiny))
    above = relative[:-1] > cutoff
    count = jnp.sum(above)
    # Ascending. Ties with the cutoff are not exceedances: zeros, which add nothing to
    # the sums over the tail.
    tail = jnp.where(above, jnp.exp(cutoff) * jnp.expm1(relative[:-1] - cutoff), 0)
    k = _fit_pareto_shape(tail[::-1], count)
    k = jnp.where(count < 5, jnp.inf, k)
    constant = (count == 0) & jnp.isfinite(top[0])
    return jnp.where(constant, -jnp.inf, k)


def _fit_pareto_shape(tail: jax.Array, count: jax.Array) -> jax.Array:
    """The shape of the generalised Pareto distribution of ascending exceedances.

    The last `count` of `tail` are the exceedances, what comes before them is zero.
    """
    size, dtype = len(tail), tail.dtype
    quartile = tail[size - count + (count + 2) // 4 - 1]  # ⌊count/4 + ½⌋ from below
    count = count.astype(dtype)
    num_grid = 30 + jnp.floor(jnp.sqrt(count))
    index = jnp.arange(1, 31 + math.isqrt(size), dtype=dtype)
    b = (1 - jnp.sqrt(num_grid / (index - 0.5))) / (3 * quartile) + 1 / tail[-1]

    def shape(b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.log1p(-b * tail)) / count

    k = jax.vmap(shape)(b)
    log_profile = count * (jnp.log(-b / k) - k - 1)
    weights = jax.nn.softmax(jnp.where(index <= num_grid, log_profile, -jnp.inf))
    # The weakly informative prior of Vehtari et al.: ten observations of k = 1/2.
    return (count * shape(jnp.sum(weights * b)) + 10 * 0.5) / (count + 10)


class LogMean(NamedTuple):
    """The log of a mean of weights, and its error.

    Attributes:
      value: `[]` log (1/C) Σ_c w_c, in nats.
      ess: `[]` effective sample size (Σw)² / Σw², between 1 and C.
      std_error: `[]` delta-method standard error of `value`, in nats:
        sqrt(1/ess − 1/C).
    """

    value: jax.Array
    ess: jax.Array
    std_error: jax.Array


def log_mean_weight(log_weights: jax.Array) -> LogMean:
    """The log of the mean weight, with its standard error over independent weights.

    Args:
      log_weights: `[C]` log w_c, in nats.

    Returns:
      `LogMean` of scalars.

    >>> mean = log_mean_weight(jnp.log(jnp.array([1.0, 3.0])))
    >>> print(f"{jnp.exp(mean.value):.1f} {mean.ess:.1f} {mean.std_error:.2f}")
    2.0 1.6 0.35
    """
    log_sum = jax.nn.logsumexp(log_weights)
    ess = jnp.exp(2 * log_sum - jax.nn.logsumexp(2 * log_weights))
    num_weights = len(log_weights)
    std_error = jnp.sqrt(jnp.maximum(1 / ess - 1 / num_weights, 0))
    return LogMean(log_sum - jnp.log(num_weights), ess, std_error)


def split_r_hat(zs: PyTree) -> PyTree:
    """The split R-hat of Gelman and Rubin: near 1 where chains agree.

    It compares the variance between the halves of all chains with that within them.

    Args:
      zs: `[C, L, ...]` L draws of each of C chains, or a pytree of such.

    Returns:
      `[...]` one number a dimension of z, in the structure of z.

    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, section 11.4.

    >>> zs = jax.random.normal(jax.random.key(0), (4, 1000, 2))
    >>> print(split_r_hat(zs).round(1), split_r_hat(zs.at[0].add(9.0)).round(1) > 2)
    [1. 1.] [ True  True]
    """

    def leaf(zs: jax.Array) -> jax.Array:
        half = zs.shape[1] // 2
        halves = jnp.concatenate([zs[:, :half], zs[:, -half:]]) if half else zs
        within = jnp.mean(jnp.var(halves, axis=1, ddof=1), axis=0)
        between = jnp.var(jnp.mean(halves, axis=1), axis=0, ddof=1)
        return jnp.sqrt((half - 1) / half + between / within) if half else within

    return jax.tree.map(leaf, zs)


def effective_sample_size(zs: PyTree) -> PyTree:
    """How many independent draws tell a mean as well as these of Markov chains.

    C L / (1 + 2 Σ_t ρ_t), with the autocorrelations ρ_t of all chains together, so that
    chains in different places have few; summed in pairs of lags, up to the first pair
    that is negative, each at most the one before (Geyer).

    Args:
      zs: `[C, L, ...]` L draws of each of C chains, L at least 4, or a pytree of such.

    Returns:
      `[...]` one number a dimension of z, in the structure of z. Above C L where
      successive draws are on opposite sides of the mean, at most C L log10(C L); NaN
      where none ever moves.

    Raises:
      ValueError: there are fewer than four draws a chain.

    Source: Geyer (1992), Statistical Science 7(4); Gelman et al., Bayesian Data
    Analysis, 3rd edition, section 11.5.

    >>> zs = jax.random.normal(jax.random.key(0), (4, 1000))
    >>> bool(abs(effective_sample_size(zs) - 4000) < 400)
    True
    """

    def leaf(zs: jax.Array) -> jax.Array:
        num_chains, num_draws = zs.shape[:2]
        check_count("the number of draws of a chain", num_draws, least=4)
        means = jnp.mean(zs, axis=1)
        spectrum = jnp.fft.rfft(zs - means[:, None], n=2 * num_draws, axis=1)
        power = jnp.real(spectrum * jnp.conj(spectrum))
        covariances = jnp.fft.irfft(power, n=2 * num_draws, axis=1)[:, :num_draws]
        covariances = jnp.mean(covariances, axis=0) / num_draws  # [L, ...]
        within = total = covariances[0]
        if num_chains > 1:
            within = within * num_draws / (num_draws - 1)
            total = total + jnp.var(means, axis=0, ddof=1)
        correlations = 1 - (within[None] - covariances) / total[None]
        correlations = correlations.at[0].set(jnp.ones_like(total))
        half = num_draws // 2 * 2
        pairs = correlations[0:half:2] + correlations[1:half:2]
        ended = jnp.cumsum(pairs < 0, axis=0) > 0
        pairs = jax.lax.cummin(jnp.where(ended, 0, pairs), axis=0)
        # Of a few draws the sum may be anything: bounded as in Stan.
        total_draws = num_chains * num_draws
        time = jnp.maximum(2 * jnp.sum(pairs, axis=0) - 1, 1 / math.log10(total_draws))
        ess = total_draws / time
        # Rounding alone would tell such chains apart.
        return jnp.where(jnp.all(zs == zs[:, :1], axis=(0, 1)), jnp.nan, ess)

    return jax.tree.map(leaf, zs)
