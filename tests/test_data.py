"""Every dataset through one door, and nothing damaged through it."""

import doctest
import errno
import gzip
import io
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from experiments import data, data_files, tfds_source

REPO = Path(__file__).resolve().parents[1]
STEMS = tuple(data_files.MNIST_SHA256)
FREY_FACE = Path(
    os.environ.get("AEVB_FREY_FACE")
    or REPO.parent / "shared/data/frey_face/frey_rawface.mat"
)


def fails(match, *args, **kwargs):
    """`load` must refuse, in one line, in less than a second, leaving nothing."""
    start = time.perf_counter()
    with pytest.raises(data.DataError, match=match) as info:
        data.load(*args, **kwargs)
    assert time.perf_counter() - start < 1.0
    assert "\n" not in str(info.value)
    assert str(info.value).endswith(".")


# ---- bundled MNIST ----


@pytest.fixture(scope="module")
def mnist():
    return data.load()


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


def test_notices_of_the_bundled_files():
    lines = (data_files.BUNDLED / "SHA256SUMS").read_text().splitlines()
    sums = {name: sum_ for sum_, name in (line.split() for line in lines)}
    assert sums == data_files.MNIST_SHA256
    assert "CC BY-SA 3.0" in (data_files.BUNDLED / "README.md").read_text()


def test_doctests():
    assert doctest.testmod(data).failed == 0


def test_bundled_run_imports_little():
    code = (
        "import sys, experiments.data as d; d.load(num_train=1);"
        "unwanted = {'jax', 'scipy', 'tensorflow_datasets', 'tensorflow', 'absl'};"
        "print(unwanted & set(sys.modules))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# ---- IDX files ----


def idx(array, magic=None):
    header = struct.pack(">I", magic or 0x0800 + array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def small_arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 5), np.uint8)
    labels = rng.integers(0, 10, 50).astype(np.uint8)
    parts = images[:40], labels[:40], images[40:], labels[40:]
    return dict(zip(STEMS, parts, strict=True))


def write_idx(directory, name=lambda stem: stem + ".gz", **changes):
    """Writes a small dataset; `changes` gives other bytes for `images` or `labels`."""
    directory.mkdir(exist_ok=True)
    for stem, array in small_arrays().items():
        raw = idx(array)
        file = directory / name(stem)
        file.write_bytes(gzip.compress(raw, mtime=0) if file.suffix == ".gz" else raw)
    for part, content in changes.items():
        (
            directory / name(f"train-{part}-idx{3 - 2 * (part == 'labels')}-ubyte")
        ).write_bytes(content)
    return str(directory)


@pytest.fixture
def as_mnist(monkeypatch):
    """Lets the small dataset be the one whose sums are known."""
    for stem, array in small_arrays().items():
        monkeypatch.setitem(
            data_files.MNIST_SHA256,
            stem,
            data_files.hashlib.sha256(idx(array)).hexdigest(),
        )


@pytest.mark.parametrize(
    "name",
    [
        lambda stem: stem,
        lambda stem: stem + ".gz",
        lambda stem: stem.replace("-idx", ".idx"),
        lambda stem: stem.replace("-idx", ".idx") + ".gz",
    ],
)
def test_idx_files_of_any_dataset(tmp_path, name):
    got = data.load("digits", write_idx(tmp_path, name), num_valid=10)
    arrays = small_arrays()
    assert got.image_shape == (6, 5)
    assert str(tmp_path) in got.source
    images = np.concatenate([got.train.images, got.valid.images]).reshape(-1, 6, 5)
    np.testing.assert_array_equal(images, arrays[STEMS[0]])
    np.testing.assert_array_equal(got.valid.labels, arrays[STEMS[1]][30:])
    np.testing.assert_array_equal(got.test.images.reshape(-1, 6, 5), arrays[STEMS[2]])
    np.testing.assert_array_equal(got.test.labels, arrays[STEMS[3]])


@pytest.fixture
def all_mapped(monkeypatch):
    """Even small files count as too large for memory."""
    monkeypatch.setattr(data_files, "MAPPED_BYTES", 0)


def lies_on_disk(array):
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return isinstance(getattr(array, "obj", None), np.memmap)


def test_large_idx_files_stay_on_the_disk(tmp_path, as_mnist, request):
    place = write_idx(tmp_path, lambda stem: stem)
    read = data.load("mnist", place, num_valid=10)
    assert not lies_on_disk(read.train.images)
    request.getfixturevalue("all_mapped")
    mapped = data.load("mnist", place, num_valid=10)
    assert same(mapped, read)
    assert all(lies_on_disk(split.images) for split in mapped[2:5])


def test_unpacked_file_that_kept_its_gz_name(tmp_path):
    path = write_idx(tmp_path, images=idx(small_arrays()[STEMS[0]]))
    assert len(data.load("digits", path, num_valid=0).train.images) == 40


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
def test_bad_counts(tmp_path, counts, match):
    fails(match, "digits", write_idx(tmp_path), **{"num_valid": 10, **counts})


IMAGES, LABELS, *_ = small_arrays().values()
GOOD = gzip.compress(idx(IMAGES), mtime=0)
BAD_IDX = {
    "empty": ({"images": b""}, "is empty"),
    "html": ({"images": b"\n <!DOCTYPE html><html>404"}, "is an HTML page"),
    "truncated gzip": ({"images": GOOD[:-100]}, "truncated gzip"),
    "crc": ({"images": GOOD[:-8] + b"\0" + GOOD[-7:]}, "damaged gzip.*CRC"),
    "garbage after gzip": ({"images": GOOD + b"xyz"}, "damaged gzip"),
    "text": ({"images": b"not data at all, " * 9}, "starts with 0x6e6f7420"),
    "magic": ({"images": idx(IMAGES, 0x0803 + 0x0A00)}, "magic number 0x00000803"),
    "images as labels": ({"labels": GOOD}, "magic number 0x00000801"),
    "no header": ({"images": idx(IMAGES)[:10]}, "less than the 16"),
    "too few bytes": ({"images": idx(IMAGES)[:-1]}, "1199 bytes .* 40 x 6 x 5"),
    "trailing bytes": ({"images": idx(IMAGES) + b"\0"}, "1201 bytes .* 40 x 6 x 5"),
    "no images": ({"images": idx(IMAGES[:0])}, "header says 0 x 6 x 5"),
    "counts": ({"labels": idx(LABELS[1:])}, "40 images, .* 39 labels"),
    "shapes": ({"images": idx(IMAGES[:, 1:])}, "not of one dataset"),
    "binary": ({"images": idx(IMAGES % 2)}, "multiply binary pixels by 255"),
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx(tmp_path, case, size, request):
    if size == "large":
        request.getfixturevalue("all_mapped")
    changes, match = BAD_IDX[case]
    path = write_idx(tmp_path, **changes)
    before = snapshot(tmp_path)
    fails(match, "digits", path, num_valid=0)
    assert snapshot(tmp_path) == before


def test_mnist_by_name_must_be_mnist(tmp_path, as_mnist):
    write_idx(tmp_path)
    assert len(data.load("mnist", str(tmp_path), num_valid=0).train.images) == 40
    write_idx(tmp_path, images=idx(IMAGES ^ 1))
    fails("is not MNIST's", "mnist", str(tmp_path), num_valid=0)
    data.load("other", str(tmp_path), num_valid=0)
    write_idx(tmp_path, labels=idx(LABELS + 1))
    fails("has a label 10", "mnist", str(tmp_path), num_valid=0)


def test_bad_places(tmp_path, monkeypatch):
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


def test_unreadable_file(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    path = write_idx(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    fails("cannot be read .Permission denied", "digits", path)
    monkeypatch.setattr(Path, "is_dir", refuse)
    fails("cannot be read .Permission denied", "digits", path)


# ---- faults: whatever happens to a file, the numbers are right or there are none ----


def snapshot(directory):
    return {
        file.relative_to(directory): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def restore(directory, files):
    for name in set(snapshot(directory)) - set(files):
        (directory / name).unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def inject(directory, read, num_flips=200, seed=0):
    """Damages the files in every way; returns what became of it, counted.

    Any other exception than `DataError` is raised, any wrong number is counted.
    """
    rng = random.Random(seed)
    files = snapshot(directory)
    want = read()
    restore(directory, files)
    faults = []
    names = list(files)
    # Record files are mostly padding: a quarter of the flips goes to what is not.
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
        except data.DataError:
            outcomes["refused"] += 1
        else:
            outcomes["right" if same(got, want) else f"WRONG {name}"] += 1
            restore(directory, files)  # a good read may have kept its arrays
        (directory / name).write_bytes(files[name])
    assert sum(outcomes.values()) == num_flips + 6 * len(files)
    return outcomes


def same(a, b):
    """Whether two datasets hold the same numbers, looked at one by one."""
    for x, y in ((a.train, b.train), (a.valid, b.valid), (a.test, b.test)):
        if (x.labels is None) != (y.labels is None):
            return False
        if not np.array_equal(x.images, y.images):
            return False
        if x.labels is not None and not np.array_equal(x.labels, y.labels):
            return False
    return a.image_shape == b.image_shape and a.sha256 == b.sha256


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_faults_in_known_idx_files(tmp_path, as_mnist, gz):
    path = write_idx(tmp_path, lambda stem: stem + gz)
    got = inject(tmp_path, lambda: data.load("mnist", path, num_valid=9))
    assert set(got) <= {"refused", "right"}, got
    assert got["refused"] >= (200 if gz else 224)  # gzip's header has idle bits


def test_faults_in_unknown_gzip_idx_files(tmp_path):
    path = write_idx(tmp_path)
    got = inject(tmp_path, lambda: data.load("digits", path, num_valid=9))
    assert set(got) <= {"refused", "right"}, got


def test_faults_in_a_copy_of_mnist(tmp_path, mnist):
    rng = random.Random(0)
    for stem in STEMS:
        shutil.copy(data_files.BUNDLED / f"{stem}.gz", tmp_path)
    for stem in STEMS:
        file = tmp_path / f"{stem}.gz"
        content = file.read_bytes()
        bad = bytearray(content)
        bad[rng.randrange(100, len(bad))] ^= 1 << rng.randrange(8)
        for damaged in (bytes(bad), content[: len(content) // 2]):
            file.write_bytes(damaged)
            with pytest.raises(data.DataError, match=stem):
                data.load("mnist", str(tmp_path))
        file.write_bytes(content)
    assert data.load("mnist", str(tmp_path)).sha256 == mnist.sha256


# ---- Frey Face ----


def frames(dtype=np.uint8, shape=(560, 1965)):
    return np.random.default_rng(1).integers(0, 256, shape).astype(dtype)


def write_mat(file, compress=False, **variables):
    scipy.io.savemat(file, variables, do_compression=compress)
    return str(file)


@pytest.fixture
def as_frey_face(monkeypatch):
    columns = np.ascontiguousarray(frames().T).reshape(1965, 28, 20)
    sum_ = data_files.digest({"frames": columns})
    monkeypatch.setattr(data_files, "FREY_FACE_SHA256", sum_)


def test_frey_face():
    if not FREY_FACE.exists():
        pytest.skip("no Frey Face: set AEVB_FREY_FACE to the path of frey_rawface.mat")
    got = data.load("frey_face", str(FREY_FACE), num_valid=200)
    assert got.image_shape == (28, 20)
    counts = [len(split.images) for split in got[2:5]]
    assert counts == [1400, 200, 365]
    assert got.train.labels is None
    everything = np.concatenate([split.images for split in got[2:5]])
    original = scipy.io.loadmat(FREY_FACE)["ff"].T
    assert len(np.unique(everything, axis=0)) == len(np.unique(original, axis=0))
    assert (everything.min(), everything.max()) == (8, 238)
    assert got.sha256 == data_files.FREY_FACE_SHA256
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


def test_frey_face_by_another_name(tmp_path):
    path = write_mat(tmp_path / "mine.mat", ff=frames())
    got = data.load("mine", path, num_valid=100)
    assert [len(split.images) for split in got[2:5]] == [1500, 100, 365]
    order = np.random.RandomState(0).permutation(1965)
    np.testing.assert_array_equal(got.test.images, frames().T[order[1600:]])
    fails("is not Frey Face's", "frey_face", path, num_valid=0)


def test_bad_mat(tmp_path):
    file = tmp_path / "frey_rawface.mat"
    fails("is not bundled", "frey_face")
    fails("frey_rawface.mat does not exist", "frey_face", str(tmp_path))
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
def test_faults_in_mat(tmp_path, as_frey_face, compress, num_flips):
    path = write_mat(tmp_path / "frey_rawface.mat", compress, ff=frames())
    got = inject(tmp_path, lambda: data.load("frey_face", path, num_valid=9), num_flips)
    assert set(got) <= {"refused", "right"}, got
    assert got["refused"] > 0.9 * num_flips


# ---- tensorflow-datasets ----


@pytest.fixture(scope="module")
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

            images, labels = digits(split)
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
            yield 0, {"image": digits(split)[0][0][..., None], "label": 0}

    return tfds


def digits(split):
    """Returns images [N, 9, 7] and labels [N] that any reader can be held to."""
    count, seed = {"train": (20, 0), "validation": (6, 1), "test": (8, 2)}[split]
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 9, 7), np.uint8), np.arange(count) % 10


@pytest.fixture(scope="module")
def prepared(tfds, tmp_path_factory):
    """A data directory with mini_digits in it, and what is read from it first."""
    data_dir = tmp_path_factory.mktemp("tfds")
    directory = tfds_source.prepare("mini_digits", data_dir)
    assert directory == data_dir / "mini_digits/1.0.0"
    return data_dir


@pytest.fixture
def copied(prepared, tmp_path):
    """A fresh copy of the prepared files; the record of no earlier read is in it."""
    ignore = shutil.ignore_patterns("aevb_arrays.*")
    shutil.copytree(prepared / "mini_digits", tmp_path / "mini_digits", ignore=ignore)
    return tmp_path


def read(data_dir, name="mini_digits"):
    return data.load(name, str(data_dir), num_valid=6)


def test_tfds(copied):
    first = read(copied)
    directory = copied / "mini_digits/1.0.0"
    assert first.image_shape == (9, 7)
    for split, role in zip(first[2:5], ("train", "validation", "test"), strict=True):
        images, labels = digits(role)
        np.testing.assert_array_equal(split.images.reshape(-1, 9, 7), images)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.labels.dtype == np.int32
    assert sorted(file.name for file in directory.glob("*aevb*")) == [
        "aevb_arrays.bin",
        "aevb_arrays.json",
    ]
    for name in ("mini_digits", "mini_digits:1.0.0"):
        assert same(read(copied, name), first)
    assert "tensorflow" not in sys.modules


def test_large_tfds_stays_on_the_disk(copied, request):
    want = read(copied)
    shutil.rmtree(copied / "mini_digits")
    request.getfixturevalue("all_mapped")
    prepared = request.getfixturevalue("prepared")
    ignore = shutil.ignore_patterns("aevb_arrays.*")
    shutil.copytree(prepared / "mini_digits", copied / "mini_digits", ignore=ignore)
    for _ in ("decoded", "kept"):
        got = read(copied)
        assert same(got, want)
        assert all(lies_on_disk(split.images) for split in got[2:5])
    names = {file.name for file in (copied / "mini_digits/1.0.0").iterdir()}
    assert not [name for name in names if name.startswith(".aevb")]


def test_later_reads_do_not_import_tfds(copied):
    want = read(copied).sha256
    code = (
        "import sys, experiments.data as d;"
        f"print(d.load('mini_digits', {str(copied)!r}, num_valid=0).sha256,"
        "'tensorflow_datasets' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([want, "False"], "")


def test_faults_in_prepared_files_after_a_read(copied):
    read(copied)
    got = inject(copied, lambda: read(copied), num_flips=200)
    assert set(got) <= {"refused", "right"}, got
    assert got["refused"] > 150


def test_faults_in_prepared_files_before_any_read(copied):
    got = inject(copied, lambda: read(copied), num_flips=200)
    assert set(got) <= {"refused", "right"}, got


def test_record_that_reads_as_nothing(copied, tfds, monkeypatch):
    # A truncated file has been seen to read so, with no error from below.
    for example in ({"image": None, "label": 1}, None):
        source = {role: [example] for role in ("train", "test")}
        builder = type("Builder", (), {"as_data_source": lambda self, s=source: s})
        monkeypatch.setattr(tfds, "builder_from_directory", lambda _, b=builder: b())
        fails("record 0 of train has no image", "mini_digits", str(copied))
    assert not list(copied.rglob("*aevb*"))


def test_files_prepared_anew_are_not_mistaken(copied):
    read(copied)
    (copied / "mini_digits/1.0.0/extra.txt").write_text("new")
    fails("not those of the first read", "mini_digits", str(copied))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_arrays_that_cannot_be_kept(copied, monkeypatch, caplog, call):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = snapshot(copied)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        got = read(copied)
    assert "No space left" in caplog.text
    assert snapshot(copied) == before
    assert same(read(copied), got)


def test_other_kinds_of_tfds(tfds, tmp_path):
    for name in ("mini_arrays", "mini_arrays_binary"):
        tfds_source.prepare(name, tmp_path)
        got = data.load(name, str(tmp_path), num_valid=0)
        assert got.image_shape == (4, 5, 3)
        assert got.train.images.shape == (10, 60)
        assert got.train.labels is None
        assert got.test.images.max() == (255 if name.endswith("binary") else 50)
    for name, match in (
        ("mini_arrays_ragged", "cannot be read|several shapes"),
        ("mini_arrays_float", "is float32 of shape"),
    ):
        tfds_source.prepare(name, tmp_path)
        fails(match, name, str(tmp_path))
    names = [name for name, _ in tfds_source.list_prepared(tmp_path)]
    assert names[:2] == ["mini_arrays:1.0.0", "mini_arrays_binary:1.0.0"]


def test_versions_and_configs(copied):
    root = copied / "mini_digits"
    shutil.copytree(root / "1.0.0", root / "0.9.0")
    shutil.copytree(root / "1.0.0", root / "10.0.0")
    assert read(copied).source.endswith("10.0.0")
    assert read(copied, "mini_digits:0.9.0").source.endswith("0.9.0")
    fails("no data of", "mini_digits:0.8.0", str(copied))
    shutil.copytree(root / "1.0.0", copied / "other/one/1.0.0")
    assert read(copied, "other").source.endswith("one/1.0.0")
    shutil.copytree(root / "1.0.0", copied / "other/two/1.0.0")
    assert read(copied, "other/two").source.endswith("two/1.0.0")
    fails("with the configs one, two", "other", str(copied))


def test_tfrecord_is_refused(copied):
    file = copied / "mini_digits/1.0.0/dataset_info.json"
    file.write_text(file.read_text().replace("array_record", "tfrecord", 1))
    fails("prepared as tfrecord", "mini_digits", str(copied))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(urllib.request, "getproxies", dict)


def test_preparation_that_cannot_be(tfds, tmp_path, monkeypatch, no_network):
    for name, match in (
        ("mnist", "no network .*storage.googleapis.com"),
        ("mnst", "did you mean mnist"),
        ("mnist:9.9.9", "cannot be prepared"),
        ("mini_needs_tensorflow", "needs TensorFlow"),
    ):
        start = time.perf_counter()
        with pytest.raises(data.DataError, match=match) as info:
            tfds_source.prepare(name, tmp_path)
        assert time.perf_counter() - start < 1.0
        assert "\n" not in str(info.value)
        assert list(tmp_path.iterdir()) == []

    def hang(*args):
        time.sleep(2)
        raise TimeoutError(errno.ETIMEDOUT, "timed out")

    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.perf_counter()
    with pytest.raises(data.DataError, match="no answer in"):
        tfds_source.prepare("mnist", tmp_path)
    assert time.perf_counter() - start < 1.5


def test_prepared_unasked_only_where_that_is_safe(tfds, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    fails("no data of 'mini_digits'", "mini_digits")  # no TensorFlow
    monkeypatch.setattr(tfds_source, "_is_installed", lambda module: True)
    (tmp_path / "given").mkdir()
    fails("no data of 'mini_digits'", "mini_digits", str(tmp_path / "given"))
    assert len(data.load("mini_digits", num_valid=6).train.images) == 20


# ---- the command ----


def test_command_lists(copied, capsys):
    assert data.main(["--data_dir", str(copied)]) == 0
    out = capsys.readouterr().out
    assert "train 60000, test 10000, labels 0 to 9, training mean 0.1307" in out
    assert "mini_digits:1.0.0\n  prepared, not read yet" in out
    assert data.main(["list", "mini_digits", "--data_dir", str(copied)]) == 0
    assert "images 9 x 7, train 26, test 8" in capsys.readouterr().out
    assert data.main(["--data_dir", str(copied)]) == 0
    assert read(copied).sha256 in capsys.readouterr().out
    (copied / "mini_digits/1.0.0/features.json").unlink()
    assert data.main(["--data_dir", str(copied)]) == 1
    assert "not those of the first read" in capsys.readouterr().err


def test_command_lists_paths_and_prepares(tfds, tmp_path, capsys):
    assert data.main(["list", "digits", "--path", write_idx(tmp_path)]) == 0
    assert "images 6 x 5, train 40, test 10" in capsys.readouterr().out
    data_dir = str(tmp_path / "new" / "dir")
    assert data.main(["prepare", "mini_digits", "--data_dir", data_dir]) == 0
    assert "images 9 x 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["prepare"],
        ["--no_such_flag"],
        ["--path", "x", "--data_dir", "y"],
        ["--path", "/nowhere/at/all"],
        ["list", "mnist", "--data_dir", "/nowhere"],
    ],
)
def test_command_refuses_in_one_line(argv, capsys):
    try:
        code = data.main(argv)
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("python -m experiments.data: error: ")


def test_command_help(capsys):
    with pytest.raises(SystemExit) as stop:
        data.main(["--help"])
    assert stop.value.code == 0
    assert "prepare fashion_mnist" in capsys.readouterr().out


def test_command_as_a_program():
    command = [sys.executable, "-m", "experiments.data", "--path", "/nowhere"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: /nowhere does not exist" in done.stderr
    assert done.stderr.count("\n") == 1
