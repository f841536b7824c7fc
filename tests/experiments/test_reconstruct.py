"""`experiments.reconstruct`: what it finds, keeps, shows and refuses."""

import html
import json
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import mnist, reconstruct
from experiments.configs import smoke
from experiments.data.idx import BUNDLED, read_images
from experiments.reports.restoration import METHODS
from experiments.restoration.tasks import TASKS
from experiments.training.opened import Opened, load_run

# optax.nadam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")

HEIGHT, WIDTH = 14, 12
NUM_POINTS, NUM_SHOWN = 4, 2
QUICK = {
    "--methods": "mean,lair",
    "--steps": 8,
    "--chains": 4,
    "--temperatures": 5,
    "--leapfrog-steps": 2,
    "--num-points": NUM_POINTS,
    "--shown": NUM_SHOWN,
    "--simulated": 2,
    "--batch-size": 2,
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """MNIST's first digits at half the size, and not square."""
    folder = tmp_path_factory.mktemp("digits")
    images = read_images(BUNDLED / "t10k-images-idx3-ubyte.gz")[:460].astype(float)
    images = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))[:, :, 1:13]
    images = np.round(images).astype(np.uint8)
    for role, own in (("train", images[:420]), ("t10k", images[420:])):
        labels = np.zeros(len(own), np.uint8)
        for name, array in (("images-idx3", own), ("labels-idx1", labels)):
            header = struct.pack(">I", 0x0800 + array.ndim)
            header += struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{role}-{name}-ubyte").write_bytes(header + array.tobytes())
    return folder


def train(digits: Path, workdir: Path, **changes: object) -> Path:
    config = smoke.get_config()
    config.update_from_flattened_dict(
        {
            "data.name": "digits",
            "data.path": str(digits),
            "data.num_train": 400,
            "data.num_valid": 20,
            "batch_size": 20,
            "epochs": 30,
            "eval.every": 30,
            "checkpoint.every": 30,
            "latent_dim": 1,
            "hidden_dims": (8,),
            "eval.num_samples": 0,
            **changes,
        }
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def workdir(digits, tmp_path_factory) -> Path:
    return train(digits, tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture(scope="module")
def opened(workdir) -> Opened:
    return load_run(workdir)


def command(workdir: Path, out: Path, *flags: str, **changes: object) -> list[str]:
    options = {**QUICK, "--workdir": workdir, "--out": out}
    options |= {f"--{name.replace('_', '-')}": v for name, v in changes.items()}
    return [*[f"{name}={value}" for name, value in options.items()], *flags]


def finish(*arguments: Any, **changes: object) -> Path:
    """Runs a command to its end; the folder that it wrote to."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert reconstruct.main(command(*arguments, **changes)) == 0
    return arguments[1]


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


def results(out: Path) -> dict[str, Any]:
    """results.json; a number that JSON has not is refused."""
    text = (out / "results.json").read_text()
    return json.loads(text, parse_constant=pytest.fail)


def without_seconds(found: dict[str, Any]) -> dict[str, Any]:
    for task in found["tasks"].values():
        for method in task["methods"].values():
            del method["images_per_second"]
    return found["tasks"]


def points(out: Path, task: str, name: str) -> dict[str, Any]:
    """{index: values} of a file, the seconds left out."""
    text = (out / "points" / task / f"{name}.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line]
    found = {line["name"]: line["value"] for line in lines}
    for value in found.values():
        if isinstance(value, dict):
            value.pop("seconds")
    return found


def pictures(out: Path, task: str, method: str, name: str) -> np.ndarray:
    """`[n, ..., H, W]`, in the order of the images."""
    found = points(out, task, f"{method}-pictures")
    values = [found[index][name] for index in sorted(found, key=int)]
    array = np.array(values, np.float64)
    return array.reshape(*array.shape[:-1], HEIGHT, WIDTH)


def truth(opened: Opened) -> np.ndarray:
    """`[n, H, W]` the images that are measured: evenly spaced ones."""
    images = np.asarray(opened.program.test, np.float64).reshape(-1, HEIGHT, WIDTH)
    return images[np.arange(NUM_POINTS) * len(images) // NUM_POINTS]


def training_mean(opened: Opened) -> np.ndarray:
    """`[H, W]` P(x = 1) of each pixel, none of which is certain."""
    mean = opened.program.train.reshape(-1, HEIGHT, WIDTH).mean(axis=0) / 255
    return np.clip(mean, 1e-3, 1 - 1e-3)


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


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


# Images of one's own.


def test_what_is_seen_of_a_damaged_image_is_kept(workdir, opened, tmp_path):
    x = (truth(opened)[1] * 255).astype(np.uint8)
    seen = np.ones((HEIGHT, WIDTH), bool)
    seen[3:9, 2:8] = False
    Image.fromarray(np.where(seen, x, 255)).save(tmp_path / "mine.png")
    Image.fromarray(255 * seen.astype(np.uint8)).save(tmp_path / "hole.png")
    own = {"images": tmp_path / "mine.png", "mask": tmp_path / "hole.png"}
    out = finish(workdir, tmp_path / "out", "--damaged", task="inpaint", **own)
    restored = out / "restored" / "inpaint-hole"
    names = ["000-mean.png", "000-uncertainty.png", "mean.npy"]
    names += [f"000-draw-{i}.png" for i in (1, 2, 3)]
    for method in ("mean", "lair"):
        folder = restored / method
        assert {path.name for path in folder.iterdir()} == set(names)
        for name in names:
            if name.startswith(("000-mean", "000-draw")):
                np.testing.assert_array_equal(read_png(folder / name)[seen], x[seen])
        assert set(np.unique(read_png(folder / "000-draw-1.png"))) <= {0, 255}
        spread = read_png(folder / "000-uncertainty.png")
        assert not spread[seen].any()
        assert spread[~seen].any()
        means = np.load(folder / "mean.npy")
        assert means.shape == (1, HEIGHT, WIDTH)
        assert np.abs(255 * means[0] - read_png(folder / "000-mean.png")).max() <= 0.5
    # What the file has where nothing is seen is not looked at.
    expected = training_mean(opened)[~seen]
    np.testing.assert_allclose(
        np.load(restored / "mean" / "mean.npy")[0][~seen], expected, rtol=1e-4
    )
    found = results(out)
    assert found["tasks"]["inpaint-hole"]["methods"] == {}
    assert found["verdict"] == []
    assert "no truth" in (out / "report.html").read_text()


def test_images_of_one_s_own_that_are_whole_have_scores(workdir, opened, tmp_path):
    images = opened.dataset.test.images.reshape(-1, HEIGHT, WIDTH)[:4]
    np.save(tmp_path / "mine.npy", images)
    own = {"images": tmp_path / "mine.npy", "task": "inpaint", "mask": "half"}
    out = finish(workdir, tmp_path / "out", **own)
    task = results(out)["tasks"]["inpaint-half"]
    assert set(task["methods"]) == {"mean", "lair", "exact"}
    missing = slice(HEIGHT // 2, None)
    x = (images >= 128)[:, missing]  # as black or white as they are near
    squared = (x - training_mean(opened)[missing]) ** 2
    rmse = task["methods"]["mean"]["rmse"]
    assert rmse == pytest.approx(np.sqrt(squared.mean()), rel=1e-5)
    for index in range(4):
        mean = read_png(
            out / "restored" / "inpaint-half" / "lair" / f"{index:03}-mean.png"
        )
        kept = mean[: HEIGHT // 2]
        np.testing.assert_array_equal(kept == 255, images[index, : HEIGHT // 2] >= 128)


def test_one_image_of_one_s_own_has_scores_without_errors(workdir, opened, tmp_path):
    image = opened.dataset.test.images[0].reshape(HEIGHT, WIDTH)
    Image.fromarray(image).save(tmp_path / "mine.png")
    own = {"images": tmp_path / "mine.png", "task": "inpaint", "mask": "half"}
    out = finish(workdir, tmp_path / "out", **own, methods="mean")
    for score in results(out)["tasks"]["inpaint-half"]["methods"].values():
        assert isinstance(score["rmse"], float)
        assert score["rmse_error"] is None


def test_a_random_mask_is_not_that_of_a_damaged_image(
    workdir, opened, tmp_path, capsys
):
    """It is drawn anew: the image was not damaged with it."""
    np.save(tmp_path / "mine.npy", opened.dataset.test.images[0].reshape(HEIGHT, WIDTH))
    own = {"images": tmp_path / "mine.npy", "task": "inpaint", "methods": "mean"}
    arguments = command(
        workdir, tmp_path / "out", "--damaged", **own, mask="random:0.5"
    )
    assert reconstruct.main(arguments) == 1
    assert "random" in capsys.readouterr().err


# Grey pixels.


@pytest.fixture(scope="module")
def gaussian(digits, tmp_path_factory) -> Path:
    return train(
        digits,
        tmp_path_factory.mktemp("runs") / "gaussian",
        **{
            "data.binarization": "grey",
            "likelihood": "gaussian",
            "output_bias_from_data": False,
            "min_scale": 0.05,
        },
    )


GREY = {"mask": "half", "noise": 0.3, "factor": 4}


def test_grey_images_are_filled_in_cleared_of_noise_and_made_sharp(gaussian, tmp_path):
    out = finish(gaussian, tmp_path / "out", **GREY, methods="mean,pseudo-gibbs")
    found = results(out)["tasks"]
    assert list(found) == ["inpaint-half", "denoise-0.3", "superresolve-4"]
    for name, task in found.items():
        assert list(task["methods"]) == [
            "mean",
            "pseudo-gibbs",
        ]  # no truth by quadrature
        for method, score in task["methods"].items():
            for number in ("log_prob", "rmse", "rmse_error", "wrong", "inside"):
                assert isinstance(score[number], float), (name, method, number)
            assert 0.5 < score["inside"] <= 1
            assert (score["log_loss"], score["f1"]) == (None, None)
    opened = load_run(gaussian)
    images = opened.program.test.reshape(-1, HEIGHT, WIDTH) / 255
    x = images[np.arange(NUM_POINTS) * len(images) // NUM_POINTS]
    mean = opened.program.train.reshape(-1, HEIGHT, WIDTH).mean(axis=0) / 255
    missing = slice(HEIGHT // 2, None)
    squared = ((x - mean) ** 2)[:, missing].mean()
    rmse = {name: task["methods"]["mean"]["rmse"] for name, task in found.items()}
    assert rmse["inpaint-half"] == pytest.approx(np.sqrt(squared), rel=1e-5)
    # What was seen in noise of 0.3 is less wrong once it is weighed with the mean.
    assert rmse["denoise-0.3"] < 0.3
    noise = pictures(out, "denoise-0.3", "mean", "seen") - x[[0, 2]]
    assert noise.std() == pytest.approx(0.3, rel=0.2)
    # An answer has the means of blocks that were seen, up to the noise in them.
    answers = pictures(out, "superresolve-4", "pseudo-gibbs", "mean")[:, :12]
    blocks = [
        image.reshape(2, 3, 4, 3, 4).mean(axis=(2, 4))
        for image in (answers, x[[0, 2], :12])
    ]
    np.testing.assert_allclose(*blocks, atol=0.06)
    assert "PSNR, dB" in (out / "report.html").read_text()


def test_damaged_grey_images_are_restored_by_every_task_or_refused(
    gaussian, tmp_path, capsys
):
    images = load_run(gaussian).dataset.test.images[:2]
    np.save(tmp_path / "mine.npy", images.reshape(-1, HEIGHT, WIDTH))
    own = {**GREY, "images": tmp_path / "mine.npy", "methods": "mean"}
    for task in TASKS:
        arguments = command(gaussian, tmp_path / task, "--damaged", **own, task=task)
        code = reconstruct.main(arguments)
        if code == 0:
            folder = next((tmp_path / task / "restored").iterdir())
            means = np.load(folder / "mean" / "mean.npy")
            assert means.shape == (2, HEIGHT, WIDTH)
            assert np.isfinite(means).all()
        else:
            assert (code, capsys.readouterr().err.count("\n")) == (1, 1)


# What it refuses.


def refused(capsys, arguments: list[str], code: int = 1) -> str:
    assert reconstruct.main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--task=sharpen"], "'sharpen' is none of inpaint, denoise, superresolve"),
        (["--methods=magic"], "'magic' is none of mean, nearest"),
        (
            ["--mask=halves"],
            "--mask=halves: expected half, quadrant, quadrants, random",
        ),
        (["--mask=random:2"], "--mask=random:2: '2' is not between 0 and 1"),
        (["--mask=half,,quadrant"], "empty word"),
        (["--flip=0.7"], "argument --flip: '0.7' is not numbers between 0 and 0.5"),
        (["--flip=some"], "argument --flip: 'some' is not numbers"),
        (["--noise=0"], "argument --noise: '0' is not numbers between 0 and 10"),
        (["--factor=1"], "--factor=1: expected from 2 to 12"),
        (["--factor=13"], "--factor=13: expected from 2 to 12"),
        (["--factor=half"], "--factor"),
        (["--steps=100"], "argument --steps: 100 is no power of two"),
        (["--steps=4"], "argument --steps: 4 is no power of two from 8 on"),
        (["--chains=3"], "argument --chains: 3 is below 4"),
        (["--temperatures=2"], "argument --temperatures: 2 is below 3"),
        (["--damaged"], "--damaged is of --images"),
        (["--images=none.png"], "none.png does not exist"),
        (["--step=first"], "expected last, best or a number"),
        (["--devices=99"], "--devices=99, expected at most 8"),
        (["--shown=0"], "--shown"),
        (["--speed=9"], "unrecognized arguments: --speed=9"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(workdir, tmp_path, capsys, flags, said):
    arguments = command(workdir, tmp_path / "out")
    assert said in refused(capsys, arguments + flags)
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_workdir_that_is_none_is_refused(workdir, tmp_path, capsys):
    none = command(tmp_path / "none", tmp_path / "out")
    assert "none is not a directory" in refused(capsys, none)
    empty = command(tmp_path, tmp_path / "out")
    assert "config.json cannot be read" in refused(capsys, empty)
    assert "no checkpoint" in refused(
        capsys, [*command(workdir, tmp_path / "out"), "--step=3"], 3
    )


def test_files_of_another_size_are_refused(workdir, tmp_path, capsys):
    Image.fromarray(np.eye(WIDTH, HEIGHT, dtype=bool)).save(tmp_path / "turned.png")
    arguments = command(workdir, tmp_path / "out", task="inpaint")
    said = refused(capsys, [*arguments, f"--mask={tmp_path / 'turned.png'}"])
    assert "12 x 14 pixels, expected 14 x 12" in said
    said = refused(capsys, [*arguments, f"--images={tmp_path / 'turned.png'}"])
    assert "12 x 14" in said
    assert "14 x 12" in said.partition("expected")[2]


def test_grey_pixels_under_a_bernoulli_are_refused(workdir, tmp_path, capsys):
    grey = shutil.copytree(workdir, tmp_path / "grey")
    config = json.loads((grey / "config.json").read_text())
    config["data"]["binarization"] = "grey"
    (grey / "config.json").write_text(json.dumps(config))
    said = refused(capsys, command(grey, tmp_path / "out"))
    assert "grey pixels under a Bernoulli" in said
    assert "--config.data.binarization=dynamic" in said


def test_a_run_without_an_encoder_is_refused(
    workdir, opened, tmp_path, capsys, monkeypatch
):
    program = opened.program._replace(has_encoder=False)
    monkeypatch.setattr(
        reconstruct, "load_run", lambda *_, **__: opened._replace(program=program)
    )
    said = refused(capsys, command(workdir, tmp_path / "out"))
    assert "MCEM" in said
    assert "--config.algorithm=aevb" in said


def test_help_tells_of_every_task_and_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # a word with a hyphen may be broken there
    with pytest.raises(SystemExit) as info:
        reconstruct.main(["--help"])
    assert info.value.code == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    for word in (*TASKS, *METHODS):
        assert word in words
