"""The constant Gaussian of every pixel, and the floor of the variance."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import data
from experiments.data import Dataset, Split
from experiments.reproduction.frey import constant_gaussian

FREY_FACE = Path(
    os.environ.get("AEVB_FREY_FACE")
    or Path(__file__).resolve().parents[4] / "shared/data/frey_face/frey_rawface.mat"
)


def dataset() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 4)).astype(np.uint8)
    images[:, 3] = 7  # a pixel that never changes
    splits = [
        Split(images[:40], None),
        Split(images[:0], None),
        Split(images[40:], None),
    ]
    return Dataset("noise", (2, 2), *splits, "", "")


def test_the_constant_gaussian_is_the_maximum_likelihood_one():
    made = dataset()
    floor = 0.01
    train, test = constant_gaussian(made, scale=256, min_scale=floor)
    pixels = made.train.images / 256
    loc, scale = pixels.mean(axis=0), np.maximum(pixels.std(axis=0), floor)
    for found, split in ((train, made.train), (test, made.test)):
        truth = stats.norm.logpdf(split.images / 256, loc, scale).sum(axis=1).mean()
        assert found == pytest.approx(truth, rel=1e-9)


def test_a_lower_floor_is_a_higher_score_without_end():
    scores = [
        constant_gaussian(dataset(), scale=256, min_scale=floor)[0]
        for floor in (1e-2, 1e-4, 1e-6)
    ]
    assert np.diff(scores) == pytest.approx([np.log(100)] * 2, rel=1e-6)


def test_the_paper_s_wake_sleep_stands_at_the_constant_gaussian():
    """Fig. 2: 578 on the training frames, 569 on the test frames."""
    if not FREY_FACE.exists():
        pytest.skip(f"no Frey Face in {FREY_FACE}: set AEVB_FREY_FACE to its path")
    frames = data.load("frey_face", str(FREY_FACE), num_valid=0)
    train, test = constant_gaussian(frames, scale=256, min_scale=1 / 256 / 12**0.5)
    assert train == pytest.approx(578.5, abs=1.0)
    assert test == pytest.approx(569.3, abs=1.0)
