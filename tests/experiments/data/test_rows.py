"""Rows of data that lie on the disk."""

import errno
import os

import numpy as np
import pytest

from experiments import data
from experiments.data import rows
from experiments.errors import DataError


def failing(error):
    """A type of array of which no row can be read."""

    class Failing(np.ndarray):
        def __getitem__(self, index):
            raise error

    return Failing


def test_rows_are_those_of_the_indices():
    images = np.arange(60, dtype=np.uint8).reshape(20, 3)
    indices = np.random.default_rng(0).integers(0, 20, (4, 5))
    np.testing.assert_array_equal(data.read_rows(images, indices), images[indices])
    none = data.read_rows(images, indices[:0])
    assert none.shape == (0, 5, 3)


def test_rows_are_read_in_the_order_of_the_disk():
    seen = []

    class Rows(np.ndarray):
        def __getitem__(self, index):
            seen.append(index.tolist())
            return np.asarray(self)[index]

    images = np.arange(8, dtype=np.uint8).reshape(4, 2)
    got = data.read_rows(images.view(Rows), np.array([3, 0, 2, 0]))
    assert seen == [[0, 0, 2, 3]]
    np.testing.assert_array_equal(got, images[[3, 0, 2, 0]])


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (
            OSError(errno.EIO, os.strerror(errno.EIO)),
            r"mapped\.bin cannot be read",
        ),
        (OSError(errno.EIO, "gone", "/mnt/images"), r"/mnt/images cannot .* \(gone\)"),
        (OSError("no number"), r"cannot be read \(OSError: no number\)"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path, error, match):
    (tmp_path / "mapped.bin").write_bytes(bytes(8))
    mapped = np.memmap(tmp_path / "mapped.bin", np.uint8, mode="r").reshape(4, 2)
    with pytest.raises(DataError, match=match) as info:
        data.read_rows(mapped.view(failing(error)), np.array([3, 0]))
    assert "expected 2 of its rows" in str(info.value)
    with pytest.raises(DataError, match="cannot be read"):
        data.read_rows(np.zeros((4, 2)).view(failing(error)), np.array([3, 0]))


def test_the_file_of_mapped_idx_images_is_named(tmp_path, write_idx, all_mapped):
    path = write_idx(tmp_path, lambda stem: stem)
    images = data.load("digits", path, num_valid=0).train.images
    assert rows._file(images) == str(tmp_path / "train-images-idx3-ubyte")
    assert rows._file(np.zeros(3)) == ""
