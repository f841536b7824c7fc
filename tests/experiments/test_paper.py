"""`experiments.paper` on a tiny budget; side by side and after kill -9 the same."""

import csv
import json
import multiprocessing
import signal
import time
from html.parser import HTMLParser
from pathlib import Path

import jax
import pytest
from configurations import small

from experiments import paper
from experiments.errors import ConfigError, StoppedError
from experiments.reproduction.appendix_d import AppendixE
from experiments.reproduction.outcome import collect
from experiments.reproduction.protocol import Panel

pytestmark = [
    pytest.mark.usefixtures("cache", "drawn"),
    # optax.adam raises a float to an integer power.
    pytest.mark.usefixtures("standard_promotion"),
]

TINY = {
    "data.num_train": 200,
    "data.num_valid": 0,
    "data.binarization": "grey",
    "batch_size": 50,
    "optimizer": "adagrad",
    "weight_prior": 1.0,
    "schedule": "constant",
    "warmup": 0.0,
    "epochs": 0,
    "train_samples": 800,
    "eval.curve": "test",
    "eval.num_samples": 0,
    "output_bias_from_data": False,
}


# Of log p(x), in the tests' slow code.
FEW = AppendixE(
    num_points=10,
    num_draws=6,
    num_burn_in=6,
    num_prior_draws=20,
    num_quadrature=3,
    coarse_grid=5,
    grid=9,
    num_importance=20,
    batch_size=10,
)


def tiny_panels() -> list[Panel]:
    """Two latents and eight hidden units: a panel of Fig. 2, one of Fig. 3."""
    config = small(**TINY)
    at = small(**{**TINY, "checkpoint.at": (2, 4), "checkpoint.keep": 1})
    every = ("aevb", "wake_sleep", "mcem")
    return [
        Panel("bounds", "2", "tiny bounds", config, ("wake_sleep",), (0,), (0.01, 0.1)),
        Panel(
            "likelihoods",
            "3",
            "tiny likelihoods",
            at,
            every,
            step_sizes=(0.1,),
            likelihoods=FEW,
        ),
    ]


def numbers(workdir: Path) -> dict:
    """What the page shows, without the seconds."""
    found = {}
    for outcome in collect(tiny_panels(), workdir):
        name = outcome.panel.name
        found[name, "sizes"] = outcome.step_sizes
        for curve in outcome.curves:
            lines = [
                {key: value for key, value in line.items() if "second" not in key}
                for line in curve.lines
            ]
            found[name, curve.method] = curve.step_size, curve.status, lines
        for one in outcome.marginals:
            found[name, one.method, one.split, one.samples] = one._replace(seconds=0.0)
    return found


def _child(workdir: str, cache: str) -> None:
    """In a process of its own, to be killed."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_num_cpu_devices", 8)  # part of a compiled program's name
    paper.run(tiny_panels(), ["2", "3"], 800, Path(workdir), num_jobs=2)


def test_a_tiny_budget_and_kill_9_half_way(tmp_path, cache, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    page = paper.run(tiny_panels(), ["2", "3"], 800, whole, num_jobs=2)
    expected = numbers(whole)
    assert "2 of 2 panels done: tiny likelihoods" in capsys.readouterr().out

    # Every method, split and kept epoch of Fig. 3; the truth at the end alone.
    estimates = [key for key in expected if len(key) == 4]
    assert len(estimates) == 3 * 2 * 2
    for key in estimates:
        assert (expected[key].truth is None) == (key[3] == 400)
    assert expected["likelihoods", "mcem"][1] == "done"
    assert len(expected["bounds", "wake_sleep"][2]) == 4
    text = page.read_text()
    HTMLParser().feed(text)
    assert text.count("data:image/png;base64,") == 2
    for word in ("quadrature", "Step sizes", "wake-sleep", "MCEM"):
        assert word in text
    assert str(tmp_path) not in text
    with (whole / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    bounds = [row for row in rows if row["quantity"] == "bound"]
    assert {row["panel"] for row in bounds} == {"bounds", "likelihoods"}
    [last] = [
        row
        for row in bounds
        if (row["panel"], row["method"], row["split"], row["train_samples"])
        == ("bounds", "wake_sleep", "test", "800")
    ]
    line = expected["bounds", "wake_sleep"][2][-1]
    assert float(last["nats"]) == pytest.approx(line["test/bound"], abs=1e-3)
    assert sum(row["quantity"] == "appendix_d" for row in rows) == len(estimates)
    assert sum(row["quantity"] == "quadrature" for row in rows) == 3 * 2

    processes = multiprocessing.get_context("spawn")
    process = processes.Process(target=_child, args=(str(killed), cache))
    process.start()
    rows = killed / "panels" / "bounds" / "wake_sleep" / "rows.jsonl"
    while process.is_alive() and not rows.exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    partial = collect(tiny_panels(), killed)
    assert partial[0].curves
    assert not partial[1].marginals
    paper.run(tiny_panels(), ["2", "3"], 800, killed, num_jobs=2)
    assert numbers(killed) == expected

    # One after another in this process: other threads, so other rounding.
    paper.run(tiny_panels()[:1], ["2"], 800, tmp_path / "single")
    [single] = collect(tiny_panels()[:1], tmp_path / "single")
    assert single.curves[0].lines[-1]["test/bound"] == pytest.approx(
        expected["bounds", "wake_sleep"][2][-1]["test/bound"], rel=1e-5
    )

    # All is there: the page is written again, of the same bytes but for the minutes.
    before = (killed / "verdicts.json").read_bytes()
    paper.run(tiny_panels(), ["2", "3"], 800, killed)
    assert (killed / "verdicts.json").read_bytes() == before
    assert numbers(killed) == expected


def test_a_signal_leaves_a_page_of_what_is_there(tmp_path, monkeypatch):
    def stopped(*_):
        raise StoppedError

    monkeypatch.setattr(paper, "train_panel", stopped)
    with pytest.raises(StoppedError):
        paper.run(tiny_panels(), ["2"], 800, tmp_path / "run")
    assert "0 of 2" in (tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "verdicts.json").read_text())["rows"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figures=6"], "'6' is none of 2, 3"),
        (["--samples=many"], "'many' is not a number"),
        (["--samples=100"], "a whole number from 1e4 on"),
        (["--jobs=-1"], "--jobs=-1 is negative"),
        (["--sample=1e6", "--nothing"], "nothing"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        paper.parse(arguments)
    assert "\n" not in str(error.value)


def test_samples_are_read_as_floats():
    options = paper.parse(["--samples=1e7", "--figures=2,4"])
    assert options.samples == 10_000_000
    assert options.figures == ["2", "4"]
    assert paper.parse([]).samples == 1_000_000


def test_a_wrong_path_is_told_before_anything_is_run(tmp_path, capsys):
    arguments = [
        f"--frey-face={tmp_path / 'none.mat'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert paper.main(arguments) == 1
    assert "none.mat does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
