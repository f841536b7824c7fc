"""Algorithm 1 as pure functions: an update, an epoch, a whole run.

A run is **one traceable function of (key, hyper-parameters)**. Build the optimizer
inside the function that is traced, and step sizes, prior scales and seeds become lanes
of one compiled program:

    def run(key, learning_rate):
        algorithm = aevb.gradient_algorithm(objective, optax.adam(learning_rate))
        return aevb.fit(algorithm, key, params, data, num_epochs=10, batch_size=100)

    runs = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(keys, learning_rates)

Keys: step t of a run splits `fold_in(key, t)` in two: one key for the update, one for
the transformation of the data; the order of epoch e comes from `fold_in(fold_in(key,
-1), e)`. Nothing random is stored, so a run that continues from a saved `State` repeats
the run that never stopped.

Data parallel: under `jax.shard_map`, with the axis' name given to `map_objective`,
`gradient_algorithm` and `epoch`, each device does its share of every minibatch with the
keys of one device doing all of it, and a step has one collective.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from aevb.calls import check_count
from aevb.objectives import global_indices
from aevb.types import Algorithm, Info, Objective, PyTree, State

__all__ = ["epoch", "epoch_batches", "fit", "gradient_algorithm", "scan_updates"]


def gradient_algorithm(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> Algorithm:
    """Stochastic gradient ascent on an objective: Algorithm 1 (AEVB).

    Args:
      objective: `objective(params, key, batch) -> (value [], aux)`, to be maximised,
        such as `map_objective(...)`.
      optimizer: any optax optimizer; its step sizes may be traced values.
      axis_name: of `jax.shard_map`, over which the minibatch is split. The objective,
        what it returns beside it and its gradient are averaged over it, all as one
        array: one all-reduce a step. None is one device.

    Returns:
      `Algorithm(init, update)`. `update` gives the objective at the parameters before
      the step, what the objective returned beside it, and the gradient's norm.

    Source: Algorithm 1, section 2.3.

    >>> objective = lambda w, key, batch: (-jnp.mean((w - batch) ** 2), None)
    >>> algorithm = gradient_algorithm(objective, optax.sgd(0.5))
    >>> state = algorithm.init(jnp.zeros(()))
    >>> state, info = algorithm.update(jax.random.key(0), state, jnp.full(4, 3.0))
    >>> print(state.params, info.objective)
    3.0 -9.0
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> State:
        return State(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    def loss(
        params: PyTree, key: jax.Array, batch: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
        value, aux = objective(params, key, batch)
        return -value, (value, aux)

    def mean(tree: PyTree) -> PyTree:
        if axis_name is None:
            return tree
        flat, unravel = ravel_pytree(tree)
        return unravel(jax.lax.pmean(flat, axis_name))

    def update(
        key: jax.Array,
        state: State,
        batch: jax.Array,
        *,
        indices: jax.Array | None = None,
    ) -> tuple[State, Info]:
        del indices  # nothing is kept of a datapoint
        params = state.params
        if axis_name is not None:
            # Else shard_map sums the gradients of replicated parameters, each alone.
            params = jax.lax.pcast(params, axis_name, to="varying")
        found = jax.value_and_grad(loss, has_aux=True)(params, key, batch)
        (loss_value, (value, aux)), grads = mean(found)
        # optax's line searches and plateau schedules ask for these; others ignore them.
        extra = {
            "value": loss_value,
            "grad": grads,
            "value_fn": lambda params: mean(loss(params, key, batch)[0]),
        }
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, **extra
        )
        params = optax.apply_updates(state.params, updates)
        # Behind a barrier: XLA would else store the squares that an optimizer and this
        # norm have in common, a pass over the memory of all parameters (8 % of a step).
        norm = optax.tree.norm(jax.lax.optimization_barrier(grads))
        info = Info(value, aux, norm)
        return State(state.step + 1, params, opt_state), info

    return Algorithm(init, update)


def epoch(
    algorithm: Algorithm,
    key: jax.Array,
    state: State,
    data: jax.Array,
    *,
    batch_size: int,
    transform: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[State, Info]:
    """One pass over the data in a random order: N // M updates as one `lax.scan`.

    The order is a permutation without replacement, anew each epoch; the last
    N mod M datapoints of it are left out of this epoch. Which epoch this is follows
    from `state.step`, which has to be a multiple of N // M. From the middle of an epoch
    it would begin the same order again. A step that is traced, as under `jax.jit`,
    cannot be checked: there the caller has to know.

    Args:
      algorithm: what makes an update.
      key: the *run's* key: the same one for every epoch, folded with the step inside.
      state: where the run is.
      data: `[N, ...]` the training set, resident on the device (uint8 is enough).
      batch_size: M, static, at most N.
      transform: `transform(key, x) -> x` for one datapoint, applied inside the step:
        scaling, dynamic binarisation. None leaves x as it is.
      axis_name: of `jax.shard_map`, over which each minibatch is split, if there is
        one; all devices have all of `data`, and M is that of all devices.

    Returns:
      The state after the epoch, and the mean over its updates of their `Info`.

    Raises:
      ValueError: `batch_size` is not between 1 and N, or not a multiple of the number
        of devices; the state is in the middle of an epoch (seen where its step is not
        traced: an epoch starts at a multiple of N // M).

    Source: Algorithm 1, section 2.3.

    >>> objective = lambda w, key, batch: (-jnp.mean((w - batch) ** 2), None)
    >>> algorithm = gradient_algorithm(objective, optax.sgd(0.5))
    >>> state = algorithm.init(jnp.zeros(()))
    >>> state, info = epoch(algorithm, jax.random.key(0), state, jnp.arange(6.0),
    ...                     batch_size=2)
    >>> print(state.step)
    3
    """
    data = jnp.asarray(data)  # a NumPy array cannot be indexed inside the scan
    batches = epoch_batches(key, state.step, len(data), batch_size)
    _check_begins(state.step, len(batches))
    if axis_name is not None:
        num_devices = jax.lax.axis_size(axis_name)
        if batch_size % num_devices:
            raise ValueError(
                f"batch_size is {batch_size}, expected a multiple of {num_devices}, "
                f"the size of the axis {axis_name!r}"
            )
        shares = batches.reshape(len(batches), num_devices, -1)
        batches = shares[:, jax.lax.axis_index(axis_name)]
    state, infos = scan_updates(
        algorithm,
        key,
        state,
        batches,
        indices=batches,
        load=lambda indices: data[indices],
        transform=transform,
        axis_name=axis_name,
    )
    return state, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), infos)


def _check_begins(step: jax.Array, num_steps: int) -> None:
    """Refuses to go over an epoch's order again from its beginning."""
    if isinstance(step, jax.core.Tracer):
        return
    done = np.asarray(step) % num_steps
    if np.any(done):
        raise ValueError(
            f"the state is at step {step}, in the middle of an epoch of {num_steps}: "
            "aevb.epoch starts at a multiple of it. Finish this epoch with "
            f"aevb.scan_updates on aevb.epoch_batches(...)[{int(np.max(done))}:]"
        )


def epoch_batches(
    key: jax.Array, step: jax.Array | int, num_datapoints: int, batch_size: int
) -> jax.Array:
    """The order of an epoch: which datapoints each of its updates has.

    Args:
      key: the run's key.
      step: of the run, any one within the epoch.
      num_datapoints: N, static.
      batch_size: M, static, at most N.

    Returns:
      `[N // M, M]` int32 indices, no two alike.

    Raises:
      ValueError: `batch_size` is not between 1 and N.

    >>> print(epoch_batches(jax.random.key(0), 0, 7, 2).shape)
    (3, 2)
    """
    if not 1 <= batch_size <= num_datapoints:
        raise ValueError(
            f"batch_size is {batch_size}, expected between 1 and the number of "
            f"datapoints, {num_datapoints}"
        )
    num_steps = num_datapoints // check_count("batch_size", batch_size)
    order_key = jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF))
    order_key = jax.random.fold_in(order_key, step // num_steps)
    order = jax.random.permutation(order_key, num_datapoints)
    return order[: num_steps * batch_size].reshape(num_steps, batch_size)


def scan_updates(
    algorithm: Algorithm,
    key: jax.Array,
    state: State,
    batches: PyTree,
    *,
    indices: jax.Array | None = None,
    load: Callable[[Any], jax.Array] | None = None,
    transform: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[State, Info]:
    """Some updates of an epoch as one `lax.scan`: what `epoch` is made of.

    For data that do not fit on a device: `epoch_batches` says which datapoints are
    next, the host reads them, and a few updates at a time give the bits of `epoch`.

    Args:
      algorithm: what makes an update.
      key: the run's key.
      state: where the run is.
      batches: `[S, M, ...]` the minibatches of the next S updates; with an `axis_name`
        this device's share of each.
      indices: `[S, M]` int32, which datapoints of the data set they are, for an
        algorithm that keeps something of each; with an `axis_name` this device's.
      load: `load(batch) -> [M, ...]`, where `batches` only says which (`[S, M]`
        indices, say).
      transform: as in `epoch`.
      axis_name: as in `epoch`.

    Returns:
      The state after S updates, and their `Info`, its leaves with a leading axis `[S]`.

    >>> objective = lambda w, key, batch: (-jnp.mean((w - batch) ** 2), None)
    >>> algorithm = gradient_algorithm(objective, optax.sgd(0.5))
    >>> data, key = jnp.arange(6.0), jax.random.key(0)
    >>> order = epoch_batches(key, 0, len(data), batch_size=2)
    >>> state = algorithm.init(jnp.zeros(()))
    >>> for blocks in (order[:2], order[2:]):  # as the host reads them
    ...     state, info = scan_updates(algorithm, key, state, data[blocks])
    >>> print(state.step, info.objective.shape)
    3 (1,)
    """
    leaf = jax.tree.leaves(batches)[0]

    def step_keys(step: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        update_key, data_key = jax.random.split(jax.random.fold_in(key, step))
        if transform is None:
            return update_key, None
        places = global_indices(leaf.shape[1], axis_name)
        return update_key, jax.vmap(jax.random.fold_in, (None, 0))(data_key, places)

    # Of all steps at once: hashing a few keys takes a step as long as a small layer.
    keys = jax.vmap(step_keys)(state.step + jnp.arange(leaf.shape[0]))

    def step(state: State, inputs: tuple) -> tuple[State, Info]:
        batch, indices, (update_key, data_keys) = inputs
        if load is not None:
            batch = load(batch)
        if transform is not None:
            batch = jax.vmap(transform)(data_keys, batch)
        return algorithm.update(update_key, state, batch, indices=indices)

    return jax.lax.scan(step, state, (batches, indices, keys))


def fit(
    algorithm: Algorithm,
    key: jax.Array,
    params: PyTree,
    data: jax.Array,
    *,
    num_epochs: int,
    batch_size: int,
    transform: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    evaluate: Callable[[jax.Array, PyTree], PyTree] | None = None,
    axis_name: str | None = None,
) -> tuple[State, Info | tuple[Info, PyTree]]:
    """A whole training run as one traceable function: epochs and steps are scans.

    It equals `num_epochs` calls of `epoch` with the same key, bit for bit. Under
    `jax.vmap` each lane is a run of its own.

    Args:
      algorithm: what makes an update; built inside the trace, its step size may be
        traced.
      key: the run's key. Draw `params` from another one.
      params: the initial parameters.
      data: `[N, ...]` the training set.
      num_epochs: static.
      batch_size: M, static.
      transform: as in `epoch`.
      evaluate: `evaluate(key, params) -> metrics`, called after every epoch with the
        *same* key each time: common random numbers make a smoother curve. Its key is
        `fold_in(fold_in(key, -1), -1)`, which no step or order uses.
      axis_name: as in `epoch`.

    Returns:
      The final state and the `Info` of every epoch, its leaves with a leading axis
      `[num_epochs]`; with `evaluate`, the pair (`Info`, metrics), both so.

    >>> objective = lambda w, key, batch: (-jnp.mean((w - batch) ** 2), None)
    >>> algorithm = gradient_algorithm(objective, optax.sgd(0.5))
    >>> state, info = fit(algorithm, jax.random.key(0), jnp.zeros(()), jnp.arange(6.0),
    ...                   num_epochs=4, batch_size=6)
    >>> print(state.params, info.objective.shape)
    2.5 (4,)
    """
    num_epochs = check_count("num_epochs", num_epochs)
    last = jnp.uint32(0xFFFFFFFF)
    evaluation_key = jax.random.fold_in(jax.random.fold_in(key, last), last)

    def one_epoch(state: State, _: None) -> tuple[State, PyTree]:
        state, info = epoch(
            algorithm,
            key,
            state,
            data,
            batch_size=batch_size,
            transform=transform,
            axis_name=axis_name,
        )
        if evaluate is None:
            return state, info
        return state, (info, evaluate(evaluation_key, state.params))

    return jax.lax.scan(one_epoch, algorithm.init(params), None, length=num_epochs)
