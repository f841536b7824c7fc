"""config.precision=auto: chosen once, on the record, and kept."""

import json

import pytest
from configurations import small

from experiments.errors import ConfigError, WorkdirError
from experiments.processes.interruption import StopRequest
from experiments.program import build, load_dataset
from experiments.storage.atomic import read_json
from experiments.storage.workdir import held
from experiments.sweeps import grid
from experiments.sweeps.runner import Sweep
from experiments.sweeps.runner import train as train_sweep
from experiments.training import precision, runner

# optax counts its steps in int32.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")

NO_LIKELIHOOD = {"eval.num_samples": 0, "epochs": 2}
FAST = {"float32": 3.0, "bfloat16": 2.0}
SLOW = {"float32": 2.0, "bfloat16": 5.0}


@pytest.fixture
def timing(monkeypatch):
    """Sets what a timing finds; the list grows by one a timing."""
    calls = []

    def become(found):
        def measure(config, dataset):
            calls.append(config.precision)
            return dict(found)

        monkeypatch.setattr(precision, "measure", measure)
        return calls

    return become


def run(workdir, **changes):
    """A run without its report."""
    config = small(**{**NO_LIKELIHOOD, **changes})
    with held(workdir), StopRequest() as stop:
        return runner.run(config, workdir, stop)


@pytest.mark.parametrize(("found", "chosen"), [(FAST, "bfloat16"), (SLOW, "float32")])
def test_auto_takes_the_faster_and_says_so(found, chosen, timing, tmp_path, capsys):
    calls = timing(found)
    result = run(tmp_path / "auto", precision="auto")
    assert calls == ["auto"]
    assert result.config.precision == chosen
    assert read_json(tmp_path / "auto" / "config.json")["precision"] == chosen
    assert read_json(tmp_path / "auto" / "run.json")["precision"] == {
        "asked": "auto",
        "chosen": chosen,
        "milliseconds_a_step": found,
    }
    printed = capsys.readouterr()
    assert f"precision auto: {chosen} (float32 {found['float32']:.2f} ms" in printed.out
    assert "warning" not in printed.err
    # It is the run of that precision.
    run(tmp_path / "explicit", precision=chosen)
    same = [
        (tmp_path / name / "metrics.jsonl").read_text() for name in ("auto", "explicit")
    ]
    assert same[0] == same[1]


def test_a_run_keeps_its_precision(timing, tmp_path):
    calls = timing(FAST)
    run(tmp_path / "run", precision="auto", epochs=1)
    manifest = read_json(tmp_path / "run" / "run.json")["precision"]
    timing(SLOW)  # of another machine, say
    result = run(tmp_path / "run", precision="auto")
    assert result.config.precision == "bfloat16"
    assert len(calls) == 1  # not timed again
    assert read_json(tmp_path / "run" / "run.json")["precision"] == manifest
    # Its precision may be named, and no other.
    assert run(tmp_path / "run", precision="bfloat16").config.precision == "bfloat16"
    with pytest.raises(WorkdirError, match="precision: 'bfloat16' -> 'float32'"):
        run(tmp_path / "run", precision="float32")


def test_auto_continues_a_run_that_was_begun_without(timing, tmp_path):
    calls = timing(FAST)
    run(tmp_path / "run", epochs=1)
    assert run(tmp_path / "run", precision="auto").config.precision == "float32"
    assert not calls


@pytest.mark.parametrize(("found", "warned"), [(FAST, False), (SLOW, True)])
def test_bfloat16_where_it_is_slow_gets_a_warning(
    found, warned, timing, tmp_path, capsys
):
    calls = timing(found)
    run(tmp_path / "run", precision="bfloat16")
    text = "config.precision=bfloat16 is 2.5 times as slow here as float32"
    assert (text in capsys.readouterr().err) == warned
    run(tmp_path / "run", precision="bfloat16", epochs=3)
    assert "times as slow" not in capsys.readouterr().err  # said once
    assert len(calls) == 1


def test_the_timing_is_of_the_run_s_own_program():
    config = small(precision="auto")
    found = precision.measure(config, load_dataset(config))
    assert set(found) == {"float32", "bfloat16"}
    assert all(milliseconds > 0 for milliseconds in found.values())
    assert config.precision == "auto"


def test_a_program_is_not_built_of_an_open_choice():
    config = small(precision="auto")
    with pytest.raises(ConfigError, match="precision is auto, expected the one"):
        build(config, load_dataset(config))
    with pytest.raises(ConfigError, match=r"eval.precision is 'auto', expected one of"):
        small(**{"eval.precision": "auto"})


def test_a_sweep_chooses_once_for_what_is_compiled_once(timing, tmp_path):
    calls = timing(FAST)
    config = small(**NO_LIKELIHOOD, precision="auto")
    axes = {"latent_dim": [2, 3], "seed": [0, 1]}
    runs = grid.expand(config, grid.combinations(axes))
    workdir = tmp_path / "sweep"

    def train():
        with held(workdir), StopRequest() as stop:
            sweep = Sweep(runs, list(axes), 2, 1, "")
            return train_sweep(sweep, workdir, stop)

    rows = train()
    assert [row["status"] for row in rows] == ["done"] * 4
    assert len(calls) == 2  # two widths of z
    for run in runs:
        folder = workdir / "runs" / run.name
        assert read_json(folder / "config.json")["precision"] == "bfloat16"
        assert read_json(folder / "run.json")["precision"]["asked"] == "auto"
    timing(SLOW)
    assert json.dumps(train()) == json.dumps(rows)
    assert len(calls) == 2
