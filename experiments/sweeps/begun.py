"""Runs that begin where shorter ones of the same configuration ended.

A trial of some step sizes is the beginning of the run with the one that is chosen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.errors import CheckpointError
from experiments.storage.atomic import read_json
from experiments.storage.checkpoints import Checkpoints, Restored
from experiments.storage.manifest import make_manifest
from experiments.storage.workdir import continues
from experiments.sweeps.grid import Run

__all__ = ["begins", "read_begun"]


def begins(folder: Path, config: ConfigDict) -> bool:
    """Whether a finished run is the first part of one that is asked for, to the bit.

    The longer one's curve then has a point where the shorter one ended.

    Args:
      folder: the workdir of the finished one.
      config: of the one that is asked for.
    """
    if not (folder / "config.json").exists():
        return False
    # What is kept on the way must still be ahead.
    done = read_json(folder / "run.json")["num_epochs"]
    return continues(config, folder, make_manifest()) and all(
        done < epoch for epoch in config.checkpoint.at
    )


def read_begun(runs: Sequence[Run], like: Any) -> Restored | None:
    """Lanes after what is done of them; None where that is not there, or damaged.

    Args:
      runs: one a lane.
      like: the state of the lanes, leaves `[R, ...]`.

    Returns:
      The state, and what `experiments.sweeps.lanes` keeps beside it.
    """
    folders = [run.begun for run in runs if run.begun is not None]
    if len(folders) < len(runs):
        return None
    own = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like
    )
    try:
        found = [Checkpoints(folder).read(own) for folder in folders]
    except CheckpointError:  # nothing is lost: they begin at the first step
        return None
    step = found[0].step
    if any(one.step != step for one in found):
        return None
    lines = [one.record["lines"] for one in found]
    record = {
        "lines": lines,
        "diverged": [0 for _ in runs],
        "seconds": sum(one.record["seconds"] for one in found),
        "epoch": lines[0][-1]["epoch"],
    }
    states = [one.state for one in found]
    return Restored(step, jax.tree.map(lambda *leaf: np.stack(leaf), *states), record)
