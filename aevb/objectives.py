"""Objectives over a dataset, built from bounds of one datapoint.

An objective is `(params, key, batch) -> (value, aux)`; its value is maximised, in
nats per datapoint.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.types import Objective, PyTree

__all__ = ["dataset_bound", "global_indices", "log_weight_prior", "map_objective"]


def global_indices(count: int, axis_name: str | None) -> jax.Array:
    """The indices of this device's datapoints in the minibatch of all devices.

    Args:
      count: datapoints on each device.
      axis_name: of `jax.shard_map`, over which the minibatch is split, device 0
        having its first part; None where one device has all of it.

    Returns:
      `[count]` int32.

    >>> print(global_indices(3, axis_name=None))
    [0 1 2]
    """
    indices = jnp.arange(count)
    return (
        indices
        if axis_name is None
        else indices + count * jax.lax.axis_index(axis_name)
    )


def dataset_bound(bounds: jax.Array, num_datapoints: int) -> jax.Array:
    """Scales a minibatch of bounds up to the dataset: (N/M) Σ_i L(x_i).

    Args:
      bounds: `[M]` estimates of the bound, one a datapoint, in nats.
      num_datapoints: N.

    Returns:
      `[]` an unbiased estimate of the bound on log p(X), in nats *per dataset*.

    Raises:
      ValueError: `bounds` is not one scalar a datapoint, or N is not a count.

    Source: eq. 8, section 2.3.

    >>> print(dataset_bound(jnp.array([-1.0, -3.0]), num_datapoints=10))
    -20.0
    """
    if jnp.ndim(bounds) != 1:
        raise ValueError(
            f"bounds have shape {jnp.shape(bounds)}, expected [M], one scalar a "
            "datapoint: sum the bound of a datapoint over its own axes"
        )
    num_datapoints = check_count("num_datapoints", num_datapoints)
    return num_datapoints * jnp.mean(bounds)


def log_weight_prior(
    params: PyTree, *, scale: float | jax.Array = 1.0, only_matrices: bool = True
) -> jax.Array:
    """The log density of the weights under N(0, scale² I), normaliser included.

    The paper puts N(0, I) on all parameters (section 5). The author's code has two
    readings of it. The class of a deep VAE (`VAE_Z_X`) applies it to the weight
    matrices of both networks and leaves out all biases, which is the default here. The
    class present when the paper was written (`DLVM`) applies it to all biases of the
    encoder too, and to those of the decoder's hidden layers but the last: never to the
    decoder's output biases, and with one hidden layer to no bias of the decoder.

    Args:
      params: the parameters.
      scale: the prior's standard deviation; may be traced.
      only_matrices: leave out leaves with fewer than two axes (biases).

    Returns:
      `[]` Σ log N(w; 0, scale²), in nats.

    Source: section 5; the matrices-only default: `dpkingma/anglepy`.

    >>> print(f"{log_weight_prior({'w': jnp.zeros((1, 2)), 'b': jnp.ones(2)}):.4f}")
    -1.8379
    """

    def leaf(w: jax.Array) -> jax.Array:
        # The scale is left to the sum: a division of every weight is 5 % of a step.
        normaliser = jnp.log(scale) + 0.5 * math.log(2 * math.pi)
        return -0.5 * jnp.sum(w**2) / scale**2 - jnp.size(w) * normaliser

    ws = [w for w in jax.tree.leaves(params) if jnp.ndim(w) >= 2 or not only_matrices]
    return jnp.asarray(sum((leaf(w) for w in ws), 0.0))


def map_objective(
    bound: Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree]],
    *,
    num_datapoints: int,
    log_prior: Callable[[PyTree], jax.Array] | None = None,
    axis_name: str | None = None,
) -> Objective:
    """The objective of Algorithm 1: the bound, with a prior on the parameters (MAP).

    value = (1/N) [(N/M) Σ_i L(θ, φ; x_i) + log p(θ, φ)]

    that is eq. 8 plus the log prior, per datapoint: the prior pulls with a strength of
    1/N, so that a larger dataset outweighs it. Without `log_prior` it is maximum
    likelihood.

    Args:
      bound: `bound(params, key, x) -> (value [], aux)` for one x `[D]`, in nats.
      num_datapoints: N, the size of the training set (not of the minibatch).
      log_prior: `log_prior(params) -> []` in nats, such as `log_weight_prior`.
      axis_name: of `jax.shard_map`, over which the minibatch is split (see
        `aevb.gradient_algorithm`): i is then the index in all of it, and the value that
        of a device's part, whose *mean* over devices is the value of the whole.

    Returns:
      `objective(params, key, batch) -> (value [], aux)`. Datapoint i of the minibatch
      uses the key `fold_in(key, i)`; aux is averaged over the minibatch. It raises
      a ValueError where the bound of a datapoint is not a scalar.

    Source: eq. 8; section 5.

    >>> objective = map_objective(lambda w, key, x: (w * x, None), num_datapoints=4,
    ...                           log_prior=lambda w: -8 * w)
    >>> print(objective(2.0, jax.random.key(0), jnp.array([3.0, 5.0]))[0])
    4.0
    """
    num_datapoints = check_count("num_datapoints", num_datapoints)

    def objective(
        params: PyTree, key: jax.Array, batch: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        def one(index: jax.Array, x: jax.Array) -> tuple[jax.Array, PyTree]:
            return bound(params, jax.random.fold_in(key, index), x)

        bounds, aux = jax.vmap(one)(global_indices(len(batch), axis_name), batch)
        value = dataset_bound(bounds, num_datapoints)
        if log_prior is not None:
            value += log_prior(params)
        aux = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), aux)
        return value / num_datapoints, aux

    return objective
