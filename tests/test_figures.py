"""The pictures: what they hold, at which size, and that they never depend on luck."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.special import ndtr

from experiments import figures, paper_curves
from experiments.paper_curves import Curve


def _bound(x):
    return -103.0 - 100.0 * np.exp(-np.asarray(x) / 2e6)


X = np.linspace(5e4, 1e7, 60)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(7, 4, 3))
MEANS = RNG.normal(size=(200, 5)) * [0.1, 3.0, 0.2, 1.0, 0.1]
LABELS = np.arange(200) % 10
MANY = RNG.normal(size=(10_000, 2))  # as many as MNIST's test set

# One call of every kind of picture, with the size it must have.
PICTURES = {
    "learning_curve": (
        lambda path: figures.learning_curve(
            path,
            [Curve("train", X, _bound(X)), Curve("test", X, _bound(X) - 1, True)],
            reference=paper_curves.paper_figure2(20),
            xlabel="training samples",
            ylabel="bound (nats)",
        ),
        (1080, 720),
    ),
    "one_epoch": (
        lambda path: figures.learning_curve(
            path, [Curve("train", [1], [-540.0])], xlabel="epoch", ylabel="nats"
        ),
        (1080, 720),
    ),
    "kl_per_dimension": (
        lambda path: figures.kl_per_dimension(path, [0.0, 2.5, 0.003], threshold=0.01),
        (1080, 630),
    ),
    "kl_collapsed": (
        lambda path: figures.kl_per_dimension(path, np.zeros(50), threshold=0.01),
        (1080, 630),
    ),
    "latent_1d": (
        lambda path: figures.latent_space(path, MEANS[:, :1], LABELS),
        (1080, 660),
    ),
    "latent_1d_no_labels": (
        lambda path: figures.latent_space(path, MEANS[:, :1], None),
        (1080, 660),
    ),
    "latent_2d": (
        lambda path: figures.latent_space(path, MANY, np.arange(10_000) % 10),
        (1080, 930),
    ),
    "latent_5d_many_classes": (
        lambda path: figures.latent_space(path, MEANS, np.arange(200) % 47),
        (1080, 930),
    ),
    "latent_collapsed": (
        lambda path: figures.latent_space(path, np.zeros((3, 5)), None),
        (1080, 930),
    ),
    "reconstructions": (
        lambda path: figures.reconstructions(path, IMAGES, 1 - IMAGES),
        (8 * (7 * 3 + 6 * 2) + 24 + 222, 8 * (2 * 4 + 2) + 96),
    ),
    "image_grid": (
        lambda path: figures.image_grid(path, IMAGES, columns=3, title="S"),
        (8 * (3 * 3 + 2) + 48, 8 * (3 * 4 + 2) + 96),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_png_of_the_stated_size(tmp_path, name):
    draw, size = PICTURES[name]
    path = draw(tmp_path / "figures" / f"{name}.png")
    assert path == tmp_path / "figures" / f"{name}.png"
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", size)
        assert image.info.keys() <= {"transparency"}  # no date, no version
        assert image.convert("L").getextrema()[0] < 128  # something is drawn
    assert path.stat().st_size < 300_000
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["learning_curve", "latent_collapsed", "image_grid"])
def test_the_same_arrays_give_the_same_bytes(tmp_path, name):
    draw, _ = PICTURES[name]
    first, second = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.image_grid(path, IMAGES, columns=3, title="Samples")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_drawing_needs_no_pyplot_and_changes_no_settings(tmp_path):
    program = f"""
import sys, matplotlib
before = matplotlib.rcParams.copy()
from experiments import figures
figures.kl_per_dimension({str(tmp_path / "a.png")!r}, [1.0], threshold=0.01)
assert "matplotlib.pyplot" not in sys.modules
names = set(before) - {{"backend"}}  # chosen, with pyplot, when it is looked at
assert [name for name in names if matplotlib.rcParams[name] != before[name]] == []
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.parametrize("gap", [0, 1, 2])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_image_grid_shows_each_pixel_exactly(tmp_path, gap, channels):
    shape = (5, 4, 6) if channels is None else (5, 4, 6, channels)
    images = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    path = figures.image_grid(
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
    path = figures.reconstructions(tmp_path / "a.png", zeros, ones[..., None])
    with Image.open(path) as png:
        pixels = np.asarray(png.convert("L"))
    column = pixels[72:-24, pixels.shape[1] - 24 - 8 * 14]
    assert (column[: 8 * 28] == 0).all()
    assert (column[8 * 28 :] == 255).all()


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
        figures.image_grid(tmp_path / "a.png", images, columns=2, title="Samples")
    assert not list(tmp_path.iterdir())


def test_other_bad_arguments_are_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="columns >= 1"):
        figures.image_grid(path, IMAGES, columns=0, title="Samples")
    with pytest.raises(ValueError, match="one shape"):
        figures.reconstructions(path, IMAGES, IMAGES[:3])
    with pytest.raises(ValueError, match="1 not finite"):
        figures.kl_per_dimension(path, [1.0, np.nan], threshold=0.01)
    with pytest.raises(ValueError, match="one class for each of the 200"):
        figures.latent_space(path, MEANS, LABELS[:5])
    with pytest.raises(ValueError, match="non-empty"):
        figures.latent_space(path, MEANS[0], None)
    with pytest.raises(ValueError, match="vectors of one length"):
        figures.learning_curve(path, [Curve("a", [1, 2], [3])], xlabel="", ylabel="")
    with pytest.raises(ValueError, match="no curve has a finite point"):
        figures.learning_curve(path, [Curve("a", [1], [np.nan])], xlabel="", ylabel="")
    with pytest.raises(ValueError, match="at least 1"):
        figures.manifold_points(0)


@pytest.mark.parametrize("log_x", [True, False])
def test_a_bad_start_does_not_squeeze_the_curve(log_x):
    epoch = np.arange(1.0, 101.0)
    bound = -86 - 60 / epoch
    bound[0] = -1e5
    low, high = figures._readable_limits(epoch, bound, log_x)
    assert high == bound.max()
    assert -130 < low < np.median(bound)
    # Nor does a spike above a falling curve.
    low, high = figures._readable_limits(epoch, -bound, log_x)
    assert low == -bound.max()
    assert np.median(-bound) < high < 130


def test_a_curve_without_outliers_is_shown_whole():
    x = np.linspace(1.0, 10.0, 30)
    assert figures._readable_limits(x, -100 + x, False) == (-99.0, -90.0)


def test_a_dashed_curve_pairs_with_the_solid_one_before_it():
    solid, dashed = Curve("a", [1], [1]), Curve("b", [1], [1], dashed=True)
    curves = [solid, dashed, dashed, solid]
    styles = figures._styles(curves, figures._LINES, 1.0)
    first, second, third, fourth = (style["color"] for style in styles)
    assert first == second
    assert len({second, third, fourth}) == 3


def test_the_projection_is_on_the_directions_of_most_variance():
    points, (first, second) = figures._plane(MEANS)
    axes = MEANS - MEANS.mean(axis=0)
    assert abs(np.corrcoef(points[:, 0], axes[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(points[:, 1], axes[:, 3])[0, 1]) > 0.99
    _, singular, _ = np.linalg.svd(axes)
    share = 100 * singular**2 / (singular**2).sum()
    np.testing.assert_allclose(points.var(axis=0) * 200, singular[:2] ** 2)
    assert first == f"principal component 1 of 5, {share[0]:.0f}% of variance"
    assert second == f"principal component 2 of 5, {share[1]:.0f}% of variance"
    mirrored, _ = figures._plane(-MEANS)
    np.testing.assert_allclose(mirrored, -points, atol=1e-12)


def test_paper_figure2_holds_the_published_numbers():
    train, test, *wake_sleep = paper_curves.paper_figure2(20)
    assert (train.label, train.dashed) == ("paper: AEVB, train", False)
    assert (test.label, test.dashed) == ("paper: AEVB, test", True)
    assert np.interp(1e7, test.x, test.y) == pytest.approx(-104.8, abs=0.1)
    assert np.interp(1e7, train.x, train.y) == pytest.approx(-104.2, abs=0.1)
    assert np.interp(1e7, wake_sleep[1].x, wake_sleep[1].y) == pytest.approx(
        -108.3, 0.1
    )
    frey_face = paper_curves.paper_figure2(10, "freyface")[1]
    assert np.interp(1e7, frey_face.x, frey_face.y) == pytest.approx(1171, abs=1)
    assert all((np.diff(c.x) > 0).all() for c in (train, test, *wake_sleep))


def test_paper_figure3_holds_the_published_numbers():
    curves = {curve.label: curve for curve in paper_curves.paper_figure3(50_000)}
    assert len(curves) == 6
    test = curves["paper: AEVB, test"]
    assert np.interp(30e6, test.x, test.y) == pytest.approx(-139.7, abs=0.1)
    small = {curve.label: curve for curve in paper_curves.paper_figure3(1000)}
    mcem = small["paper: MCEM, train"]
    assert np.interp(10e6, mcem.x, mcem.y) == pytest.approx(-118.3, abs=0.1)


def test_a_panel_the_paper_lacks_is_an_error_that_lists_those_it_has():
    with pytest.raises(ValueError, match=r"n_z=7 .*\[3, 5, 10, 20, 200\]"):
        paper_curves.paper_figure2(7)
    with pytest.raises(ValueError, match=r"'freyface' with n_z in \[2, 5, 10, 20\]"):
        paper_curves.paper_figure2(3, "freyface")
    with pytest.raises(ValueError, match=r"num_train=60000; it has \[1000, 50000\]"):
        paper_curves.paper_figure3(60_000)


def test_manifold_points_have_equal_prior_mass_and_reading_order():
    n = 20
    points = figures.manifold_points(n)
    assert (points.shape, points.dtype) == ((n * n, 2), np.float32)
    np.testing.assert_allclose(points, -points[::-1], atol=1e-6)
    grid = ndtr(points.astype(float)).reshape(n, n, 2)
    middles = (np.arange(n) + 0.5) / n
    np.testing.assert_allclose(grid[..., 0], np.tile(middles, (n, 1)), atol=1e-6)
    np.testing.assert_allclose(
        grid[..., 1], np.tile(middles[::-1, None], (1, n)), atol=1e-6
    )


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(figures).failed == 0
