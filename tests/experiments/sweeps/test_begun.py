"""A run that begins where a shorter one ended is the run from the first step."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from configurations import small
from ml_collections import ConfigDict

from experiments.processes.interruption import StopRequest
from experiments.program import build, load_dataset
from experiments.storage.checkpoints import Checkpoints
from experiments.sweeps import grid, lanes
from experiments.sweeps.begun import read_begun, with_beginnings
from experiments.sweeps.runner import Sweep, train

pytestmark = [
    pytest.mark.usefixtures("cache"),
    # optax.adam raises a float to an integer power.
    pytest.mark.usefixtures("standard_promotion"),
]

# Of any length.
SCHEDULE = {
    "schedule": "constant",
    "warmup": 0.0,
    "eval.num_samples": 0,
    "eval.every": 1,
}


def runs(*seeds: int, **changes: object) -> list[grid.Run]:
    config = small(**{**SCHEDULE, **changes})
    return grid.expand(config, [{"seed": seed} for seed in seeds])


def trained(workdir: Path, asked: list[grid.Run]) -> Path:
    train(Sweep(asked, ["seed"], 2, 1, str(workdir)), workdir, StopRequest())
    return workdir / "runs"


def last(folder: Path) -> tuple[list, list]:
    """The leaves of the last state, and the lines up to it."""
    checkpoints = Checkpoints(folder)
    found = checkpoints.verify(checkpoints.steps()[-1])
    return found.state, found.record["lines"]


def is_read(asked: list[grid.Run]) -> bool:
    """Whether lanes begin at what is done of them."""
    config = asked[0].config
    program = build(config, load_dataset(config))
    like = jax.eval_shape(partial(lanes.start, program), lanes.Lanes.of(asked))
    return read_begun(asked, like, program.num_epochs) is not None


def begins(folder: Path, config: ConfigDict) -> bool:
    """Whether what a folder holds is where a run begins."""
    [run] = with_beginnings([grid.Run("run", {}, config)], [folder])
    return run.begun == folder and is_read([run])


@pytest.fixture
def num_epochs(monkeypatch):
    """How many epochs were trained."""
    counted = []
    own = lanes.Trainer.epoch

    def epoch(*arguments):
        counted.append(1)
        return own(*arguments)

    monkeypatch.setattr(lanes.Trainer, "epoch", epoch)
    return counted


def test_it_is_the_run_from_the_first_step_bit_for_bit(tmp_path, num_epochs):
    whole = trained(tmp_path / "whole", runs(0, 1, epochs=4))
    short = trained(tmp_path / "short", runs(0, 1, epochs=2))
    num_epochs.clear()
    longer = [run._replace(begun=short / run.name) for run in runs(0, 1, epochs=4)]
    assert all(begins(run.begun, run.config) for run in longer)
    grown = trained(tmp_path / "grown", longer)
    assert len(num_epochs) == 2
    for name in ("seed=0", "seed=1"):
        expected, lines = last(whole / name)
        found, own = last(grown / name)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert own == lines
        assert len(own) == 4

    # A beginning that is damaged is not used.
    [path] = (short / "seed=1" / "checkpoints").glob("*.sha256")
    path.write_text("0" * 64 + path.read_text()[64:])
    assert is_read(longer[:1])
    assert not is_read(longer)


def test_only_a_shorter_run_of_the_same_is_a_beginning(tmp_path):
    [run] = runs(0, epochs=2)
    folder = trained(tmp_path, [run]) / run.name
    assert begins(folder, small(**SCHEDULE, epochs=2))
    assert begins(folder, small(**SCHEDULE, epochs=3))
    for changes in (
        {"epochs": 1},
        {"epochs": 3, "seed": 1},
        {"epochs": 3, "learning_rate": 0.5},
        {"epochs": 3, "schedule": "cosine"},
        {"epochs": 3, "warmup": 0.1},
        {"epochs": 3, "checkpoint.at": (2,)},  # which it has not kept
    ):
        assert not begins(folder, small(**{**SCHEDULE, **changes})), changes
    assert begins(folder, small(**SCHEDULE, **{"epochs": 3, "checkpoint.at": (3,)}))
    assert not begins(tmp_path / "nowhere", run.config)

    # Of other code, or on another machine: its bits may be others.
    manifest = json.loads((folder / "run.json").read_text())
    for key in ("code_sha256", "cpu"):
        (folder / "run.json").write_text(json.dumps(manifest | {key: "another"}))
        assert not begins(folder, run.config)
    (folder / "run.json").write_text(json.dumps(manifest))
    assert begins(folder, run.config)
