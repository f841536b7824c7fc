"""How many lanes train side by side: what fits, and what a CPU does fastest."""

import math
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.processes import distributed
from experiments.program import Program
from experiments.sweeps.grid import Run
from experiments.sweeps.lanes import Lanes, by_lane, one_epoch, put, start

__all__ = ["lane_bytes", "lanes_at_once", "lanes_that_fit"]

# Lanes are timed over so many steps.
_TIMED_STEPS = 10


def lane_bytes(runs: Sequence[Run], program: Program) -> int:
    """The memory that one lane takes beside the data, as the compiler counts it."""
    lanes = Lanes.of(runs[:1])
    state = jax.eval_shape(partial(start, program), lanes)
    step = partial(one_epoch, program, runs[0].config.batch_size)
    jitted = jax.jit(step, donate_argnums=1)
    compiled = jitted.lower(lanes, state, program.train).compile()
    memory: Any = compiled.memory_analysis()
    return int(
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        + memory.argument_size_in_bytes
        - memory.alias_size_in_bytes
        - program.train.nbytes
    )


def _host_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def lanes_that_fit(runs: Sequence[Run], program: Program, mesh: Mesh) -> int:
    """How many lanes the memory of each device, and of the host, has room for.

    A quarter of the host's has to hold the weights and moments of all lanes of all
    processes, because process 0 writes them.

    Returns:
      Lanes on each device, at least 1; no more than there are runs for.
    """
    most = -(-len(runs) // mesh.size)
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    if device.platform == "cpu":
        free = _host_bytes() // 2 // len(mesh.local_devices)
    if free and most > 1:
        room = int(0.8 * free) - program.train.nbytes
        most = min(most, room // lane_bytes(runs, program))
    states = jax.eval_shape(partial(start, program), Lanes.of(runs[:1]))
    state_bytes = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states)
    )
    return max(1, min(most, _host_bytes() // 4 // state_bytes // mesh.size))


def lanes_at_once(runs: Sequence[Run], program: Program, mesh: Mesh) -> int:
    """How many lanes to train side by side: what fits, and on a CPU what is fastest.

    A wide `vmap` leaves a CPU's cache: 1, 2, 4, ... lanes a device are timed over a few
    steps, until a lane is clearly slower than the best, or until what could be gained
    is less than what the next try takes.

    Returns:
      A multiple of the mesh's size.
    """
    num_devices = mesh.size
    most = lanes_that_fit(runs, program, mesh)
    if mesh.local_devices[0].platform != "cpu":
        return most * num_devices
    batch_size = runs[0].config.batch_size
    slice_size = min(len(program.train), _TIMED_STEPS * batch_size)
    num_steps = program.num_epochs * program.steps_per_epoch
    one_run = num_steps / (slice_size // batch_size)
    data = distributed.replicate(program.train[:slice_size], mesh)
    sharding = NamedSharding(mesh, PartitionSpec("lane"))
    first = jax.device_get(jax.jit(partial(start, program))(Lanes.of(runs[:1])))
    best, fastest, width = 1, math.inf, 1
    while width <= most:
        began = time.perf_counter()
        chosen = [runs[i % len(runs)] for i in range(width * num_devices)]
        lanes = put(Lanes.of(chosen), sharding)
        state = put(
            jax.tree.map(partial(np.repeat, repeats=len(chosen), axis=0), first),
            sharding,
        )
        step = by_lane(mesh, partial(one_epoch, program, batch_size), shared=1)
        step = step.lower(lanes, state, data).compile()
        times = []
        for _ in range(4):
            now = time.perf_counter()
            jax.block_until_ready(step(lanes, state, data))
            times.append(time.perf_counter() - now)
        seconds = float(np.median(times[1:])) / width
        if seconds > 1.1 * fastest:
            break
        # A wider program must earn its memory.
        if seconds < 0.98 * fastest:
            best, fastest = width, seconds
        if 0.5 * fastest * one_run * most < time.perf_counter() - began:
            break
        width *= 2
    return best * num_devices
