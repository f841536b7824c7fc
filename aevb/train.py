"""Algorithm 1 as pure functions: an update, an epoch, a whole run.

A run is **one traceable function of (key, hyper-parameters)**. Build the optimizer
inside the function that is traced, and step sizes, prior scales and seeds become lanes
of one compiled program:

    def run(key, learning_rate):
        algorithm = aevb.gradient_algorithm(objective, optax.adam(learning_rate))
        return aevb.fit(algorithm, key, params, data, num_epochs=10, batch_size=100)

    runs = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(keys, learning_rates)

Keys: step t of a run uses `fold_in(key, t)`; the order of epoch e comes from
`fold_in(fold_in(key, -1), e)`. Nothing random is stored, so a run that continues from
a saved `State` repeats the run that never stopped.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from aevb.types import Algorithm, Info, Objective, PyTree, State

__all__ = ["epoch", "fit", "gradient_algorithm"]


def gradient_algorithm(
    objective: Objective, optimizer: optax.GradientTransformation
) -> Algorithm:
    """Stochastic gradient ascent on an objective: Algorithm 1 (AEVB).

    Args:
      objective: `objective(params, key, batch) -> (value [], aux)`, to be maximised,
        such as `map_objective(...)`.
      optimizer: any optax optimizer; its step sizes may be traced values.

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

    def update(key: jax.Array, state: State, batch: jax.Array) -> tuple[State, Info]:
        (loss_value, (value, aux)), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, key, batch
        )
        # optax's line searches and plateau schedules ask for these; others ignore them.
        extra = {
            "value": loss_value,
            "grad": grads,
            "value_fn": lambda params: loss(params, key, batch)[0],
        }
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, **extra
        )
        params = optax.apply_updates(state.params, updates)
        info = Info(value, aux, optax.tree.norm(grads))
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
) -> tuple[State, Info]:
    """One pass over the data in a random order: N // M updates as one `lax.scan`.

    The order is a permutation without replacement, anew each epoch; the last
    N mod M datapoints of it are left out of this epoch. Which epoch this is follows
    from `state.step`.

    Args:
      algorithm: what makes an update.
      key: the *run's* key: the same one for every epoch, folded with the step inside.
      state: where the run is.
      data: `[N, ...]` the training set, resident on the device (uint8 is enough).
      batch_size: M, static, at most N.
      transform: `transform(key, x) -> x` for one datapoint, applied inside the step:
        scaling, dynamic binarisation. None leaves x as it is.

    Returns:
      The state after the epoch, and the mean over its updates of their `Info`.

    Raises:
      ValueError: `batch_size` is not between 1 and N.

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
    num_datapoints = len(data)
    if not 1 <= batch_size <= num_datapoints:
        raise ValueError(
            f"batch_size is {batch_size}, expected between 1 and the number of "
            f"datapoints, {num_datapoints}"
        )
    num_steps = num_datapoints // batch_size
    order_key = jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF))
    order_key = jax.random.fold_in(order_key, state.step // num_steps)
    order = jax.random.permutation(order_key, num_datapoints)
    batches = order[: num_steps * batch_size].reshape(num_steps, batch_size)

    def step(state: State, indices: jax.Array) -> tuple[State, Info]:
        update_key, data_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = data[indices]
        if transform is not None:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(
                data_key, jnp.arange(batch_size)
            )
            batch = jax.vmap(transform)(keys, batch)
        return algorithm.update(update_key, state, batch)

    state, infos = jax.lax.scan(step, state, batches)
    return state, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), infos)


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
    last = jnp.uint32(0xFFFFFFFF)
    evaluation_key = jax.random.fold_in(jax.random.fold_in(key, last), last)

    def one_epoch(state: State, _: None) -> tuple[State, PyTree]:
        state, info = epoch(
            algorithm, key, state, data, batch_size=batch_size, transform=transform
        )
        if evaluate is None:
            return state, info
        return state, (info, evaluate(evaluation_key, state.params))

    return jax.lax.scan(one_epoch, algorithm.init(params), None, length=num_epochs)
