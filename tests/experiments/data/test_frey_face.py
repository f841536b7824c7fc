"""Frey Face, and whatever else is called `.mat`."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from experiments import data
from experiments.data import frey_face
from experiments.data.frey_face import FREY_FACE_SHA256
from experiments.data.source import digest

# The original is not part of the project; the two places are where it may be.
FREY_FACE = Path(
    os.environ.get("AEVB_FREY_FACE")
    or Path(__file__).resolve().parents[4] / "shared/data/frey_face/frey_rawface.mat"
)


def frames(dtype=np.uint8, shape=(560, 1965)):
    return np.random.default_rng(1).integers(0, 256, shape).astype(dtype)


def write_mat(file, compress=False, **variables):
    scipy.io.savemat(file, variables, do_compression=compress)
    return str(file)


@pytest.fixture
def as_frey_face(monkeypatch):
    columns = np.ascontiguousarray(frames().T).reshape(1965, 28, 20)
    sum_ = digest({"frames": columns})
    monkeypatch.setattr(frey_face, "FREY_FACE_SHA256", sum_)


def test_frey_face():
    if not FREY_FACE.exists():
        pytest.skip(
            f"no Frey Face in {FREY_FACE}: set AEVB_FREY_FACE to the path of "
            "frey_rawface.mat"
        )
    got = data.load("frey_face", str(FREY_FACE), num_valid=200)
    assert got.image_shape == (28, 20)
    counts = [len(split.images) for split in got[2:5]]
    assert counts == [1400, 200, 365]
    assert got.train.labels is None
    everything = np.concatenate([split.images for split in got[2:5]])
    original = scipy.io.loadmat(FREY_FACE)["ff"].T
    assert len(np.unique(everything, axis=0)) == len(np.unique(original, axis=0))
    assert (everything.min(), everything.max()) == (8, 238)
    assert got.sha256 == FREY_FACE_SHA256
    again = data.load("frey_face", str(FREY_FACE.parent), num_valid=0)
    np.testing.assert_array_equal(again.test.images, got.test.images)
    # Right rows and columns: a face is smooth down its columns, a wrong shape is not.
    steps = {
        shape: abs(
            np.diff(got.test.images.reshape(-1, *shape).astype(int), axis=1)
        ).mean()
        for shape in ((28, 20), (20, 28), (35, 16), (16, 35))
    }
    assert min(steps, key=steps.get) == (28, 20)


def test_frey_face_by_another_name(tmp_path, fails):
    path = write_mat(tmp_path / "mine.mat", ff=frames())
    got = data.load("mine", path, num_valid=100)
    assert [len(split.images) for split in got[2:5]] == [1500, 100, 365]
    order = np.random.RandomState(0).permutation(1965)
    np.testing.assert_array_equal(got.test.images, frames().T[order[1600:]])
    fails("is not Frey Face's", "frey_face", path, num_valid=0)


def test_bad_mat(tmp_path, fails):
    file = tmp_path / "frey_rawface.mat"
    fails("is not bundled", "frey_face")
    fails("has neither frey_rawface.mat nor a dataset", "frey_face", str(tmp_path))
    fails("frey_rawface.mat does not exist", "frey_face", str(file))
    for content, match in (
        (b"", "is empty"),
        (b"<html>not found", "is an HTML page"),
        (b"some text " * 99, "not a MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(999), "not a MATLAB file"),
    ):
        file.write_bytes(content)
        fails(match, "frey_face", str(file))
    for variables, match in (
        ({"gg": frames()}, r"has the variables \['gg'\]"),
        ({"ff": frames(float)}, "is float64 of shape"),
        ({"ff": frames().T}, r"uint8 of shape \(1965, 560\)"),
        ({"ff": frames()[:, 1:]}, r"uint8 of shape \(560, 1964\)"),
        ({"ff": frames() % 2}, "pixels from 0 to 1"),
        ({"ff": "text"}, "expected uint8"),
    ):
        path = write_mat(file, **variables)
        fails(match, "mine", path)
    write_mat(file, ff=frames())
    fails("num_valid=10000 leaves no", "mine", str(file))


@pytest.mark.parametrize(("compress", "num_flips"), [(False, 200), (True, 60)])
def test_faults_in_mat(tmp_path, as_frey_face, compress, num_flips, inject):
    path = write_mat(tmp_path / "frey_rawface.mat", compress, ff=frames())
    got = inject(tmp_path, lambda: data.load("frey_face", path, num_valid=9), num_flips)
    assert set(got) <= {"refused", "right"}, got
    assert got["refused"] > 0.9 * num_flips
