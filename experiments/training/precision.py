"""The precision of training's matrix products, where a configuration leaves it open.

`config.precision=auto` times a few updates in float32 and in bfloat16, and takes the
faster. What was found goes into the manifest, and the precision itself into
`config.json`: from there on it is a run like any other, which continues as it began,
on whatever machine.
"""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.program import build
from experiments.storage.atomic import read_json
from experiments.training import epochs
from experiments.training.loop import start

__all__ = ["advice", "before", "describe", "measure", "settle", "with_precision"]

_NUM_STEPS, _NUM_REPEATS = 10, 5


def before(workdir: Path) -> dict[str, Any] | None:
    """What the run in a directory has: its entry in the manifest; None without a run.

    A run that was begun before there was an entry has `{"chosen": ...}` alone.

    Raises:
      WorkdirError: a file of it cannot be read.
    """
    if not all((workdir / name).exists() for name in ("config.json", "run.json")):
        return None
    # Before there was a choice, all was float32.
    chosen = read_json(workdir / "config.json").get("precision", "float32")
    entry = read_json(workdir / "run.json").get("precision")
    return entry if entry else {"chosen": chosen}


def settle(
    config: ConfigDict, dataset: Dataset, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Chooses the precision of a run, where that is left open.

    Args:
      config: validated.
      dataset: its data.
      before: what the run had when it began; None for one that begins now.

    Returns:
      The entry of the manifest: `asked`, `chosen` and, where it was timed,
      `milliseconds_a_step`, of each precision. A run that goes on keeps its own.
    """
    asked = config.precision
    if before is not None:
        return (
            dict(before) if asked in ("auto", before["chosen"]) else {"chosen": asked}
        )
    entry: dict[str, Any] = {"asked": asked, "chosen": asked}
    # Off a CPU bfloat16 has units of its own.
    is_cpu = jax.devices()[0].platform == "cpu"
    if asked == "auto" or (asked == "bfloat16" and is_cpu):
        found = measure(config, dataset)
        entry["milliseconds_a_step"] = found
        if asked == "auto":
            entry["chosen"] = min(found, key=lambda name: found[name])
    return entry


def measure(config: ConfigDict, dataset: Dataset) -> dict[str, float]:
    """Milliseconds of an update in float32 and in bfloat16, on one device.

    The run's own program on its first images, a few updates at a time, in turn; the
    smallest time counts, compilation left out. No key of the run is used up.
    """
    size = config.batch_size
    num_steps = max(1, min(_NUM_STEPS, len(dataset.train.images) // size))
    rows = {"train": num_steps * size, "valid": 1, "test": 1}
    few = dataset._replace(
        **{
            name: split._replace(images=np.asarray(split.images[: rows[name]]))
            for name in rows
            for split in [getattr(dataset, name)]
        }
    )
    calls = {}
    for name in ("float32", "bfloat16"):
        one = with_precision(config, name)
        one.data.stream = "never"
        program = build(one, few)
        state = jax.jit(partial(start, one, program))()
        compiled, seed, data = epochs.compiled_epoch(one, program, None, state)
        calls[name] = partial(_seconds, compiled, seed, jax.device_get(state), data)
        calls[name]()
    rounds = [
        {name: call() for name, call in calls.items()} for _ in range(_NUM_REPEATS)
    ]
    return {
        name: 1e3 * min(found[name] for found in rounds) / num_steps for name in calls
    }


def _seconds(compiled: Any, seed: jax.Array, state: Any, data: jax.Array) -> float:
    own = jax.block_until_ready(jax.device_put(state))  # it is donated
    began = time.perf_counter()
    jax.block_until_ready(compiled(seed, own, data))
    return time.perf_counter() - began


def with_precision(config: ConfigDict, precision: str) -> ConfigDict:
    """A copy of a configuration with a precision."""
    copy = config.copy_and_resolve_references()
    copy.precision = precision
    return copy


def describe(entry: Mapping[str, Any]) -> str:
    """A line that says what `auto` chose and why; "" where nothing was left open."""
    if entry.get("asked") != "auto":
        return ""
    times = ", ".join(
        f"{name} {milliseconds:.2f} ms a step"
        for name, milliseconds in entry["milliseconds_a_step"].items()
    )
    return f"precision auto: {entry['chosen']} ({times})"


def advice(entry: Mapping[str, Any]) -> str:
    """A warning where bfloat16 was asked for and is slower; "" otherwise."""
    times = entry.get("milliseconds_a_step", {})
    if entry.get("asked") != "bfloat16" or not times:
        return ""
    ratio = times["bfloat16"] / times["float32"]
    if ratio <= 1:
        return ""
    return (
        f"config.precision=bfloat16 is {ratio:.1f} times as slow here as float32 "
        f"({times['bfloat16']:.2f} against {times['float32']:.2f} ms a step): set "
        "config.precision=float32, or auto, which takes the faster"
    )
