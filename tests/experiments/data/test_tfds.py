"""Datasets of tensorflow-datasets: prepared, decoded, kept and read again."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.data import tfds as reader
from experiments.data.tfds import records
from experiments.errors import DataError

REPO = Path(__file__).resolve().parents[3]


def test_tfds(copied, same, digits, read):
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


def test_large_tfds_stays_on_the_disk(copied, request, same, lies_on_disk, read):
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


def test_later_reads_do_not_import_tfds(copied, read):
    want = read(copied).sha256
    code = (
        "import sys, experiments.data as d;"
        f"print(d.load('mini_digits', {str(copied)!r}, num_valid=0).sha256,"
        "'tensorflow_datasets' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([want, "False"], "")


def test_faults_in_prepared_files_after_a_read(copied, inject, read):
    read(copied)
    got = inject(copied, lambda: read(copied), num_flips=200)
    assert set(got) <= {"refused", "right"}, got
    assert got["refused"] > 150


def test_faults_in_prepared_files_before_any_read(copied, inject, read):
    got = inject(copied, lambda: read(copied), num_flips=200)
    assert set(got) <= {"refused", "right"}, got


def test_record_that_reads_as_nothing(copied, tfds, monkeypatch, fails):
    # A truncated file has been seen to read so, with no error from below.
    for example in ({"image": None, "label": 1}, None):
        source = {role: [example] for role in ("train", "test")}
        builder = type("Builder", (), {"as_data_source": lambda self, s=source: s})
        monkeypatch.setattr(tfds, "builder_from_directory", lambda _, b=builder: b())
        fails("record 0 of train has no image", "mini_digits", str(copied))
    assert not list(copied.rglob("*aevb*"))


def test_files_prepared_anew_are_not_mistaken(copied, fails, read):
    read(copied)
    (copied / "mini_digits/1.0.0/extra.txt").write_text("new")
    fails("not those of the first read", "mini_digits", str(copied))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_arrays_that_cannot_be_kept(
    copied, monkeypatch, caplog, call, snapshot, same, read
):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = snapshot(copied)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        got = read(copied)
    assert "No space left" in caplog.text
    assert snapshot(copied) == before
    assert same(read(copied), got)


def test_the_sum_does_not_depend_on_the_place(copied, tmp_path, read):
    moved = tmp_path / "moved"
    shutil.copytree(copied / "mini_digits", moved / "mini_digits")
    assert read(moved).sha256 == read(copied).sha256


def test_a_disk_that_fails_while_records_are_read(copied, tfds, monkeypatch, fails):
    for error, match in (
        (OSError(errno.EIO, "Input/output error"), r"cannot be read \(Input/output"),
        (OSError("image file is truncated"), "they are damaged or not of images"),
    ):

        def broken(directory, error=error):
            raise error

        monkeypatch.setattr(tfds, "builder_from_directory", broken)
        fails(match, "mini_digits", str(copied))
    assert not list(copied.rglob("*aevb*"))


def test_the_space_of_decoded_images_is_reserved(tmp_path, monkeypatch):
    for has_fallocate in (True, False):
        if not has_fallocate:
            monkeypatch.delattr(os, "posix_fallocate")
        with (tmp_path / "reserved").open("w+b") as file:
            records._reserve(file, 3 * 2**20 + 1)
            found = os.fstat(file.fileno())
        assert found.st_size == 3 * 2**20 + 1
        assert 512 * found.st_blocks >= found.st_size


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_to_decode(copied, all_mapped, monkeypatch, number, snapshot, fails):
    def full(descriptor, offset, size):
        assert (offset, size) == (0, 26 * 9 * 7)
        raise OSError(number, os.strerror(number))

    before = snapshot(copied)
    monkeypatch.setattr(os, "posix_fallocate", full)
    match = r"decoding mini_digits needs 1638 bytes in .*1\.0\.0, where \d+ are free"
    fails(match, "mini_digits", str(copied))
    assert snapshot(copied) == before


DECODE_ON_A_FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from experiments.data import source
from experiments.data.tfds import records
from experiments.errors import DataError

source.MAPPED_BYTES = 0
examples = [{"image": np.ones((100, 100), np.uint8), "label": 1}] * 400
try:
    records._stack("mini", Path(sys.argv[1]), {"train": examples})
except DataError as error:
    print(error)
"""


def test_a_disk_that_is_really_full(tmp_path):
    """Without space reserved, the first write to a page ends the process: SIGBUS."""
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    disk = f"mount -t tmpfs -o size=1M none {tmp_path}"
    if (
        not shutil.which("unshare")
        or subprocess.run([*mount, disk], capture_output=True).returncode
    ):
        pytest.skip("no small disk to fill: `unshare --mount` may not mount a tmpfs")
    code = f'{disk}; exec {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run(
        [*mount, code, DECODE_ON_A_FULL_DISK], cwd=REPO, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"needs 4000000 bytes in {tmp_path}, where 1048576 are free" in done.stdout


def test_other_kinds_of_tfds(tfds, tmp_path, fails):
    for name in ("mini_arrays", "mini_arrays_binary"):
        reader.prepare(name, tmp_path)
        got = data.load(name, str(tmp_path), num_valid=0)
        assert got.image_shape == (4, 5, 3)
        assert got.train.images.shape == (10, 60)
        assert got.train.labels is None
        assert got.test.images.max() == (255 if name.endswith("binary") else 50)
    for name, match in (
        ("mini_arrays_ragged", "cannot be read|several shapes"),
        ("mini_arrays_float", "is float32 of shape"),
    ):
        reader.prepare(name, tmp_path)
        fails(match, name, str(tmp_path))
    names = [name for name, _ in reader.list_prepared(tmp_path)]
    assert names[:2] == ["mini_arrays:1.0.0", "mini_arrays_binary:1.0.0"]


def test_a_prepared_frey_face_keeps_its_splits(copied, read, same):
    shutil.copytree(copied / "mini_digits", copied / "frey_face")
    got = read(copied, "frey_face")
    assert same(
        got._replace(name="mini_digits", source=""), read(copied)._replace(source="")
    )


def test_a_frey_face_of_one_split_is_split_as_the_original(copied, tfds, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (1965, 28, 20, 1), np.uint8)
    source = {"train": [{"image": frame} for frame in frames]}
    builder = type("Builder", (), {"as_data_source": lambda self: source})
    monkeypatch.setattr(tfds, "builder_from_directory", lambda _: builder())
    shutil.copytree(copied / "mini_digits", copied / "frey_face")
    got = data.load("frey_face", str(copied), num_valid=0)
    order = np.random.RandomState(0).permutation(1965)
    rows = frames.reshape(1965, 560)
    np.testing.assert_array_equal(got.train.images, rows[order[:1600]])
    np.testing.assert_array_equal(got.test.images, rows[order[1600:]])


def test_versions_and_configs(copied, fails, read):
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


def test_tfrecord_is_refused(copied, fails):
    file = copied / "mini_digits/1.0.0/dataset_info.json"
    file.write_text(file.read_text().replace("array_record", "tfrecord", 1))
    fails("prepared as tfrecord", "mini_digits", str(copied))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(urllib.request, "getproxies", dict)


def test_preparation_that_cannot_be(tfds, tmp_path, no_network):
    for name, match in (
        ("mnist", "no network .*storage.googleapis.com"),
        ("mnst", "did you mean mnist"),
        ("mnist:9.9.9", "cannot be prepared"),
        ("mini_needs_tensorflow", "needs TensorFlow"),
    ):
        with pytest.raises(DataError, match=match) as info:
            reader.prepare(name, tmp_path)
        assert "\n" not in str(info.value)
        assert list(tmp_path.iterdir()) == []


def test_a_network_that_hangs_is_not_waited_for(
    tfds, tmp_path, monkeypatch, no_network
):
    over = threading.Event()

    def hang(*args):
        over.wait()  # for ever: `prepare` returns all the same
        raise TimeoutError(errno.ETIMEDOUT, "timed out")

    monkeypatch.setattr(socket, "create_connection", hang)
    with pytest.raises(DataError, match="no answer in"):
        reader.prepare("mnist", tmp_path)
    over.set()


def test_prepared_unasked_only_where_that_is_safe(tfds, tmp_path, monkeypatch, fails):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    fails("no data of 'mini_digits'", "mini_digits")  # no TensorFlow
    monkeypatch.setattr(reader, "_is_installed", lambda module: True)
    (tmp_path / "given").mkdir()
    fails("no data of 'mini_digits'", "mini_digits", str(tmp_path / "given"))
    assert len(data.load("mini_digits", num_valid=6).train.images) == 20
