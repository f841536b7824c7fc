"""Runs that begin where shorter ones of the same configuration ended.

A trial of some step sizes is the beginning of the run with the one that is chosen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.errors import CheckpointError
from experiments.storage.checkpoints import Checkpoints, Restored
from experiments.storage.manifest import make_manifest
from experiments.storage.workdir import continues
from experiments.sweeps.grid import Run

__all__ = ["read_begun", "with_beginnings"]


def with_beginnings(runs: Sequence[Run], folders: Sequence[Path]) -> list[Run]:
    """Runs with what is their first part, to the bit, among finished ones.

    The longer one's curve then has a point where the shorter one ended.

    Args:
      runs: what is asked for.
      folders: the workdirs of finished runs; some may be missing.
    """
    manifest = make_manifest()
    there = [folder for folder in folders if (folder / "config.json").exists()]

    def begun(run: Run) -> Path | None:
        same = (one for one in there if continues(run.config, one, manifest))
        return next(same, None)

    return [run._replace(begun=begun(run)) for run in runs]


def read_begun(runs: Sequence[Run], like: Any, num_epochs: int) -> Restored | None:
    """Lanes after what is done of them, where they can go on from there.

    Args:
      runs: one a lane.
      like: the state of the lanes, leaves `[R, ...]`.
      num_epochs: of the runs.

    Returns:
      The state, and what `experiments.sweeps.lanes` keeps beside it. None where a lane
      has no beginning, a damaged one, or one that is beyond its end or beyond a
      checkpoint that it is to keep.
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
    step, lines = found[0].step, [one.record["lines"] for one in found]
    epoch = lines[0][-1]["epoch"]
    ahead = epoch <= num_epochs and all(
        epoch < at for at in runs[0].config.checkpoint.at
    )
    if any(one.step != step for one in found) or not ahead:
        return None
    record = {
        "lines": lines,
        "diverged": [0 for _ in runs],
        "seconds": sum(one.record["seconds"] for one in found),
        "epoch": epoch,
    }
    states = [one.state for one in found]
    return Restored(step, jax.tree.map(lambda *leaf: np.stack(leaf), *states), record)
