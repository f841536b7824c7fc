"""The chart of the latent space, of one, two and more dimensions."""

import numpy as np
import pytest

from experiments.reports.latent import _plane, latent_space

RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(200, 5)) * [0.1, 3.0, 0.2, 1.0, 0.1]
LABELS = np.arange(200) % 10
MANY = RNG.normal(size=(10_000, 2))  # as many as MNIST's test set

# One call of every kind, with the size in pixels that the file must have.
PICTURES = {
    "latent_1d": (
        lambda path: latent_space(path, MEANS[:, :1], LABELS),
        (1080, 660),
    ),
    "latent_1d_no_labels": (
        lambda path: latent_space(path, MEANS[:, :1], None),
        (1080, 660),
    ),
    "latent_2d": (
        lambda path: latent_space(path, MANY, np.arange(10_000) % 10),
        (1080, 930),
    ),
    "latent_5d_many_classes": (
        lambda path: latent_space(path, MEANS, np.arange(200) % 47),
        (1080, 930),
    ),
    "latent_collapsed": (
        lambda path: latent_space(path, np.zeros((3, 5)), None),
        (1080, 930),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_chart_is_a_png_of_the_stated_size(check_picture, name):
    check_picture(*PICTURES[name])


def test_bad_arguments_are_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="one class for each of the 200"):
        latent_space(path, MEANS, LABELS[:5])
    with pytest.raises(ValueError, match="non-empty"):
        latent_space(path, MEANS[0], None)
    assert not list(tmp_path.iterdir())


def test_the_projection_is_on_the_directions_of_most_variance():
    points, (first, second) = _plane(MEANS)
    axes = MEANS - MEANS.mean(axis=0)
    assert abs(np.corrcoef(points[:, 0], axes[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(points[:, 1], axes[:, 3])[0, 1]) > 0.99
    _, singular, _ = np.linalg.svd(axes)
    share = 100 * singular**2 / (singular**2).sum()
    np.testing.assert_allclose(points.var(axis=0) * 200, singular[:2] ** 2)
    assert first == f"principal component 1 of 5, {share[0]:.0f}% of variance"
    assert second == f"principal component 2 of 5, {share[1]:.0f}% of variance"
    mirrored, _ = _plane(-MEANS)
    np.testing.assert_allclose(mirrored, -points, atol=1e-12)
