"""From one datapoint to a dataset: evaluating, judging and reporting the values."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.types import PyTree

__all__ = [
    "Summary",
    "bits_per_dim",
    "map_datapoints",
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
