"""`experiments.reconstruct`: what it finds, shows and keeps."""

import html
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reconstructed import (
    HEIGHT,
    NUM_POINTS,
    WIDTH,
    command,
    finish,
    pictures,
    points,
    results,
    training_mean,
    truth,
)

from experiments import reconstruct
from experiments.reports.restoration import METHODS

# optax.nadam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "drawn", "standard_promotion")


@pytest.fixture(scope="module")
def annealed(workdir, tmp_path_factory) -> Path:
    """One task, with what is slow to compile: AIS and the bounds of both sides."""
    out = tmp_path_factory.mktemp("annealed") / "out"
    methods = "mean,nearest,mwg,ais"
    return finish(workdir, out, task="inpaint", mask="half", methods=methods)


ALL = {"mask": "random:0.5", "flip": 0.2, "factor": 4}
NAMES = ["inpaint-random-0.5", "denoise-0.2", "superresolve-4"]


@pytest.fixture(scope="module")
def finished(workdir, tmp_path_factory) -> Path:
    """A task of every kind."""
    return finish(workdir, tmp_path_factory.mktemp("finished") / "out", **ALL)


def without_seconds(found: dict[str, Any]) -> dict[str, Any]:
    for task in found["tasks"].values():
        for method in task["methods"].values():
            del method["images_per_second"]
    return found["tasks"]


# What it finds.


def test_every_task_and_method_has_finite_numbers(annealed, finished):
    found = results(annealed)["tasks"] | results(finished)["tasks"]
    assert set(found) == {"inpaint-half", *NAMES}
    for name, task in found.items():
        asked = (
            ["mean", "nearest", "mwg", "ais"] if "half" in name else ["mean", "lair"]
        )
        assert list(task["methods"]) == [*asked, "exact"]
        assert task["label"]
        for method, score in task["methods"].items():
            promised = ["rmse", "wrong", "f1", "log_loss", "calibration"]
            promised += ["rmse_error", "wrong_error", "images_per_second"]
            if method != "nearest":
                promised += ["log_prob", "log_prob_error", "log_prob_per_pixel"]
            for number in promised:
                assert isinstance(score[number], float), (name, method, number)
            assert 0 < score["rmse"] < 1
            assert 0 <= score["wrong"] < 1
            assert score["inside"] is None
            assert (score["shortfall"] is None) == (method == "nearest")
        assert task["methods"]["exact"]["shortfall"] == [0, 0]
    diagnostics = found["inpaint-half"]["methods"]["mwg"]["diagnostics"]
    assert 0 < diagnostics["acceptance"] <= 1


def test_the_samplers_are_near_the_truth(annealed, finished):
    for out, samplers in ((annealed, {"mwg", "ais"}), (finished, {"lair"})):
        for task in results(out)["tasks"].values():
            for method in samplers:
                below, _ = task["methods"][method]["shortfall"]
                assert abs(below) < 0.02, method


def test_ais_is_within_its_error_of_the_truth(annealed):
    task = results(annealed)["tasks"]["inpaint-half"]
    found, exact = task["conditional"], task["methods"]["exact"]
    error = found["draws_std_error"]
    assert 0 < error < 2
    assert abs(found["log_likelihood"] - exact["log_prob"]) < 4 * error
    pixels = HEIGHT // 2 * WIDTH
    assert found["per_pixel"] == pytest.approx(found["log_likelihood"] / pixels)
    sandwich = task["sandwich"]
    assert sandwich["num_images"] == 2
    assert sandwich["gap"] == pytest.approx(sandwich["upper"] - sandwich["lower"])
    # Of few chains: the bounds are in order up to their noise.
    assert sandwich["gap"] > -2


def test_the_training_mean_is_that_of_the_training_images(annealed, opened):
    score = results(annealed)["tasks"]["inpaint-half"]["methods"]["mean"]
    missing = slice(HEIGHT // 2, None)
    x, mean = truth(opened)[:, missing], training_mean(opened)[missing]
    assert score["rmse"] == pytest.approx(np.sqrt(((x - mean) ** 2).mean()), rel=1e-5)
    assert score["wrong"] == pytest.approx(((mean > 0.5) != x).mean(), rel=1e-6)
    log_prob = np.where(x == 1, np.log(mean), np.log1p(-mean)).sum(axis=(1, 2))
    assert score["log_prob"] == pytest.approx(log_prob.mean(), rel=1e-5)
    error = log_prob.std(ddof=1) / np.sqrt(NUM_POINTS)
    assert score["log_prob_error"] == pytest.approx(error, rel=1e-4)
    pixels = HEIGHT // 2 * WIDTH
    assert score["log_loss"] == pytest.approx(-log_prob.mean() / pixels, rel=1e-5)


def test_the_training_mean_of_flipped_pixels_weighs_what_is_seen(finished, opened):
    seen = pictures(finished, "denoise-0.2", "mean", "seen")
    mean = training_mean(opened)
    stays = np.where(seen == 1, 0.8, 0.2)
    expected = mean * stays / (mean * stays + (1 - mean) * (1 - stays))
    found = pictures(finished, "denoise-0.2", "mean", "mean")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    flipped = seen != truth(opened)[[0, 2]]
    assert abs(flipped.mean() - 0.2) < 4.9 * np.sqrt(0.2 * 0.8 / flipped.size)


def test_the_nearest_neighbour_is_the_training_image_most_like_what_is_seen(
    annealed, opened
):
    images = opened.program.train.reshape(-1, HEIGHT, WIDTH) / 255
    seen, missing = slice(0, HEIGHT // 2), slice(HEIGHT // 2, None)
    found = pictures(annealed, "inpaint-half", "nearest", "mean")
    for x, mean in zip(truth(opened)[[0, 2]], found, strict=True):
        distances = ((images[:, seen] - x[seen]) ** 2).sum(axis=(1, 2))
        expected = np.clip(images[distances.argmin(), missing], 1e-3, 1 - 1e-3)
        np.testing.assert_allclose(mean[missing], expected, atol=1e-5)


def test_every_method_sees_the_same(annealed, finished, opened):
    shown = truth(opened)[[0, 2]]
    for out, name, method in (
        (annealed, "inpaint-half", "mwg"),
        (annealed, "inpaint-half", "ais"),
        *((finished, name, "lair") for name in NAMES),
    ):
        seen = pictures(out, name, "mean", "seen")
        np.testing.assert_array_equal(seen, pictures(out, name, method, "seen"))
        if "denoise" not in name:  # what is seen is the truth, and is kept
            there = ~np.isnan(seen)
            for values in (seen, pictures(out, name, method, "mean")):
                np.testing.assert_array_equal(values[there], shown[there])
            draws = pictures(out, name, method, "draws")
            for draw in np.moveaxis(draws, 1, 0):
                np.testing.assert_array_equal(draw[there], shown[there])
    random = np.isnan(pictures(finished, NAMES[0], "mean", "seen"))
    assert (random[0] != random[1]).any()  # each image has a mask of its own
    every_fourth = ~np.isnan(pictures(finished, "superresolve-4", "mean", "seen"))
    assert np.argwhere(every_fourth[0]).tolist() == [
        [row, column] for row in (2, 6, 10) for column in (2, 6, 10)
    ]


def test_what_is_shown_is_what_is_scored(annealed, finished, opened):
    shown = truth(opened)[[0, 2]]
    for out, name, method in (
        *((annealed, "inpaint-half", method) for method in ("nearest", "mwg", "ais")),
        *((finished, name, "lair") for name in NAMES),
    ):
        seen = pictures(out, name, method, "seen")
        asked = np.isnan(seen) | ("denoise" in name)
        squared = (pictures(out, name, method, "mean") - shown) ** 2
        expected = np.where(asked, squared, 0).sum(axis=(1, 2))
        values = points(out, name, method)
        found = [values[index]["squared_error"] for index in sorted(values, key=int)]
        np.testing.assert_allclose(found[::2], expected, rtol=1e-3, err_msg=method)


def test_another_seed_is_another_mask(workdir, finished, tmp_path):
    changes = {**ALL, "task": "inpaint", "methods": "mean", "seed": 1}
    other = finish(workdir, tmp_path / "other", **changes)
    ours, theirs = (
        np.isnan(pictures(out, NAMES[0], "mean", "seen")) for out in (finished, other)
    )
    # Independent masks of half of the pixels agree in half of them.
    assert abs((ours == theirs).mean() - 0.5) < 4.9 * 0.5 / np.sqrt(ours.size)


# What it shows.


def test_the_page_has_a_table_and_pictures_of_each_task(annealed, finished):
    for out, names in ((annealed, ["inpaint-half"]), (finished, NAMES)):
        page = (out / "report.html").read_text()
        HTMLParser().feed(page)
        tasks = results(out)["tasks"]
        assert page.count("<table>") == len(names) + 1  # and the configuration
        for name in names:
            assert f"<h2>{name}: {tasks[name]['label']}</h2>" in page
            for method in tasks[name]["methods"]:
                if method in METHODS:
                    assert METHODS[method].label in page
        files = sorted(path.name for path in (out / "figures").iterdir())
        expected = [f"{name}{kind}.png" for name in names for kind in ("", "-steps")]
        assert files == sorted(expected)
        assert page.count("data:image/png;base64,") == len(files)
        for file in files:
            with Image.open(out / "figures" / file) as picture:
                picture.verify()
        for sentence in results(out)["verdict"]:
            assert html.escape(sentence) in page
    assert "AIS is" in (annealed / "report.html").read_text()


def test_what_was_asked_is_in_the_results(annealed, opened):
    options = results(annealed)["options"]
    assert options["methods"] == ["mean", "nearest", "mwg", "ais"]
    assert options["mask"] == ["half"]
    assert options["step"] == opened.step


# What it keeps.


def snapshot(out: Path) -> dict[str, bytes]:
    files = [*out.rglob("*.json*"), out / "report.html"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_the_same_command_again_does_nothing_new(workdir, annealed):
    before = snapshot(annealed)
    assert sum("points/" in name for name in before) > 10
    finish(
        workdir, annealed, task="inpaint", mask="half", methods="mean,nearest,mwg,ais"
    )
    assert snapshot(annealed) == before


def test_stopped_it_goes_on_to_the_same_numbers(
    workdir, finished, tmp_path, monkeypatch, stop_after, capsys
):
    out = tmp_path / "out"
    arguments = command(workdir, out, **ALL, task="inpaint")
    with monkeypatch.context() as patch:
        # A signal at once: there are points of each method, and the truth.
        patch.setattr(reconstruct, "StopRequest", lambda: stop_after(0))
        for _ in ("mean", "lair", "exact"):
            assert reconstruct.main(arguments) == 75
            assert "the same command goes on" in capsys.readouterr().err
            assert not (out / "results.json").exists()
    assert len(points(out, NAMES[0], "mean")) == NUM_POINTS
    assert reconstruct.main(arguments) == 0
    for name in ("mean", "mean-pictures", "lair", "lair-pictures", "exact"):
        found, expected = (points(folder, NAMES[0], name) for folder in (out, finished))
        assert json.dumps(found) == json.dumps(expected), name
    found, expected = (without_seconds(results(folder)) for folder in (out, finished))
    assert found[NAMES[0]] == expected[NAMES[0]]


def test_several_devices_give_the_same_numbers(workdir, finished, tmp_path):
    changes = {**ALL, "task": "inpaint", "methods": "lair", "devices": 2}
    out = finish(workdir, tmp_path / "out", **changes)
    found, expected = (points(folder, NAMES[0], "lair") for folder in (out, finished))
    assert found.keys() == expected.keys()
    for index, values in found.items():
        for key, value in values.items():
            truth = expected[index][key]
            np.testing.assert_allclose(value, truth, 1e-4, 1e-5, err_msg=key)
