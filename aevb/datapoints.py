"""From one datapoint to a dataset: evaluating, judging and reporting the values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.types import PyTree

__all__ = [
    "SampledMean",
    "Summary",
    "bits_per_dim",
    "map_datapoints",
    "sampled_mean",
    "summarize",
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
    batch_size = check_count("batch_size", batch_size)
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


class SampledMean(NamedTuple):
    """The mean over a whole dataset, of a value that is known for a sample of it.

    Attributes:
      mean: `[]` over all N datapoints.
      std_error: `[]` of it: how far another sample of n would move it. 0 where n = N.
      slope: `[]` of the regression of the values on the proxy.
    """

    mean: jax.Array
    std_error: jax.Array
    slope: jax.Array


def sampled_mean(
    values: jax.Array, proxies: jax.Array, all_proxies: jax.Array
) -> SampledMean:
    """The mean of a dear value over a dataset, from a sample and a cheap proxy.

    mean = v̄ + b (P̄ − p̄),  std_error² = (1/n − 1/N) Σ (v − v̄ − b (p − p̄))² / (n − 2)

    with v̄, p̄ over the n datapoints of the sample, P̄ over all N and b the slope of
    the regression. The more of the spread over datapoints a proxy shares, the smaller
    the error: log p(x) at K = 5000 is spread by 22 nats over MNIST's test images, what
    it gains over K = 100 by 1.

    Args:
      values: `[n]` of a simple random sample of the datapoints, n at least 3.
      proxies: `[n]` of the same datapoints.
      all_proxies: `[N]` of all datapoints.

    Returns:
      `SampledMean` of scalars, in the values' unit. Its bias is of order 1/n, that of
      a regression; with a proxy that is the value it is exact.

    Raises:
      ValueError: the shapes do not fit.

    Source: Cochran, Sampling Techniques (1977), eq. 7.20 and 7.29.

    >>> found = sampled_mean(jnp.arange(3.0) - 1, jnp.arange(3.0), jnp.arange(5.0))
    >>> print(found.mean, found.std_error)
    1.0 0.0
    """
    n, total = len(values), len(all_proxies)
    if values.shape != proxies.shape or values.ndim != 1 or all_proxies.ndim != 1:
        raise ValueError(
            f"values, proxies and all_proxies have shapes {values.shape}, "
            f"{proxies.shape} and {all_proxies.shape}, expected [n], [n] and [N]"
        )
    if not 3 <= n <= total:
        raise ValueError(
            f"there are {n} values of {total} datapoints, expected at least 3 and at "
            "most all of them"
        )
    value, proxy = values - jnp.mean(values), proxies - jnp.mean(proxies)
    square = jnp.sum(proxy**2)
    # A proxy that is the same everywhere says nothing.
    slope = jnp.where(square > 0, jnp.sum(proxy * value) / square, 0.0)
    residual = value - slope * proxy
    return SampledMean(
        mean=jnp.mean(values) + slope * (jnp.mean(all_proxies) - jnp.mean(proxies)),
        std_error=jnp.sqrt((1 / n - 1 / total) * jnp.sum(residual**2) / (n - 2)),
        slope=slope,
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
    num_dims, levels = check_count("num_dims", num_dims), check_count("levels", levels)
    return math.log2(levels) - log_likelihood / (num_dims * math.log(2))
