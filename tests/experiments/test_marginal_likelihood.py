"""`experiments.marginal_likelihood`: what it measures, keeps, concludes and refuses."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import marginal_likelihood, mnist
from experiments.configs import smoke
from experiments.errors import ConfigError, StoppedError
from experiments.processes.interruption import StopRequest
from experiments.training.opened import load_run

# optax.nadam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "drawn", "standard_promotion")

_QUICK = {
    "--num-points": 6,
    "--importance-samples": "300,1000:3",
    "--temperatures": "20,40:3",
    "--simulated": 4,
    "--gap-points": 2,
    "--reciprocal-points": 2,
    "--quadrature-points": 2,
    "--leapfrog-steps": 3,
    "--gap-steps": 300,
    "--posterior-draws": 100,
    "--rows": 8,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    config = smoke.get_config()
    config.update_from_flattened_dict(
        {
            "data.num_train": 400,
            "epochs": 1,
            "latent_dim": 1,
            "hidden_dims": (8,),
            "eval.num_samples": 0,
            "eval.chunk_size": 100,
            "eval.batch_size": 2,
        }
    )
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(config, workdir)
    return workdir


def command(workdir: Path, out: Path, **changes: object) -> list[str]:
    options = {**_QUICK, "--workdir": workdir, "--out": out}
    options |= {f"--{name.replace('_', '-')}": v for name, v in changes.items()}
    return [f"{name}={value}" for name, value in options.items()]


@pytest.fixture(scope="module")
def finished(workdir, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("likelihood") / "out"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert marginal_likelihood.main(command(workdir, out)) == 0
    return out


def points(out: Path) -> dict[str, dict]:
    """{estimator: {index: values}}, the seconds left out."""
    found: dict[str, dict] = {}
    for path in (out / "points").glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line]
        found[path.stem] = {line["name"]: line["value"] for line in lines}
        for value in found[path.stem].values():
            if isinstance(value, dict):
                value.pop("seconds")
    return found


def test_every_estimator_is_near_the_truth_and_on_its_side(finished):
    found = points(finished)
    assert len(found["quadrature"]) == 2
    for index, truth in found["quadrature"].items():
        value = truth["log_likelihood"]
        # Both grids resolve this model: the truth is one to many digits.
        assert abs(value - truth["first_grid"]) < 1e-2
        for name in ("importance-300", "annealed-20", "reciprocal"):
            estimate = found[name][index]
            error = max(estimate["std_error"], 1e-3)
            assert abs(estimate["log_likelihood"] - value) < 5 * error, name
    # log w of the forward and of the reverse chains are 4 draws each, at a spread that
    # the forward ones of the test points show.
    gaps = [v["upper"] - v["log_likelihood"] for v in found["sandwich-20"].values()]
    spread = np.mean([v["std_error"] for v in found["annealed-20"].values()])
    assert np.mean(gaps) > -4 * np.sqrt(2 / len(gaps)) * spread
    for value in found["inference_gap"].values():
        assert value["local_bound"] > value["bound"] - 0.05


def test_several_devices_give_the_same_numbers(workdir, finished, tmp_path):
    few = {
        "gap_points": 0,
        "reciprocal_points": 0,
        "quadrature_points": 0,
        "simulated": 0,
        "temperatures": 20,
    }
    shared = command(workdir, tmp_path / "out", devices=4, **few)
    assert marginal_likelihood.main(shared) == 0
    found, expected = points(tmp_path / "out"), points(finished)
    assert {"importance-300", "importance-1000", "annealed-20"} < set(found)
    for name in found:
        if not name.startswith("annealed"):
            assert found[name] == expected[name], name
    # A point alone on a device is another program than four in a batch: its chains are
    # the same up to rounding.
    assert found["annealed-20"].keys() == expected["annealed-20"].keys()
    for index, values in found["annealed-20"].items():
        for key, value in values.items():
            truth = expected["annealed-20"][index][key]
            assert value == pytest.approx(truth, rel=1e-5), key
    too_many = command(workdir, tmp_path / "none", devices=9)
    assert marginal_likelihood.main(too_many) == 1


def test_the_page_and_the_numbers_are_there(finished, capsys):
    results = json.loads((finished / "results.json").read_text())
    names = [row["name"] for row in results["estimates"]]
    assert names == [
        "importance-300",
        "importance-1000",
        "reciprocal",
        "quadrature",
        "annealed-20",
        "annealed-40",
    ]
    by_name = dict(zip(names, results["estimates"], strict=True))
    values = points(finished)["importance-300"]
    mean = np.mean([value["log_likelihood"] for value in values.values()])
    assert by_name["importance-300"]["log_likelihood"] == pytest.approx(mean, abs=1e-9)
    assert by_name["importance-300"]["num_points"] == 6
    assert by_name["importance-1000"]["num_points"] == 3
    assert [row["num_temperatures"] for row in results["simulated"]] == [20]
    gap = results["inference_gap"]
    total = gap["log_likelihood"] - gap["bound"]
    assert gap["approximation"] + gap["amortization"] == pytest.approx(total, abs=1e-4)
    assert any("quadrature" in sentence for sentence in results["verdict"])
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert results["verdict"][0].split(",")[0] in page


def test_more_points_only_do_what_is_not_there(workdir, finished, tmp_path):
    out = tmp_path / "out"
    small = {"num_points": 3, "gap_points": 0, "simulated": 0, "reciprocal_points": 0}
    small |= {"quadrature_points": 0, "temperatures": 0}
    assert marginal_likelihood.main(command(workdir, out, **small)) == 0
    before = (out / "points" / "importance-300.jsonl").read_bytes()
    assert (
        marginal_likelihood.main(command(workdir, out, **small | {"num_points": 6}))
        == 0
    )
    after = (out / "points" / "importance-300.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(points(out)["importance-300"]) == 6
    assert points(out)["importance-300"] == points(finished)["importance-300"]


def test_stopped_it_goes_on_to_the_same_numbers(
    workdir, finished, tmp_path, monkeypatch
):
    # A signal after every batch of two points: of 6 points one way, of 3 the other.
    def stop(_: StopRequest) -> None:
        raise StoppedError

    kinds = ("gap_points", "reciprocal_points", "quadrature_points", "temperatures")
    arguments = command(workdir, tmp_path / "out", **dict.fromkeys(kinds, 0))
    with monkeypatch.context() as patch:
        patch.setattr("experiments.evaluation.points.stop_together", stop)
        for expected in (75, 75, 75, 0):
            assert (tmp_path / "out" / "results.json").exists() is False
            assert marginal_likelihood.main(arguments) == expected
    expected = points(finished)
    for name, values in points(tmp_path / "out").items():
        assert values == expected[name], name


def test_grey_pixels_have_no_likelihood(workdir, tmp_path):
    opened = load_run(workdir)
    grey = opened._replace(program=opened.program._replace(is_likelihood=False))
    options = marginal_likelihood.parse(command(workdir, tmp_path))
    with pytest.raises(ConfigError, match=r"grey pixels .* no likelihood"):
        marginal_likelihood.measure(grey, options, tmp_path, StopRequest())


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--temperatures=1", "at least 2"),
        ("--importance-samples=1.5", "importance-samples"),
        ("--num-points=-1", "whole number"),
        ("--step=first", "last, best or a number"),
        ("--start=middle", "encoder"),
    ],
)
def test_wrong_usage_is_one_line(workdir, capsys, flag, text):
    assert marginal_likelihood.main([f"--workdir={workdir}", flag]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
