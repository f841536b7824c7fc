"""The step sizes of a panel are tried, and the trial that is chosen is the run."""

import pytest
from configurations import small

from experiments.processes.interruption import StopRequest
from experiments.program import remembering_loader
from experiments.reproduction import training
from experiments.reproduction.protocol import Panel
from experiments.sweeps import lanes

pytestmark = pytest.mark.usefixtures("cache")


def panel(**changes: object) -> Panel:
    config = small(
        **{
            "algorithm": "aevb",
            "data.num_train": 100,
            "data.binarization": "grey",
            "batch_size": 50,
            "optimizer": "adagrad",
            "schedule": "constant",
            "warmup": 0.0,
            "epochs": 0,
            "train_samples": 600,
            "eval.num_samples": 0,
            "output_bias_from_data": False,
            **changes,
        }
    )
    return Panel("tiny", "2", "tiny", config, ("aevb",), step_sizes=(0.01, 0.02))


def test_the_run_begins_with_the_trial_of_its_step_size(tmp_path, monkeypatch):
    monkeypatch.setattr(Panel, "trial_samples", 200)
    steps, own = [], lanes.Trainer.epoch

    def epoch(trainer, lanes, state):
        steps.append(int(state.step[0]))
        return own(trainer, lanes, state)

    monkeypatch.setattr(lanes.Trainer, "epoch", epoch)
    load = remembering_loader()
    training.train_panel(panel(), tmp_path, StopRequest(), load)
    # Two epochs of two steps with either step size, and the other four epochs.
    assert steps == [0, 2, 0, 2, 4, 6, 8, 10]
    [curve] = training.find_curves(panel(), tmp_path)
    assert [line["epoch"] for line in curve.lines] == [1, 2, 3, 4, 5, 6]

    # Runs that are there are not trained again where a curve has other points.
    steps.clear()
    seldom = panel(**{"eval.every": 3})
    training.train_panel(seldom, tmp_path, StopRequest(), load)
    assert not steps
    [other] = training.find_curves(seldom, tmp_path)
    assert other.lines == curve.lines
