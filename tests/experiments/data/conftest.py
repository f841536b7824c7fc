"""Small datasets on the disk, what damages them, and how they are compared."""

import gzip
import hashlib
import io
import random
import shutil
import struct
from collections import Counter

import numpy as np
import pytest

from experiments import data
from experiments.data import source
from experiments.data import tfds as reader
from experiments.data.idx import MNIST_SHA256
from experiments.errors import DataError

STEMS = tuple(MNIST_SHA256)


def _fails(match, *args, **kwargs):
    """`load` must refuse, in one line."""
    with pytest.raises(DataError, match=match) as info:
        data.load(*args, **kwargs)
    assert "\n" not in str(info.value)
    assert str(info.value).endswith(".")


@pytest.fixture
def fails():
    return _fails


def _idx(array):
    """Returns the bytes of an IDX file."""
    header = struct.pack(">I", 0x0800 + array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx():
    return _idx


def _small_arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 5), np.uint8)
    labels = rng.integers(0, 10, 50).astype(np.uint8)
    parts = images[:40], labels[:40], images[40:], labels[40:]
    return dict(zip(STEMS, parts, strict=True))


@pytest.fixture
def small_arrays():
    return _small_arrays()


def _write_idx(directory, name=lambda stem: stem + ".gz", **changes):
    """Writes a small dataset; `changes` gives other bytes for `images` or `labels`."""
    directory.mkdir(exist_ok=True)
    for stem, array in _small_arrays().items():
        raw = _idx(array)
        file = directory / name(stem)
        file.write_bytes(gzip.compress(raw, mtime=0) if file.suffix == ".gz" else raw)
    for part, content in changes.items():
        (
            directory / name(f"train-{part}-idx{3 - 2 * (part == 'labels')}-ubyte")
        ).write_bytes(content)
    return str(directory)


@pytest.fixture
def write_idx():
    return _write_idx


def _lies_on_disk(array):
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return isinstance(getattr(array, "obj", None), np.memmap)


@pytest.fixture
def lies_on_disk():
    return _lies_on_disk


def _snapshot(directory):
    return {
        file.relative_to(directory): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def snapshot():
    return _snapshot


def _restore(directory, files):
    for name in set(_snapshot(directory)) - set(files):
        (directory / name).unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def _inject(directory, read, num_flips=200, seed=0):
    """Damages the files in every way; returns what became of it, counted.

    Any other exception than `DataError` is raised, any wrong number is counted.
    """
    rng = random.Random(seed)
    files = _snapshot(directory)
    want = read()
    _restore(directory, files)
    faults = []
    names = list(files)
    # Record files are mostly padding: a quarter of the flips goes to the rest.
    filled = {k: np.flatnonzero(np.frombuffer(v, np.uint8)) for k, v in files.items()}
    for i in range(num_flips):
        name = names[i % len(names)]
        content = bytearray(files[name])
        places = range(len(content)) if i % 4 else filled[name]
        content[rng.choice(places)] ^= 1 << rng.randrange(8)
        faults.append((name, bytes(content)))
    for name in names:
        for percent in (0, 1, 25, 50, 99):
            faults.append((name, files[name][: len(files[name]) * percent // 100]))
        faults.append((name, None))
    outcomes = Counter()
    for name, content in faults:
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)
        try:
            got = read()
        except DataError:
            outcomes["refused"] += 1
        else:
            outcomes["right" if _same(got, want) else f"WRONG {name}"] += 1
            _restore(directory, files)  # a good read may have kept its arrays
        (directory / name).write_bytes(files[name])
    assert sum(outcomes.values()) == num_flips + 6 * len(files)
    return outcomes


@pytest.fixture
def inject():
    return _inject


def _same(a, b):
    """Whether two datasets hold the same numbers, looked at one by one."""
    for x, y in ((a.train, b.train), (a.valid, b.valid), (a.test, b.test)):
        if (x.labels is None) != (y.labels is None):
            return False
        if not np.array_equal(x.images, y.images):
            return False
        if x.labels is not None and not np.array_equal(x.labels, y.labels):
            return False
    return a.image_shape == b.image_shape and a.sha256 == b.sha256


@pytest.fixture
def same():
    return _same


def _digits(split):
    """Returns images [N, 9, 7] and labels [N] that any reader can be held to."""
    count, seed = {"train": (20, 0), "validation": (6, 1), "test": (8, 2)}[split]
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 9, 7), np.uint8), np.arange(count) % 10


@pytest.fixture
def digits():
    return _digits


def _read(data_dir, name="mini_digits"):
    return data.load(name, str(data_dir), num_valid=6)


@pytest.fixture
def read():
    return _read


@pytest.fixture
def as_mnist(monkeypatch):
    """Lets the small dataset be the one whose sums are known."""
    for stem, array in _small_arrays().items():
        monkeypatch.setitem(
            MNIST_SHA256,
            stem,
            hashlib.sha256(_idx(array)).hexdigest(),
        )


@pytest.fixture
def all_mapped(monkeypatch):
    """Even small files count as too large for memory."""
    monkeypatch.setattr(source, "MAPPED_BYTES", 0)


@pytest.fixture(scope="session")
def tfds():
    tfds = pytest.importorskip("tensorflow_datasets")

    class MiniDigits(tfds.core.GeneratorBasedBuilder):
        """Encoded images: no TensorFlow is needed to prepare them."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(9, 7, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples("train"),
                "validation": self._generate_examples("validation"),
                "test": self._generate_examples("test"),
            }

        def _generate_examples(self, split):
            from PIL import Image

            images, labels = _digits(split)
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                png = io.BytesIO()
                Image.fromarray(image).save(png, "png")
                yield i, {"image": io.BytesIO(png.getvalue()), "label": label}

    class MiniArrays(MiniDigits):
        """Plain arrays in colour, no labels, several shapes or types on demand."""

        shape = (4, 5, 3)
        values = np.uint8

        def _info(self):
            shape = (None, 5, 3) if self.shape is None else self.shape
            image = tfds.features.Tensor(shape=shape, dtype=self.values)
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, split):
            for i in range(5):
                shape = self.shape or (4 + i, 5, 3)
                yield i, {"image": np.full(shape, 50 * (i % 2), self.values)}

    class MiniArraysRagged(MiniArrays):
        shape = None

    class MiniArraysFloat(MiniArrays):
        values = np.float32

    class MiniArraysBinary(MiniArrays):
        def _generate_examples(self, split):
            for i in range(5):
                yield i, {"image": np.full(self.shape, i % 2, np.uint8)}

    class MiniNeedsTensorflow(MiniDigits):
        def _generate_examples(self, split):
            yield 0, {"image": _digits(split)[0][0][..., None], "label": 0}

    return tfds


@pytest.fixture(scope="session")
def prepared(tfds, tmp_path_factory):
    """A data directory with mini_digits in it, and what is read from it first."""
    data_dir = tmp_path_factory.mktemp("tfds")
    directory = reader.prepare("mini_digits", data_dir)
    assert directory == data_dir / "mini_digits/1.0.0"
    return data_dir


@pytest.fixture
def copied(prepared, tmp_path):
    """A fresh copy of the prepared files; the record of no earlier read is in it."""
    ignore = shutil.ignore_patterns("aevb_arrays.*")
    shutil.copytree(prepared / "mini_digits", tmp_path / "mini_digits", ignore=ignore)
    return tmp_path


@pytest.fixture(scope="session")
def mnist():
    return data.load()
