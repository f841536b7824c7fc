"""A run that is opened again for reading, from its workdir."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.errors import WorkdirError
from experiments.program import Program, build, load_dataset
from experiments.storage.atomic import read_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.workdir import read_config
from experiments.training.loop import best_step, start

__all__ = ["Opened", "load_run"]


class Opened(NamedTuple):
    """A run that was opened from its workdir, finished or not.

    Attributes:
      config: its configuration.
      dataset: its data, by their sha256.
      program: its functions.
      params: the parameters of a checkpoint.
      step: the step of that checkpoint.
    """

    config: ConfigDict
    dataset: Dataset
    program: Program
    params: Any
    step: int


def load_run(
    workdir: Path, *, step: int | str | None = None, data_path: str = ""
) -> Opened:
    """Opens a finished or interrupted run for reading; changes nothing in it.

    Args:
      workdir: of `run`; it may have been moved.
      step: of the checkpoint: None is the last usable one, "best" the best bound on the
        validation split among those kept.
      data_path: where the data lie now, if they have moved; "" is where they were.

    Raises:
      WorkdirError: it holds no run, or the data are not those of the run.
      DataError: the data cannot be read.
      CheckpointError: there is no usable checkpoint, or not the one that was asked for.
    """
    _check_is_run(workdir)
    config = read_config(workdir, data_path=data_path)
    dataset = load_dataset(config)
    expected = read_json(workdir / "run.json").get("data_sha256")
    if dataset.sha256 != expected:
        raise WorkdirError(
            f"{dataset.source} has sha256 {dataset.sha256}, but {workdir} was trained "
            f"on {expected}: put those data back, or say with "
            "--data-path where they are"
        )
    program = build(config, dataset)
    checkpoints = Checkpoints(workdir)
    like = jax.eval_shape(partial(start, config, program))
    found = checkpoints.read(like, step if isinstance(step, int) else None)
    if step == "best":
        kept = set(checkpoints.steps())
        lines = [line for line in found.record["lines"] if line["step"] in kept]
        best = best_step(config, lines, program.num_epochs)
        if best is not None:
            found = checkpoints.read(like, best)
    return Opened(config, dataset, program, found.state.params, found.step)


def _check_is_run(workdir: Path) -> None:
    if (workdir / "sweep.json").exists():
        names = sorted(path.name for path in (workdir / "runs").glob("*"))
        shown = ", ".join(names[:3]) + (", ..." if names[3:] else "")
        raise WorkdirError(
            f"{workdir} is a sweep of {len(names)} finished runs, expected one run: "
            f"give {workdir / 'runs'}/NAME, with one of {shown or '(none yet)'}"
        )
    if not (workdir / "config.json").exists():
        raise WorkdirError(
            f"{workdir} holds no run, expected a folder with a config.json: give the "
            "--workdir of python -m experiments.mnist"
        )
