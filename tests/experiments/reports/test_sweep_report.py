"""The end of a sweep: which setting is best, and where diverged runs are shown."""

import csv
import json

import pytest
from configurations import small

from experiments.reports.sweep import ranking, write_sweep_report
from experiments.sweeps.grid import Run

FIELDS = ["learning_rate", "seed"]


def row(rate: float, seed: int, bound: float | None) -> dict:
    return {
        "run": f"learning_rate={rate},seed={seed}",
        "learning_rate": rate,
        "seed": seed,
        "status": "diverged in epoch 1" if bound is None else "done",
        "train_bound": bound,
        "valid_bound": bound,
        "test_bound": bound,
        "log_likelihood": None,
        "seconds": 1.0,
    }


def test_settings_are_ranked_by_the_mean_over_seeds():
    rows = [row(2.0, 0, -99.0), row(2.0, 1, -110.0)]
    rows += [row(1.0, 0, -100.0), row(1.0, 1, -104.0)]
    first, second = ranking(rows, FIELDS)
    assert (first["learning_rate"], first["valid_bound"]) == (1.0, -102.0)
    assert first["valid_bound_std_error"] == pytest.approx(2.0)
    assert (first["num_runs"], first["num_diverged"]) == (2, 0)
    assert second["valid_bound"] == -104.5


def test_the_standard_error_of_one_run_is_not_known():
    (entry,) = ranking([row(1.0, 0, -100.0)], FIELDS)
    assert entry["valid_bound_std_error"] is None


def test_a_setting_that_diverges_is_below_every_one_that_does_not():
    lucky = [row(9.0, seed, -80.0 if seed == 0 else None) for seed in range(16)]
    steady = [row(1.0, seed, -120.0) for seed in range(16)]
    first, second = ranking(lucky + steady, FIELDS)
    assert (first["learning_rate"], first["num_diverged"]) == (1.0, 0)
    assert (second["learning_rate"], second["num_diverged"]) == (9.0, 15)
    assert (second["num_runs"], second["valid_bound"]) == (1, -80.0)


def test_settings_that_diverge_are_ranked_by_the_share_then_by_the_mean():
    rows = [row(4.0, 0, None), row(4.0, 1, None)]
    rows += [row(3.0, 0, -80.0), row(3.0, 1, None)]
    rows += [row(2.0, 0, -70.0), row(2.0, 1, None)]
    rows += [row(1.0, 0, -99.0), row(1.0, 1, -99.0), row(1.0, 2, None)]
    ranked = ranking(rows, FIELDS)
    assert [entry["learning_rate"] for entry in ranked] == [1.0, 2.0, 3.0, 4.0]
    assert ranked[-1]["valid_bound"] is None


def test_the_diverged_count_is_in_the_terminal_the_files_and_the_page(tmp_path, capsys):
    rows = [row(9.0, 0, -80.0), row(9.0, 1, None), row(1.0, 0, -120.0)]
    for entry in rows:
        folder = tmp_path / "runs" / entry["run"]
        folder.mkdir(parents=True)
        line = {"samples": 320, "train/bound": entry["train_bound"]}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    names = [(entry["run"], {f: entry[f] for f in FIELDS}) for entry in rows]
    runs = [Run(name, changes, small(**changes)) for name, changes in names]
    path = write_sweep_report(runs, FIELDS, rows, tmp_path)

    title, head, _, *lines = capsys.readouterr().out.strip().splitlines()[:5]
    assert title == "Settings by valid bound, nats"
    assert head.split()[:3] == ["learning_rate", "runs", "diverged"]
    assert [line.split()[:3] for line in lines] == [["1", "1", "0"], ["9", "1", "1"]]
    ranked = json.loads((tmp_path / "ranking.json").read_text())["ranking"]
    assert [entry["num_diverged"] for entry in ranked] == [0, 1]
    with (tmp_path / "results.csv").open(newline="") as file:
        statuses = [entry["status"] for entry in csv.DictReader(file)]
    assert statuses == ["done", "diverged in epoch 1", "done"]
    page = path.read_text()
    assert "1 diverged" in page
    assert ">diverged</th>" in page
    assert 'best valid bound</dt><dd class="value">-120.00' in page
    assert "Every run that did not diverge, by learning_rate" in page
    assert "The best 2 settings, without their diverged runs" in page


def test_a_best_setting_that_diverged_says_so(tmp_path):
    rows = [row(9.0, 0, -80.0), row(9.0, 1, None)]
    folder = tmp_path / "runs" / rows[0]["run"]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"samples": 320, "train/bound": -80}\n')
    runs = [Run(entry["run"], {}, small()) for entry in rows]
    page = write_sweep_report(runs, FIELDS, rows, tmp_path).read_text()
    assert "learning_rate=9.0, 1 of 2 runs diverged" in page
