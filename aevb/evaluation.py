"""From one datapoint to a dataset: evaluating, judging and reporting the values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aevb.types import PyTree

__all__ = [
    "Summary",
    "bits_per_dim",
    "check_binary",
    "map_datapoints",
    "pareto_k",
    "summarize",
    "tail_size",
]


def map_datapoints(
    estimator: Callable[[jax.Array, jax.Array], PyTree],
    key: jax.Array,
    xs: jax.Array,
    *,
    batch_size: int = 1,
    first: int | jax.Array = 0,
) -> PyTree:
    """Applies an estimator of one datapoint to many, the same bits however split.

    Datapoint i has the key `fold_in(key, first + i)`, and the program of a batch has
    one shape: the last batch is filled up, so that a datapoint's value does not depend
    on what is evaluated with it. (A bare `jax.vmap` is the same up to rounding: the
    compiler sums in another order for a batch of one.)

    Args:
      estimator: `estimator(key, x) -> pytree of arrays`, such as
        `partial(aevb.importance_log_likelihood, encode, decode, num_samples=5000)`.
      key: consumed.
      xs: `[N, ...]` datapoints.
      batch_size: datapoints at a time, static; 1 with a large `chunk_size` is as fast
        on a CPU.
      first: the index of `xs[0]` in the whole dataset, where `xs` is a part of it.

    Returns:
      The estimator's pytree, its leaves with a leading axis `[N]`.

    >>> values = map_datapoints(lambda key, x: x + 1, jax.random.key(0), jnp.arange(3))
    >>> print(values)
    [1 2 3]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    num_datapoints = len(xs)
    num_batches = -(-num_datapoints // batch_size)
    if num_datapoints == 1 and batch_size > 1:
        # Of a single row the compiler knows that the batch repeats it, and computes
        # what all have in common once, in another order: hide that.
        xs = jax.lax.optimization_barrier(jnp.concatenate([xs, xs]))
    indices = jnp.minimum(jnp.arange(num_batches * batch_size), num_datapoints - 1)

    def one(index: jax.Array) -> PyTree:
        return estimator(jax.random.fold_in(key, first + index), xs[index])

    if batch_size == 1:
        return jax.lax.map(one, indices)
    batches = indices.reshape(num_batches, batch_size)
    values = jax.lax.map(jax.vmap(one), batches)
    return jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_datapoints], values
    )


class Summary(NamedTuple):
    """The mean of per-datapoint values, each datapoint weighted once.

    Attributes:
      mean: `[]` over datapoints and repeats.
      std_error: `[]` of the mean over *datapoints*: how far the mean over other test
        points would be. sd / sqrt(N), of each datapoint's mean over repeats.
      repeat_std_error: `[]` of the mean over *repeats*: how far other random draws for
        these datapoints would move it. sd / sqrt(R), of each repeat's mean over
        datapoints; NaN with a single repeat.
    """

    mean: jax.Array
    std_error: jax.Array
    repeat_std_error: jax.Array


def summarize(values: jax.Array) -> Summary:
    """Averages per-datapoint values, with the two standard errors a mean has.

    Give it *all* values at once: a mean of batch means weights the datapoints of a
    short last batch more. NaN and infinities come through to the mean.

    Args:
      values: `[N]` one value a datapoint, or `[R, N]` from R repeats with other keys.

    Returns:
      `Summary` of scalars, in the values' unit.

    Raises:
      ValueError: values have neither one nor two axes.

    >>> summary = summarize(jnp.array([[-1.0, -3.0], [-2.0, -4.0]]))
    >>> print(*(f"{value:.2f}" for value in summary))
    -2.50 1.00 0.50
    """
    if values.ndim not in (1, 2):
        raise ValueError(
            f"values have shape {values.shape}, expected [N] (one a datapoint) or "
            "[R, N] (R repeats)"
        )
    values = jnp.atleast_2d(values)

    def std_error(means: jax.Array) -> jax.Array:
        if len(means) < 2:
            return jnp.full((), jnp.nan, means.dtype)
        return jnp.std(means, ddof=1) / math.sqrt(len(means))

    return Summary(
        mean=jnp.mean(values),
        std_error=std_error(jnp.mean(values, axis=0)),
        repeat_std_error=std_error(jnp.mean(values, axis=1)),
    )


def bits_per_dim(log_likelihood: jax.Array, *, num_dims: int, levels: int) -> jax.Array:
    """Nats per datapoint, of data scaled to [0, 1], as bits per dimension.

    bits = log₂ levels − log p(x) / (D log 2)

    A decoder density is per unit of the *scaled* pixel: byte / 256 has 256 levels and
    byte / 255 has 255, and the density of the byte itself is lower by log(levels) a
    dimension. Without dequantisation noise in x it is an approximation to the
    discrete code length, good where the density is flat over one level. `levels=1`
    leaves out the scaling: binary x, or x in its own unit.

    Args:
      log_likelihood: `[...]` log p(x) or a bound on it, nats per datapoint.
      num_dims: D.
      levels: the width of the data's range before it was scaled to [0, 1].

    Returns:
      `[...]` bits per dimension; it goes *down* as log p(x) goes up.

    >>> nats = jnp.array(1312.0)  # Fig. 2, Frey Face (560 pixels), byte / 256
    >>> print(f"{bits_per_dim(nats, num_dims=560, levels=256):.2f}")
    4.62
    """
    return math.log2(levels) - log_likelihood / (num_dims * math.log(2))


def check_binary(xs: jax.Array | np.ndarray) -> None:
    """Refuses data that a Bernoulli p(x|z) gives no likelihood.

    The log p(x) estimators call it on x, but a value that is being traced (under
    `jax.jit` or `jax.vmap`) cannot be looked at: call it on the data itself first.

    Args:
      xs: `[...]` data; a traced value passes unseen.

    Raises:
      ValueError: a value is neither 0 nor 1.

    >>> check_binary(jnp.array([0.0, 1.0]))
    """
    if isinstance(xs, jax.core.Tracer):
        return
    values = np.asarray(xs)
    grey = values[(values != 0) & (values != 1)]
    if grey.size:
        raise ValueError(
            f"x has {grey.size} values such as {grey.flat[0]} that are neither 0 nor "
            "1: exp(Σ x l − softplus(l)) does not sum to one over grey levels, so "
            "under a Bernoulli p(x|z) it is no likelihood, and has no log p(x). "
            "Binarise x first, or report the bound as a training objective"
        )


def tail_size(num_samples: int) -> int:
    """The number of largest weights that k-hat is fitted to: ⌈min(K/5, 3√K)⌉.

    >>> tail_size(5000)
    213
    """
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
    num_samples = len(log_weights) if num_samples is None else num_samples
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
