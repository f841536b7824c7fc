"""Training's inner loop: on one device or several, of data in memory or on disk.

`resident` keeps the data on every device and makes an epoch one program; `streamed`
reads the batches ahead of the updates, for data that do not fit. Both make the updates
of `aevb.epoch`, with its keys and its order, so they give the same parameters.

On several devices (a mesh of the axis "data", of all processes) each minibatch is
split, datapoints keep the keys of their place in the whole of it, and a step has one
all-reduce: the result depends on the number of devices only through the order of sums.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled
from ml_collections import ConfigDict

import aevb
from experiments.data import read_rows
from experiments.keys import run_key
from experiments.processes import distributed
from experiments.program import Program, hyperparameters

__all__ = [
    "Advance",
    "Block",
    "Reported",
    "all_finite",
    "compiled_epoch",
    "reported",
    "resident",
    "streamed",
]

AXIS = "data"
# Of a block of batches that is read ahead.
_BLOCK_BYTES = 2**26


class Reported(NamedTuple):
    """What a run reports of its updates: `aevb.Info` without the gradient's norm.

    A norm that nothing asks for is not computed: it is one more pass over all of the
    gradient, 6 % of a step of 784-500-20 on two cores.

    Attributes:
      objective: `[]` as in `aevb.Info`.
      aux: as in `aevb.Info`.
    """

    objective: jax.Array
    aux: Any


class Block(NamedTuple):
    """Some updates, one after another.

    Attributes:
      state: after them.
      info: the mean over them of what is reported.
      finite: whether every number is; `[]` bool.
      num_steps: how many.
    """

    state: aevb.State
    info: Reported
    finite: jax.Array
    num_steps: int


Advance = Callable[[aevb.State], Block]
"""The next updates of a run; the state is donated."""


def all_finite(tree: Any) -> jax.Array:
    """Whether every number of every leaf is finite. `[]` bool"""
    return jnp.all(
        jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)])
    )


def reported(state: aevb.State, info: aevb.Info) -> tuple[Reported, jax.Array]:
    """What is reported of updates, and whether it and the parameters are finite."""
    return (
        Reported(info.objective, info.aux),
        all_finite((info.objective, state.params)),
    )


def resident(
    config: ConfigDict, program: Program, mesh: Mesh | None, state: aevb.State
) -> Advance:
    """Whole epochs, of data that lie on every device; compiled when this returns.

    Args:
      config: of the run.
      program: of the run.
      mesh: of the axis "data"; None is one device.
      state: like those to come.
    """
    compiled, seed, data = compiled_epoch(config, program, mesh, state)

    def advance(state: aevb.State) -> Block:
        state, info, finite = compiled(seed, state, data)
        return Block(state, info, finite, program.steps_per_epoch)

    return advance


def compiled_epoch(
    config: ConfigDict, program: Program, mesh: Mesh | None, state: aevb.State
) -> tuple[Compiled, jax.Array, jax.Array]:
    """The program of an epoch, and its first and last argument.

    Args:
      config: of the run.
      program: of the run.
      mesh: of the axis "data"; None is one device.
      state: like those to come.

    Returns:
      `compiled(seed, state, data) -> (state, info, finite)`, which is donated the
      state; the seed; the data.
    """

    def one_epoch(seed: jax.Array, state: aevb.State, data: jax.Array) -> tuple:
        state, info = aevb.epoch(
            _algorithm(config, program, mesh),
            run_key(seed),
            state,
            data,
            batch_size=config.batch_size,
            transform=program.transform,
            axis_name=_axis(mesh),
        )
        return state, *reported(state, info)

    if mesh is not None:
        one_epoch = jax.shard_map(
            one_epoch, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec()
        )
    seed, data = _place((np.uint32(config.seed), program.train), mesh)
    jitted = jax.jit(one_epoch, donate_argnums=1)
    return jitted.lower(seed, state, data).compile(), seed, data


def streamed(
    config: ConfigDict, program: Program, mesh: Mesh | None, state: aevb.State
) -> Advance:
    """A block of updates at a time, the next one read while this one is trained on.

    What is read follows from the state's step alone. Each process reads the rows of its
    own devices. A block never reaches into the next epoch.

    Args:
      config: of the run.
      program: of the run; `program.train` may lie on the disk (`numpy.memmap`).
      mesh: of the axis "data"; None is one device.
      state: like those to come; `state.step` is where reading starts.
    """
    axis = _axis(mesh)

    def block(
        seed: jax.Array, state: aevb.State, batches: jax.Array, indices: jax.Array
    ) -> tuple:
        state, infos = aevb.scan_updates(
            _algorithm(config, program, mesh),
            run_key(seed),
            state,
            batches,
            indices=indices,
            transform=program.transform,
            axis_name=axis,
        )
        info = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), infos)
        return state, *reported(state, info)

    images, batch_size = program.train, config.batch_size
    num_datapoints, data_dim = images.shape
    num_steps = max(1, _BLOCK_BYTES // (batch_size * data_dim))

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        step = epoch * program.steps_per_epoch
        return np.asarray(
            jax.jit(aevb.epoch_batches, static_argnums=(2, 3))(
                run_key(config.seed), step, num_datapoints, batch_size
            )
        )

    def read(step: int) -> tuple[jax.Array, jax.Array]:
        epoch, first = divmod(step, program.steps_per_epoch)
        chosen = order(epoch)[first : first + num_steps]

        def rows(place: Any) -> np.ndarray:
            return read_rows(images, chosen[place[:2]])

        if mesh is None:
            return jnp.asarray(rows((slice(None), slice(None)))), jnp.asarray(chosen)
        share = NamedSharding(mesh, PartitionSpec(None, AXIS))
        return (
            jax.make_array_from_callback((*chosen.shape, data_dim), share, rows),
            jax.make_array_from_callback(chosen.shape, share, lambda at: chosen[at]),
        )

    if mesh is not None:
        block = jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(*[PartitionSpec()] * 2, *[PartitionSpec(None, AXIS)] * 2),
            out_specs=PartitionSpec(),
        )
    seed = _place(np.uint32(config.seed), mesh)
    jitted = jax.jit(block, donate_argnums=1)
    reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
    ahead: dict[int, Future] = {}
    last_step = program.num_epochs * program.steps_per_epoch

    def advance(state: aevb.State) -> Block:
        step = int(state.step)
        future = ahead.pop(step, None)
        batches, indices = read(step) if future is None else future.result()
        next_step = step + len(batches)
        if next_step < last_step:
            ahead[next_step] = reader.submit(read, next_step)
        state, info, finite = jitted(seed, state, batches, indices)
        return Block(state, info, finite, len(batches))

    return advance


def _algorithm(
    config: ConfigDict, program: Program, mesh: Mesh | None
) -> aevb.Algorithm:
    return program.algorithm(hyperparameters(config), axis_name=_axis(mesh))


def _axis(mesh: Mesh | None) -> str | None:
    return None if mesh is None else AXIS


def _place(tree: Any, mesh: Mesh | None) -> Any:
    return jax.device_put(tree) if mesh is None else distributed.replicate(tree, mesh)
