"""Every dataset through one door: `load`, its counts, places and splits."""

import doctest
import errno
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.data.idx import MNIST_SHA256

REPO = Path(__file__).resolve().parents[3]
STEMS = tuple(MNIST_SHA256)


def test_bundled_mnist(mnist):
    assert mnist.name == "mnist"
    assert mnist.image_shape == (28, 28)
    for split, count in ((mnist.train, 50_000), (mnist.valid, 10_000)):
        assert split.images.shape == (count, 784)
        assert split.labels.shape == (count,)
    assert mnist.test.images.shape == (10_000, 784)
    for split in (mnist.train, mnist.valid, mnist.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert split.images.flags.c_contiguous
        assert not split.images.flags.writeable
        assert not split.labels.flags.writeable
    # Facts about MNIST that many have published.
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    whole = np.concatenate([mnist.train.images, mnist.valid.images])
    levels = np.arange(256) / 255
    weights = np.bincount(whole.ravel(), minlength=256) / whole.size
    assert round(weights @ levels, 4) == 0.1307
    assert round(weights @ levels**2 - (weights @ levels) ** 2, 3) == 0.095  # 0.3081²


def test_splits_are_the_last_and_the_first(mnist):
    small = data.load(num_valid=7, num_train=5, num_test=3)
    np.testing.assert_array_equal(small.train.images, mnist.train.images[:5])
    np.testing.assert_array_equal(small.train.labels, mnist.train.labels[:5])
    np.testing.assert_array_equal(small.valid.images, mnist.valid.images[-7:])
    np.testing.assert_array_equal(small.test.labels, mnist.test.labels[:3])
    assert small.sha256 == mnist.sha256  # of the data, however it is split
    everything = data.load(num_valid=0)
    assert everything.train.images.shape == (60_000, 784)
    assert everything.valid.images.shape == (0, 784)
    assert everything.valid.labels.shape == (0,)


MODULES = [
    "experiments.data",
    *(
        found.name
        for found in pkgutil.walk_packages(data.__path__, "experiments.data.")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_bundled_run_imports_little():
    code = (
        "import sys, experiments.data as d; d.load(num_train=1);"
        "unwanted = {'jax', 'scipy', 'tensorflow_datasets', 'tensorflow', 'absl'};"
        "print(unwanted & set(sys.modules))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ({"num_valid": 40}, "leaves no training points"),
        ({"num_train": 31}, "more than the 30 training points"),
        ({"num_test": 11}, "more than the 10 test points"),
        ({"num_valid": -1}, "num_valid=-1 is not a count"),
        ({"num_train": 1.5}, "num_train=1.5 is not a count"),
        ({"num_test": float("nan")}, "num_test=nan is not a count"),
    ],
)
def test_bad_counts(tmp_path, counts, match, fails, write_idx):
    fails(match, "digits", write_idx(tmp_path), **{"num_valid": 10, **counts})


def test_bad_places(tmp_path, monkeypatch, fails, write_idx):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    path = write_idx(tmp_path)
    fails("does not exist", "mnist", str(tmp_path / "nowhere"))
    fails("is a file, but", "mnist", str(tmp_path / f"{STEMS[0]}.gz"))
    (tmp_path / f"{STEMS[3]}.gz").unlink()
    fails(rf"{STEMS[3]} .*is missing in {tmp_path}", "mnist", path)
    (tmp_path / STEMS[3]).mkdir()
    fails("cannot be read .Is a directory", "digits", path)
    (tmp_path / "empty").mkdir()
    fails("no data of 'mnist'", "mnist", str(tmp_path / "empty"))
    fails("no data of 'no_such_set'", "no_such_set")
    fails("is not the name of a dataset", "../escape")
    fails("is not the name of a dataset", "")


def test_unreadable_file(tmp_path, monkeypatch, fails, write_idx):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    path = write_idx(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    fails("cannot be read .Permission denied", "digits", path)
    monkeypatch.setattr(Path, "is_dir", refuse)
    fails("cannot be read .Permission denied", "digits", path)
