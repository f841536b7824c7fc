"""Images in rows: each pixel exactly, in reading order, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from scipy.special import ndtr

from experiments.reports.images import (
    image_grid,
    image_rows,
    manifold_points,
    reconstructions,
)

IMAGES = np.random.default_rng(0).uniform(size=(7, 4, 3))

# One call of every kind, with the size in pixels that the file must have.
PICTURES = {
    "reconstructions": (
        lambda path: reconstructions(path, IMAGES, 1 - IMAGES),
        (8 * (7 * 3 + 6 * 2) + 24 + 222, 8 * (2 * 4 + 2) + 96),
    ),
    "image_rows": (
        lambda path: image_rows(path, {"a": IMAGES, "ten letters": IMAGES}, title="R"),
        (8 * (7 * 3 + 6 * 2) + 24 + 24 + 13 * 11 + 16, 8 * (2 * 4 + 2) + 96),
    ),
    "image_grid": (
        lambda path: image_grid(path, IMAGES, columns=3, title="S"),
        (8 * (3 * 3 + 2) + 48, 8 * (3 * 4 + 2) + 96),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_png_of_the_stated_size(check_picture, name):
    check_picture(*PICTURES[name])


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        image_grid(path, IMAGES, columns=3, title="Samples")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("gap", [0, 1, 2])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_image_grid_shows_each_pixel_exactly(tmp_path, gap, channels):
    shape = (5, 4, 6) if channels is None else (5, 4, 6, channels)
    images = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    path = image_grid(
        tmp_path / "a.png", images / 255, columns=2, title="Samples", gap=gap
    )
    with Image.open(path) as png:
        pixels = np.asarray(png.convert("RGB"))
    height, width = 3 * 4 + 2 * gap, 2 * 6 + gap
    # 24 blank pixels left of and below the images, each pixel 8 x 8.
    bottom = len(pixels) - 24
    grid = pixels[bottom - 8 * height : bottom, 24 : 24 + 8 * width]
    blocks = grid.reshape(height, 8, width, 8, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    colour = images.reshape(5, 4, 6, -1) * np.ones(3, np.uint8)
    for i in range(6):
        top, left = i // 2 * (4 + gap), i % 2 * (6 + gap)
        shown = blocks[top : top + 4, 0, left : left + 6, 0]
        np.testing.assert_array_equal(shown, colour[i] if i < 5 else 255)


def test_reconstructions_are_below_their_originals(tmp_path):
    ones, zeros = np.ones((3, 28, 28)), np.zeros((3, 28, 28, 1))
    path = reconstructions(tmp_path / "a.png", zeros, ones[..., None])
    with Image.open(path) as png:
        pixels = np.asarray(png.convert("L"))
    column = pixels[72:-24, pixels.shape[1] - 24 - 8 * 14]
    assert (column[: 8 * 28] == 0).all()
    assert (column[8 * 28 :] == 255).all()


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_image_rows_shows_each_pixel_exactly_in_the_order_of_the_names(
    tmp_path, channels
):
    shape = (3, 4, 6) if channels is None else (3, 4, 6, channels)
    rows = np.random.default_rng(3).integers(0, 256, (5, *shape), np.uint8)
    names = ["truth", "seen", "draw 1", "draw 2", "mean"]
    given = {name: row / 255 for name, row in zip(names, rows, strict=True)}
    path = image_rows(tmp_path / "a.png", given, title="Rows")
    with Image.open(path) as png:
        pixels = np.asarray(png.convert("RGB"))
    height, width = 5 * 4 + 4 * 2, 3 * 6 + 2 * 2
    bottom, right = len(pixels) - 24, pixels.shape[1] - 24
    grid = pixels[bottom - 8 * height : bottom, right - 8 * width : right]
    blocks = grid.reshape(height, 8, width, 8, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    colour = rows.reshape(5, 3, 4, 6, -1) * np.ones(3, np.uint8)
    for row in range(5):
        for column in range(3):
            top, left = 6 * row, 8 * column
            shown = blocks[top : top + 4, 0, left : left + 6, 0]
            np.testing.assert_array_equal(shown, colour[row, column])
    # Each row has its name to the left of it, and nothing else is there.
    names_at = pixels[bottom - 8 * height : bottom, : right - 8 * width].min(
        axis=(1, 2)
    )
    for row in range(5):
        assert names_at[48 * row : 48 * row + 32].min() < 128
    for row in range(4):
        assert names_at[48 * row + 36 : 48 * row + 44].min() == 255


def test_rows_that_are_not_of_one_shape_are_refused(tmp_path):
    path = tmp_path / "a.png"
    for other in (IMAGES[:3], IMAGES[:, :2], IMAGES[:, :, :2]):
        with pytest.raises(ValueError, match="shape"):
            image_rows(path, {"seen": IMAGES, "mean": other}, title="Rows")
    with pytest.raises(ValueError, match=r"mean must be in \[0, 1\]"):
        image_rows(path, {"seen": IMAGES, "mean": 2 * IMAGES}, title="Rows")
    with pytest.raises(ValueError, match=r"mean must be \[n, H, W\]"):
        image_rows(path, {"seen": IMAGES, "mean": IMAGES[0]}, title="Rows")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 4, 4), 255.0), "divide bytes by 255"),
        (np.full((2, 4, 4), np.nan), r"must be in \[0, 1\]"),
        (np.zeros((4, 4)), r"must be \[n, H, W\]"),
        (np.zeros((2, 4, 4, 2)), "C 1 or 3"),
        (np.zeros((0, 4, 4)), "n at least 1"),
    ],
)
def test_images_that_are_not_images_are_refused(tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        image_grid(tmp_path / "a.png", images, columns=2, title="Samples")
    assert not list(tmp_path.iterdir())


def test_other_bad_arguments_are_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="columns >= 1"):
        image_grid(path, IMAGES, columns=0, title="Samples")
    with pytest.raises(ValueError, match="one shape"):
        reconstructions(path, IMAGES, IMAGES[:3])
    with pytest.raises(ValueError, match="at least 1"):
        manifold_points(0)
    assert not list(tmp_path.iterdir())


def test_manifold_points_have_equal_prior_mass_and_reading_order():
    n = 20
    points = manifold_points(n)
    assert (points.shape, points.dtype) == ((n * n, 2), np.float32)
    np.testing.assert_allclose(points, -points[::-1], atol=1e-6)
    grid = ndtr(points.astype(float)).reshape(n, n, 2)
    middles = (np.arange(n) + 0.5) / n
    np.testing.assert_allclose(grid[..., 0], np.tile(middles, (n, 1)), atol=1e-6)
    np.testing.assert_allclose(
        grid[..., 1], np.tile(middles[::-1, None], (1, n)), atol=1e-6
    )
