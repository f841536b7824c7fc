"""Runs that train as lanes of one compiled program: `aevb.epoch` under `jax.vmap`.

A lane has the keys, the data order and the noise of its single run: the same initial
parameters bit for bit, and from there on the same numbers up to the rounding of batched
matrix products (1e-5 relative after 100 steps). The lane axis is sharded over the
devices of all processes, the data are on each of them, and no device waits for another.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import aevb
from experiments import distributed
from experiments.checkpoints import Checkpoints
from experiments.epochs import all_finite
from experiments.evaluation import BoundEvaluation, bound_evaluator
from experiments.grid import Run, traced
from experiments.interruption import StoppedError, StopRequest
from experiments.program import (
    Hyperparameters,
    Program,
    initial_state,
    run_key,
)

__all__ = ["Lanes", "TrainedLanes", "lane_bytes", "lanes_at_once", "train_lanes"]

# Lanes are timed over so many steps.
_TIMED_STEPS = 10
_OPTIMIZER = "optimizer_args."


class Lanes(NamedTuple):
    """What tells lanes apart, on the host.

    Attributes:
      seeds: `[R]` uint32.
      hyperparameters: leaves `[R]`.
    """

    seeds: Any
    hyperparameters: Hyperparameters

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Lanes":
        """Of runs of one group."""
        values = [traced(run.config) for run in runs]

        def column(name: str) -> Any:
            return np.array([value.get(name, 0.0) for value in values], np.float32)

        names = [name for name in values[0] if name.startswith(_OPTIMIZER)]
        return cls(
            np.array([run.config.seed for run in runs], np.uint32),
            Hyperparameters(
                column("learning_rate"),
                column("weight_prior"),
                {name.removeprefix(_OPTIMIZER): column(name) for name in names},
            ),
        )


class TrainedLanes(NamedTuple):
    """Lanes whose epochs are done; on the host of every process.

    Attributes:
      state: leaves `[R, ...]`.
      lines: of `metrics.jsonl`, one list a lane; it ends where the lane diverged.
      diverged: the epoch in which a lane was not finite any more, 0 where never; `[R]`.
      test: the bound on the test split, leaves `[R, ...]`.
      seconds: in epochs, by all processes' sessions of this chunk.
    """

    state: aevb.State
    lines: list[list[dict[str, Any]]]
    diverged: list[int]
    test: BoundEvaluation
    seconds: float


def start(program: Program, lanes: Lanes) -> aevb.State:
    """The states before the first step, leaves `[R, ...]`; to be traced."""
    return jax.vmap(partial(initial_state, program))(lanes.seeds, lanes.hyperparameters)


def one_epoch(
    program: Program, batch_size: int, lanes: Lanes, state: aevb.State, data: jax.Array
) -> tuple[aevb.State, aevb.Info, jax.Array]:
    """An epoch of every lane, and which of them are finite; to be traced."""

    def one(
        seed: jax.Array, hyperparameters: Hyperparameters, state: aevb.State
    ) -> tuple[aevb.State, aevb.Info, jax.Array]:
        state, info = aevb.epoch(
            program.algorithm(hyperparameters),
            run_key(seed),
            state,
            data,
            batch_size=batch_size,
            transform=program.transform,
        )
        watched = (info.objective, info.grad_norm, state.params)
        return state, info, all_finite(watched)

    return jax.vmap(one)(lanes.seeds, lanes.hyperparameters, state)


def train_lanes(
    runs: Sequence[Run],
    program: Program,
    mesh: Mesh,
    folder: Path,
    stop: StopRequest,
    report: Callable[[int, float, np.ndarray], None],
) -> TrainedLanes:
    """Trains runs of one group side by side, from where they stopped.

    Args:
      runs: R of them.
      program: of the first; the others differ in what is traced.
      mesh: of the axis "lane"; lanes are filled up to a multiple of its size.
      folder: for the checkpoint of the lanes.
      stop: asked after every epoch, in all processes.
      report: `report(epoch, images per second of all lanes, train bounds [R])`.

    Raises:
      StoppedError: a signal came in some process, and the lanes are saved.
    """
    config = runs[0].config
    num_lanes = len(runs)
    padded = [*runs, *[runs[-1]] * (-num_lanes % mesh.size)]
    by_lane = NamedSharding(mesh, PartitionSpec("lane"))
    lanes = _put(Lanes.of(padded), by_lane)
    data = distributed.replicate(program.train, mesh)
    curve = distributed.replicate(getattr(program, config.eval.curve), mesh)
    # Rows of all lanes of a device at once, as of one run.
    rows = max(1, 1000 * mesh.size // len(padded))
    evaluate = jax.jit(
        jax.vmap(bound_evaluator(program, batch_size=rows), in_axes=(0, None))
    )

    checkpoints = Checkpoints(folder, keep=1)
    like = jax.eval_shape(partial(start, program), lanes)
    restored = distributed.on_writer(lambda: checkpoints.restore(like))
    lines: list[list[dict[str, Any]]] = [[] for _ in padded]
    diverged, seconds, epoch = [0] * len(padded), 0.0, 0
    if restored is None:
        state = jax.jit(partial(start, program), out_shardings=by_lane)(lanes)
    else:
        state, record = _put(restored.state, by_lane), restored.record
        lines, diverged = record["lines"], record["diverged"]
        seconds, epoch = record["seconds"], record["epoch"]

    def save() -> None:
        host = _to_host(state)
        record = {"lines": lines, "diverged": diverged, "seconds": seconds}
        record |= {"epoch": epoch}
        distributed.on_writer(
            lambda: checkpoints.save(epoch * program.steps_per_epoch, host, record)
        )

    step = jax.jit(
        partial(one_epoch, program, config.batch_size),
        donate_argnums=1,
        out_shardings=(by_lane, by_lane, by_lane),
    )
    samples_per_epoch = program.steps_per_epoch * config.batch_size
    saved = epoch
    with closing(checkpoints):
        compiled = step.lower(lanes, state, data).compile()
        while epoch < program.num_epochs:
            if distributed.any_process(stop.requested):
                if saved != epoch:
                    save()
                raise StoppedError
            began = time.perf_counter()
            state, info, finite = jax.block_until_ready(compiled(lanes, state, data))
            elapsed = time.perf_counter() - began
            seconds, epoch = seconds + elapsed, epoch + 1
            last = epoch == program.num_epochs
            found = None
            if last or epoch % config.eval.every == 0:
                found = _to_host(evaluate(state.params, curve))
            info, finite = _to_host((info, finite))
            for i, own in enumerate(lines):
                if not finite[i] and not diverged[i]:
                    diverged[i] = epoch
                if diverged[i]:
                    continue
                own.append(
                    _line(config, i, epoch, program.steps_per_epoch, info, found)
                )
            report(epoch, num_lanes * samples_per_epoch / elapsed, info.aux["bound"])
            if last or epoch % config.checkpoint.every == 0:
                save()
                saved = epoch
    test = _to_host(evaluate(state.params, distributed.replicate(program.test, mesh)))
    host = _to_host(state)

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:num_lanes], tree)

    return TrainedLanes(
        first(host), lines[:num_lanes], diverged[:num_lanes], first(test), seconds
    )


def _line(
    config: Any, lane: int, epoch: int, steps_per_epoch: int, info: Any, found: Any
) -> dict[str, Any]:
    """The line that the single run writes after an epoch."""
    line = {
        "step": epoch * steps_per_epoch,
        "epoch": epoch,
        "samples": epoch * steps_per_epoch * config.batch_size,
        "train/objective": float(info.objective[lane]),
        **{f"train/{name}": float(value[lane]) for name, value in info.aux.items()},
    }
    if found is not None:
        for name in ("bound", "reconstruction", "kl", "active_units"):
            value = float(getattr(found, name)[lane])
            line[f"{config.eval.curve}/{name}"] = value
    return line


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, the same in every process, with each device's share on it."""

    def put(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

    return jax.tree.map(put, tree)


def _to_host(tree: Any) -> Any:
    """All of sharded arrays, as NumPy arrays, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def lane_bytes(runs: Sequence[Run], program: Program) -> int:
    """The memory that one lane takes beside the data, as the compiler counts it."""
    lanes = Lanes.of(runs[:1])
    state = jax.eval_shape(partial(start, program), lanes)
    step = jax.jit(partial(one_epoch, program, runs[0].config.batch_size))
    compiled = step.lower(lanes, state, program.train).compile()
    memory: Any = compiled.memory_analysis()
    return int(
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        + memory.argument_size_in_bytes
        - program.train.nbytes
    )


def lanes_at_once(runs: Sequence[Run], program: Program, mesh: Mesh) -> int:
    """How many lanes to train side by side: what fits, and on a CPU what is fastest.

    A wide `vmap` leaves a CPU's cache: widths of 1, 2, 4, ... lanes a device are timed
    over a few steps, until one is slower a lane than the best.

    Returns:
      A multiple of the mesh's size.
    """
    num_devices = mesh.size
    most = -(-len(runs) // num_devices)
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    if device.platform == "cpu":
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free = pages // 2 // len(mesh.local_devices)
    if free:
        room = int(0.8 * free) - program.train.nbytes
        most = max(1, min(most, room // lane_bytes(runs, program)))
    if device.platform != "cpu":
        return most * num_devices
    batch_size = runs[0].config.batch_size
    slice_size = min(len(program.train), _TIMED_STEPS * batch_size)
    data = distributed.replicate(program.train[:slice_size], mesh)
    by_lane = NamedSharding(mesh, PartitionSpec("lane"))
    best, best_speed, width = 1, 0.0, 1
    while width <= most:
        chosen = [runs[i % len(runs)] for i in range(width * num_devices)]
        lanes = _put(Lanes.of(chosen), by_lane)
        state = jax.jit(partial(start, program), out_shardings=by_lane)(lanes)
        jitted = jax.jit(partial(one_epoch, program, batch_size))
        step = jitted.lower(lanes, state, data).compile()
        times = []
        for _ in range(4):
            began = time.perf_counter()
            jax.block_until_ready(step(lanes, state, data))
            times.append(time.perf_counter() - began)
        speed = width / float(np.median(times[1:]))
        if speed < best_speed:
            break
        # A wider program must earn its memory.
        if speed > 1.02 * best_speed:
            best, best_speed = width, speed
        width *= 2
    return best * num_devices
