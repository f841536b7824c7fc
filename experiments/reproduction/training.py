"""Trains the runs of a panel: the step size from a short trial, then the sweep.

The trial with the step size that is chosen is the run's beginning. Everything is a
sweep (`experiments.sweeps`), which resumes by itself. Runs that are all there are read
and not trained again, also where newer code looks at them: a night's work does not go
with an edit. What is read of them is on the disk alone, so that a page can be made of
whatever is there.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from experiments.config import base
from experiments.data import Dataset
from experiments.errors import DivergenceError
from experiments.processes.interruption import StopRequest
from experiments.reproduction.protocol import LABELS, Panel
from experiments.storage.atomic import read_json
from experiments.storage.parts import read_part
from experiments.storage.workdir import same_work
from experiments.sweeps import grid
from experiments.sweeps.begun import with_beginnings
from experiments.sweeps.runner import Sweep, train

__all__ = [
    "Curve",
    "StepSizes",
    "find_curves",
    "find_step_sizes",
    "train_panel",
    "trials_of",
]

Load = Callable[[ConfigDict], Dataset]


class StepSizes(NamedTuple):
    """What a short trial of each step size found, for one method.

    Where there is one step size, it is chosen without a trial.

    Attributes:
      chosen: the step size with the highest score.
      scores: `{step size: score}`: the mean over the trial's last epoch of the bound on
        the training data (of MCEM: of its objective); None where it diverged.
      samples: training samples of a trial.
    """

    chosen: float
    scores: dict[float, float | None]
    samples: int


class Curve(NamedTuple):
    """A finished run of a panel.

    Attributes:
      method: one of `protocol.LABELS`.
      seed: of the run.
      step_size: the chosen one.
      samples: its length, in training samples evaluated.
      status: "done", or where it diverged.
      folder: its workdir.
      lines: of its `metrics.jsonl`.
      seconds: in its epochs.
    """

    method: str
    seed: int
    step_size: float
    samples: int
    status: str
    folder: Path
    lines: list[dict[str, Any]]
    seconds: float

    def points(self, name: str) -> list[tuple[float, float]]:
        """`(samples, value)` of each line that has this value."""
        return [
            (float(line["samples"]), float(line[name]))
            for line in self.lines
            if name in line
        ]


def train_panel(panel: Panel, workdir: Path, stop: StopRequest, load: Load) -> None:
    """Chooses the step sizes of a panel and trains its runs; both continue.

    Each method is a sweep of its own.

    Args:
      panel: what is run.
      workdir: of the whole.
      stop: asked after every epoch.
      load: `program.remembering_loader()`.

    Raises:
      StoppedError: a signal came; what is done is saved.
      DivergenceError: no step size of a method stays finite.
    """
    for method in panel.methods:
        trials = _trials(panel, method)
        if len(trials) > 1:
            _train(trials, _trial_folder(panel, method, workdir), stop, load)
        found = find_step_sizes(panel, workdir)[method]
        if found.chosen not in found.scores:
            raise DivergenceError(
                f"{LABELS[method]} on {panel.title} diverged with every step size of "
                f"{', '.join(map(str, panel.step_sizes))}"
            )
        fields = [_fields(panel, method, found.chosen, seed) for seed in panel.seeds]
        tried = [
            _trial_folder(panel, method, workdir) / "runs" / trial.name
            for trial in trials
        ]
        runs = grid.expand(panel.config, fields)
        _train(runs, workdir / "panels" / panel.name / method, stop, load, tried)


def trials_of(panel: Panel) -> list[tuple[str, str]]:
    """The trials that a panel makes, or finds where another panel made them."""
    return [((panel.trial or panel).name, method) for method in panel.methods]


def find_step_sizes(panel: Panel, workdir: Path) -> dict[str, StepSizes]:
    """What the trials of a panel found, `{method: StepSizes}`, of those that are done.

    Where all step sizes of a method diverged, `chosen` is NaN.
    """
    found = {}
    for method in panel.methods:
        runs = _trials(panel, method)
        if len(runs) == 1:  # nothing to choose
            [size] = panel.step_sizes
            found[method] = StepSizes(size, {size: None}, 0)
            continue
        folder = _trial_folder(panel, method, workdir)
        if not _is_there(runs, folder):
            continue
        rows = _rows(folder)
        scores: dict[float, float | None] = {}
        for run in runs:
            score = None
            if rows[run.name]["status"] == "done":
                last = _lines(folder / "runs" / run.name)[-1]
                score = last.get("train/bound", last["train/objective"])
            scores[run.config.learning_rate] = score
        finite = {size: score for size, score in scores.items() if score is not None}
        best = max(finite, key=finite.__getitem__, default=float("nan"))
        found[method] = StepSizes(best, scores, runs[0].config.train_samples)
    return found


def find_curves(panel: Panel, workdir: Path) -> list[Curve]:
    """The finished runs of a panel, those that are there."""
    found = []
    for method in panel.methods:
        folder = workdir / "panels" / panel.name / method
        for name, row in _rows(folder).items():
            own = folder / "runs" / name
            config = read_json(own / "config.json")
            found.append(
                Curve(
                    config["algorithm"],
                    config["seed"],
                    config["learning_rate"],
                    config["train_samples"],
                    row["status"],
                    own,
                    _lines(own),
                    float(row["seconds"]),
                )
            )
    order = list(LABELS)
    return sorted(found, key=lambda curve: (order.index(curve.method), curve.seed))


def _trials(panel: Panel, method: str) -> list[grid.Run]:
    """Every step size of a method on the first training iterations."""
    panel = panel.trial or panel
    overrides: list[dict[str, Any]] = []
    for step_size in panel.step_sizes:
        fields = _fields(panel, method, step_size, seed=0)
        # An algorithm of whole data sets has few updates: at least four of them.
        least = min(panel.config.train_samples, 4 * fields.get("batch_size", 0))
        samples = max(panel.trial_samples, least)
        overrides.append(fields | {"train_samples": samples})
    config = panel.config.copy_and_resolve_references()
    config.checkpoint.every = 1_000_000
    config.checkpoint.at = ()
    return grid.expand(config, overrides)


def _trial_folder(panel: Panel, method: str, workdir: Path) -> Path:
    return workdir / "step_sizes" / (panel.trial or panel).name / method


def _fields(panel: Panel, method: str, step_size: float, seed: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "algorithm": method,
        "learning_rate": step_size,
        "seed": seed,
    }
    if method == "wake_sleep" and panel.config.likelihood == "bernoulli":
        fields["dream_clip"] = panel.dream_clip
    if method == "mcem":  # not online: an iteration has the whole training set
        fields["batch_size"] = panel.config.data.num_train
    return fields


def _train(
    runs: Sequence[grid.Run],
    folder: Path,
    stop: StopRequest,
    load: Load,
    tried: Sequence[Path] = (),
) -> None:
    """Trains runs, from their beginnings among those of the trial."""
    if _is_there(runs, folder):
        return
    runs = with_beginnings(runs, tried)
    # Side by side lanes are no faster on a CPU (benchmarks.sweep_speed).
    num_lanes = 1 if jax.default_backend() == "cpu" else 0
    fields = list(dict.fromkeys(name for run in runs for name in run.overrides))
    folder.mkdir(parents=True, exist_ok=True)
    train(Sweep(runs, fields, num_lanes, 0, str(folder)), folder, stop, load)


def _is_there(runs: Sequence[grid.Run], folder: Path) -> bool:
    """Whether a folder has all of these runs, finished."""
    rows = _rows(folder)
    for run in runs:
        path = folder / "runs" / run.name / "config.json"
        if run.name not in rows or not path.exists():
            return False
        # A field that is younger than the run had its default.
        stored = same_work(base().to_dict()) | same_work(read_json(path))
        asked = same_work(run.config.to_dict())
        # How often it was looked at, in code that had another interval.
        if stored | {"eval.every": None} != asked | {"eval.every": None}:
            return False
    return True


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    """`{run: row}` of a sweep's finished runs, by whichever version of the code."""
    path = folder / "rows.jsonl"
    if not path.exists():
        return {}
    parts = map(read_part, path.read_bytes().split(b"\n"))
    rows = [part.value for part in parts if part and isinstance(part.value, dict)]
    return {row["run"]: row for row in rows}


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
