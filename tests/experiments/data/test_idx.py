"""IDX files: what is read is right, and a damaged file is refused."""

import gzip
import random
import shutil

import numpy as np
import pytest

from experiments import data
from experiments.data.idx import BUNDLED, MNIST_SHA256
from experiments.errors import DataError

STEMS = tuple(MNIST_SHA256)


def test_notices_of_the_bundled_files():
    lines = (BUNDLED / "SHA256SUMS").read_text().splitlines()
    sums = {name: sum_ for sum_, name in (line.split() for line in lines)}
    assert sums == MNIST_SHA256
    assert "CC BY-SA 3.0" in (BUNDLED / "README.md").read_text()


@pytest.mark.parametrize(
    "name",
    [
        lambda stem: stem,
        lambda stem: stem + ".gz",
        lambda stem: stem.replace("-idx", ".idx"),
        lambda stem: stem.replace("-idx", ".idx") + ".gz",
    ],
)
def test_idx_files_of_any_dataset(tmp_path, name, small_arrays, write_idx):
    got = data.load("digits", write_idx(tmp_path, name), num_valid=10)
    arrays = small_arrays
    assert got.image_shape == (6, 5)
    assert str(tmp_path) in got.source
    images = np.concatenate([got.train.images, got.valid.images]).reshape(-1, 6, 5)
    np.testing.assert_array_equal(images, arrays[STEMS[0]])
    np.testing.assert_array_equal(got.valid.labels, arrays[STEMS[1]][30:])
    np.testing.assert_array_equal(got.test.images.reshape(-1, 6, 5), arrays[STEMS[2]])
    np.testing.assert_array_equal(got.test.labels, arrays[STEMS[3]])


def test_large_idx_files_stay_on_the_disk(
    tmp_path, as_mnist, request, write_idx, same, lies_on_disk
):
    place = write_idx(tmp_path, lambda stem: stem)
    read = data.load("mnist", place, num_valid=10)
    assert not lies_on_disk(read.train.images)
    request.getfixturevalue("all_mapped")
    mapped = data.load("mnist", place, num_valid=10)
    assert same(mapped, read)
    assert all(lies_on_disk(split.images) for split in mapped[2:5])


def test_unpacked_file_that_kept_its_gz_name(tmp_path, idx, small_arrays, write_idx):
    path = write_idx(tmp_path, images=idx(small_arrays[STEMS[0]]))
    assert len(data.load("digits", path, num_valid=0).train.images) == 40


# The file that is damaged, its new bytes or array, the message.
BAD_IDX = {
    "empty": ("images", lambda raw, array: b"", "is empty"),
    "html": (
        "images",
        lambda raw, array: b"\n <!DOCTYPE html><html>404",
        "is an HTML page",
    ),
    "truncated gzip": (
        "images",
        lambda raw, array: gzip.compress(raw)[:-100],
        "truncated gzip",
    ),
    "crc": (
        "images",
        lambda raw, array: flipped(gzip.compress(raw), -8),
        "damaged gzip.*CRC",
    ),
    "garbage after gzip": (
        "images",
        lambda raw, array: gzip.compress(raw) + b"xyz",
        "damaged gzip",
    ),
    "text": (
        "images",
        lambda raw, array: b"not data at all, " * 9,
        "starts with 0x6e6f7420",
    ),
    "magic": ("images", lambda raw, array: flipped(raw, 2), "magic number 0x00000803"),
    "images as labels": (
        "labels",
        lambda raw, array: array[:, None, None],
        "magic number 0x00000801",
    ),
    "no header": ("images", lambda raw, array: raw[:10], "less than the 16"),
    "too few bytes": (
        "images",
        lambda raw, array: raw[:-1],
        "1199 bytes .* 40 x 6 x 5",
    ),
    "trailing bytes": (
        "images",
        lambda raw, array: raw + b"\0",
        "1201 bytes .* 40 x 6 x 5",
    ),
    "no images": ("images", lambda raw, array: array[:0], "header says 0 x 6 x 5"),
    "counts": ("labels", lambda raw, array: array[1:], "40 images, .* 39 labels"),
    "shapes": ("images", lambda raw, array: array[:, 1:], "not of one dataset"),
    "binary": (
        "images",
        lambda raw, array: array % 2,
        "multiply binary pixels by 255",
    ),
}


def flipped(content, place):
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx(
    tmp_path, case, size, request, idx, small_arrays, write_idx, snapshot, fails
):
    if size == "large":
        request.getfixturevalue("all_mapped")
    part, change, match = BAD_IDX[case]
    array = small_arrays[STEMS[0 if part == "images" else 1]]
    changed = change(idx(array), array)
    content = changed if isinstance(changed, bytes) else idx(changed)
    path = write_idx(tmp_path, **{part: content})
    before = snapshot(tmp_path)
    fails(match, "digits", path, num_valid=0)
    assert snapshot(tmp_path) == before


def test_mnist_by_name_must_be_mnist(
    tmp_path, as_mnist, idx, small_arrays, write_idx, fails
):
    images, labels, *_ = small_arrays.values()
    write_idx(tmp_path)
    assert len(data.load("mnist", str(tmp_path), num_valid=0).train.images) == 40
    write_idx(tmp_path, images=idx(images ^ 1))
    fails("is not MNIST's", "mnist", str(tmp_path), num_valid=0)
    data.load("other", str(tmp_path), num_valid=0)
    write_idx(tmp_path, labels=idx(labels + 1))
    fails("has a label 10", "mnist", str(tmp_path), num_valid=0)


def test_the_sum_does_not_depend_on_place_or_packing(tmp_path, write_idx, as_mnist):
    places = [
        write_idx(tmp_path / "plain", lambda stem: stem),
        write_idx(tmp_path / "moved", lambda stem: stem),
        write_idx(tmp_path / "packed", lambda stem: stem + ".gz"),
        write_idx(tmp_path / "dotted", lambda stem: stem.replace("-idx", ".idx")),
    ]
    loaded = [
        data.load(name, place, num_valid=num_valid)
        for place in places
        for name, num_valid in (("mnist", 0), ("digits", 10))
    ]
    assert len({dataset.sha256 for dataset in loaded}) == 1
    assert len({dataset.source for dataset in loaded}) == len(places)


def test_the_sum_depends_on_every_file(tmp_path, write_idx, idx, small_arrays):
    before = data.load("digits", write_idx(tmp_path), num_valid=0).sha256
    for part, array in zip(("images", "labels"), small_arrays.values(), strict=False):
        path = write_idx(tmp_path, **{part: idx(array ^ 1)})
        assert data.load("digits", path, num_valid=0).sha256 != before


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_faults_in_known_idx_files(tmp_path, as_mnist, gz, write_idx, inject):
    path = write_idx(tmp_path, lambda stem: stem + gz)
    got = inject(tmp_path, lambda: data.load("mnist", path, num_valid=9))
    assert set(got) <= {"refused", "right"}, got
    assert got["refused"] >= (200 if gz else 224)  # gzip's header has idle bits


def test_faults_in_unknown_gzip_idx_files(tmp_path, write_idx, inject):
    path = write_idx(tmp_path)
    got = inject(tmp_path, lambda: data.load("digits", path, num_valid=9))
    assert set(got) <= {"refused", "right"}, got


def test_faults_in_a_copy_of_mnist(tmp_path, mnist):
    rng = random.Random(0)
    for stem in STEMS:
        shutil.copy(BUNDLED / f"{stem}.gz", tmp_path)
    for stem in STEMS:
        file = tmp_path / f"{stem}.gz"
        content = file.read_bytes()
        bad = bytearray(content)
        bad[rng.randrange(100, len(bad))] ^= 1 << rng.randrange(8)
        for damaged in (bytes(bad), content[: len(content) // 2]):
            file.write_bytes(damaged)
            with pytest.raises(DataError, match=stem):
                data.load("mnist", str(tmp_path))
        file.write_bytes(content)
    assert data.load("mnist", str(tmp_path)).sha256 == mnist.sha256
