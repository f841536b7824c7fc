"""A whole run, end to end on a small slice, and the fields that only its loop reads."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import marginal_likelihood, mnist
from experiments.configs import smoke
from experiments.data.idx import BUNDLED
from experiments.errors import DataError
from experiments.evaluation.verdict import describe
from experiments.storage.checkpoints import Checkpoints
from experiments.training.opened import load_run
from experiments.training.result import Result

# optax.nadam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")


def run(workdir: Path, **changes: object) -> Result:
    config = smoke.get_config()
    config.update_from_flattened_dict(
        {
            "data.num_train": 400,
            "hidden_dims": (8,),
            "eval.num_samples": 7,
            "eval.num_points": 20,
            **changes,
        }
    )
    return mnist.run(config, workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, drawn) -> tuple[Path, Result]:
    import jax

    workdir = tmp_path_factory.mktemp("runs") / "finished"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return workdir, run(
            workdir, **{"eval.every": 1, "checkpoint.every": 1, "checkpoint.keep": 2}
        )


def test_a_run_leaves_all_that_it_promises(finished):
    workdir, result = finished
    for name in ("config.json", "run.json", "results.json"):
        json.loads((workdir / name).read_text())
    assert any((workdir / "events").iterdir())
    pictures = {path.stem for path in (workdir / "figures").glob("*.png")}
    assert pictures == {
        "kl_per_dimension",
        "latent_space",
        "learning_curve",
        "manifold",  # N_z = 2
        "reconstructions",
        "samples",
    }
    for name in pictures:
        with Image.open(workdir / "figures" / f"{name}.png") as picture:
            picture.verify()
    page = (workdir / "report.html").read_text()
    HTMLParser().feed(page)
    assert page.count("data:image/png;base64,") == len(pictures)
    assert f"{describe(result.likelihood.points)['log_likelihood']:.2f}" in page


def test_the_test_bound_is_of_all_points_and_log_p_of_evenly_spaced_ones(finished):
    _, result = finished
    assert len(result.test.means) == 10_000
    assert result.likelihood.points.indices.tolist() == list(range(0, 10_000, 500))
    found = describe(result.likelihood.points)
    assert found["log_likelihood"] > float(result.test.bound) - 10 * found["std_error"]


def test_every_epoch_has_a_line_with_the_samples_seen(finished):
    _, result = finished
    assert [line["samples"] for line in result.metrics] == [400, 800, 1200, 1600]
    assert [line["step"] for line in result.metrics] == [2, 4, 6, 8]
    for line in result.metrics:
        objective = line["train/reconstruction"] - line["train/kl"]
        assert line["train/bound"] == pytest.approx(objective, rel=1e-5)


def test_the_loop_s_fields_change_what_is_looked_at_and_kept(finished, tmp_path):
    workdir, result = finished
    assert all("valid/bound" in line for line in result.metrics)
    assert len(Checkpoints(workdir).steps()) in (2, 3)  # the last two, and the best
    changes = {
        "eval.every": 3,
        "eval.curve": "test",
        "checkpoint.every": 3,
        "checkpoint.keep": 1,
        "eval.num_samples": 0,
    }
    other = run(tmp_path / "other", **changes)
    looked = [line["epoch"] for line in other.metrics if "test/bound" in line]
    assert looked == [3, 4]
    assert not any("valid/bound" in line for line in other.metrics)
    assert Checkpoints(tmp_path / "other").steps() == [8]
    assert other.likelihood is None


def test_grey_pixels_have_a_bound_and_no_likelihood(tmp_path):
    result = run(tmp_path / "grey", **{"data.binarization": "grey", "epochs": 1})
    assert result.likelihood is None
    assert "grey pixels" in (tmp_path / "grey" / "report.html").read_text()


def test_a_gaussian_likelihood_runs_end_to_end(tmp_path):
    changes = {
        "data.binarization": "grey",
        "likelihood": "gaussian",
        "output_bias_from_data": False,
        "epochs": 1,
    }
    result = run(tmp_path / "gaussian", **changes)
    found = describe(result.likelihood.points)
    # A density over 784 scaled pixels: far above any log probability of binary ones.
    assert found["log_likelihood"] > float(result.test.bound) - 10 * found["std_error"]
    assert result.test.kl_per_dim.shape == (2,)
    page = (tmp_path / "gaussian" / "report.html").read_text()
    assert "nats change with that scaling" in page


def test_frey_face_s_own_quantities_are_in_the_report(tmp_path):
    """On MNIST, as its frames are not here: bits per dimension, the floor."""
    changes = {
        "data.binarization": "grey",
        "data.scale": 256,
        "likelihood": "gaussian",
        "output_bias_from_data": False,
        "min_scale": 0.01,
        "epochs": 1,
        "eval.num_samples": 0,
    }
    result = run(tmp_path / "floor", **changes)
    numbers = json.loads((tmp_path / "floor" / "results.json").read_text())
    bits = 8 - float(result.test.bound) / (784 * np.log(2))
    assert numbers["test_bits_per_dim"] == pytest.approx(bits, rel=1e-5)
    page = (tmp_path / "floor" / "report.html").read_text()
    assert f"{bits:.3f}" in page
    assert "is at least 0.01 (config.min_scale)" in page
    decode = result.program.model.decode
    scale = decode(result.params, np.zeros(2, np.float32)).log_scale
    assert np.all(np.asarray(scale) >= np.float32(np.log(0.01)))


@pytest.mark.parametrize("algorithm", ["wake_sleep", "mcem"])
def test_the_baselines_run_end_to_end(algorithm, tmp_path):
    changes = {"algorithm": algorithm, "data.binarization": "static", "epochs": 3}
    result = run(tmp_path / "run", **changes, **{"batch_size": 100})
    assert len(result.metrics) == 3
    objectives = [line["train/objective"] for line in result.metrics]
    assert objectives[-1] > objectives[0]
    page = (tmp_path / "run" / "report.html").read_text()
    run_json = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run_json["data_source"] == "bundled with the project"
    if algorithm == "mcem":
        assert result.test is None
        assert result.likelihood is None
        assert "Monte Carlo EM on mnist" in page
        assert page.count("data:image/png;base64,") == 3  # curve, samples, manifold
        command = ["marginal", f"--workdir={tmp_path / 'run'}", "--num-points=5"]
        assert marginal_likelihood.main(command[1:]) == 1
    else:
        assert "Wake-sleep on mnist" in page
        found = describe(result.likelihood.points)
        error = 10 * found["std_error"]
        assert found["log_likelihood"] > float(result.test.bound) - error


def test_the_best_checkpoint_may_be_the_last_one(tmp_path):
    changes = {"eval.every": 1, "checkpoint.every": 3, "checkpoint.keep": 2}
    result = run(tmp_path / "run", **changes, **{"eval.num_samples": 0})
    bounds = [line["valid/bound"] for line in result.metrics]
    assert np.argmax(bounds) == 3  # of four epochs, and 4 is no multiple of 3
    best = load_run(tmp_path / "run", step="best")
    assert best.step == 8


def test_the_same_points_and_samples_have_the_same_number_in_both_programs(
    finished, tmp_path
):
    workdir, result = finished
    options = ["--importance-samples=7", "--temperatures=0", "--gap-points=0"]
    options += ["--reciprocal-points=0", "--quadrature-points=0", "--num-points=20"]
    command = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}", *options]
    assert marginal_likelihood.main(command) == 0
    [other] = json.loads((tmp_path / "out" / "results.json").read_text())["estimates"]
    assert (
        other["log_likelihood"] == describe(result.likelihood.points)["log_likelihood"]
    )


def test_moved_data_are_the_same_data(tmp_path):
    """Where they lie is free: the run goes on, and opens, by their sha256."""
    here = shutil.copytree(BUNDLED, tmp_path / "here")
    changes = {"epochs": 1, "eval.num_points": 3}
    result = run(tmp_path / "run", **changes, **{"data.path": str(here)})
    there = here.rename(tmp_path / "there")
    again = run(tmp_path / "run", **changes, **{"data.path": str(there)})
    assert again.metrics == result.metrics
    assert load_run(tmp_path / "run").step == 2
    elsewhere = there.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="there"):
        load_run(tmp_path / "run")
    assert load_run(tmp_path / "run", data_path=str(elsewhere)).step == 2
