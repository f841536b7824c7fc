"""How the benchmarks time: programs in turn, after a warm-up, and medians.

Machines are shared and noisy: what is compared runs in one process, one call of each
after the other, so that other load hits all of them.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
from jax.stages import Compiled
from ml_collections import ConfigDict

from experiments.program import Program
from experiments.training import epochs
from experiments.training.loop import start

__all__ = ["Epoch", "epoch", "in_turn", "seconds_of"]


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of one call, everything that it returns ready."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def in_turn(
    calls: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, list[float]]:
    """Seconds of every call, `repeats` times each, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(0.05)  # the threads of the last one may still be spinning
            seconds[name].append(seconds_of(call))
    return seconds


class Epoch(NamedTuple):
    """An epoch as `experiments.mnist` trains it.

    Attributes:
      call: trains it, from where the last call ended.
      compiled: its program.
      compile_seconds: that compiling it took.
    """

    call: Callable[[], object]
    compiled: Compiled
    compile_seconds: float


def epoch(config: ConfigDict, program: Program) -> Epoch:
    """The epoch of a configuration, compiled."""
    first = jax.jit(partial(start, config, program))()
    began = time.perf_counter()
    compiled, seed, data = epochs.compiled_epoch(config, program, None, first)
    seconds = time.perf_counter() - began
    last = [first]

    def call() -> object:
        # From where the last call ended: the program is donated its state.
        last[0], info, _ = compiled(seed, last[0], data)
        return info

    return Epoch(call, compiled, seconds)
