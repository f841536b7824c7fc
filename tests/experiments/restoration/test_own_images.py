"""`experiments.reconstruct` on images of one's own, and on grey ones."""

from pathlib import Path

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
    read_png,
    results,
    train,
    training_mean,
    truth,
)

from experiments import reconstruct
from experiments.restoration.tasks import TASKS
from experiments.training.opened import load_run

# optax.nadam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")


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
