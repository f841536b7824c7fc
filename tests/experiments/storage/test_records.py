"""Nothing that went wrong with a file is read as a number."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import CheckpointError, WorkdirError
from experiments.storage import workdir
from experiments.storage.atomic import read_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.lock import holder, locked
from experiments.storage.metrics import Metrics
from experiments.storage.parts import Parts

STEPS = (100, 200)


def state(step: int) -> dict:
    generator = np.random.default_rng(step)
    return {
        "step": np.asarray(step, np.int32),
        "params": [generator.standard_normal((7, 5)).astype(np.float32)],
        "none": np.zeros((0, 3), np.float32),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step in STEPS:
        checkpoints.save(step, state(step), {"lines": [{"step": step}]})
    checkpoints.close()
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "copy")


def files(folder: Path, step: int) -> list[Path]:
    found = [p for p in (folder / "checkpoints" / str(step)).rglob("*") if p.is_file()]
    return [*sorted(found), folder / "checkpoints" / f"{step}.sha256"]


def assert_is(restored, step: int) -> None:
    assert restored.step == step
    for found, expected in zip(
        (restored.state["params"][0], restored.state["step"], restored.state["none"]),
        (state(step)["params"][0], state(step)["step"], state(step)["none"]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_state_and_its_record_come_back(saved):
    restored = Checkpoints(saved).read(state(0))
    assert_is(restored, 200)
    assert restored.record["lines"] == [{"step": 200}]
    assert_is(Checkpoints(saved).read(state(0), 100), 100)


def test_the_sums_are_those_of_sha256sum(saved):
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "200.sha256"], cwd=saved / "checkpoints"
    )
    assert done.returncode == 0


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path).restore(state(0)) is None


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_falls_back(copy, seed, capsys):
    generator = random.Random(seed)
    file = generator.choice([f for f in files(copy, 200) if f.stat().st_size])
    content = bytearray(file.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    file.write_bytes(content)
    assert_is(Checkpoints(copy).restore(state(0)), 100)
    assert "checkpoint 200 is damaged: back to step 100" in capsys.readouterr().err
    # It is out of the way, not lost, and the step can be saved again.
    assert (copy / "damaged" / "200").is_dir()
    again = Checkpoints(copy)
    again.save(200, state(200), {})
    again.close()
    assert_is(Checkpoints(copy).restore(state(0)), 200)


def test_sums_of_the_leaves_hold_without_those_of_the_files(copy):
    (copy / "checkpoints" / "200.sha256").unlink()
    assert_is(Checkpoints(copy).read(state(0)), 200)
    sized = [f for f in files(copy, 200)[:-1] if f.stat().st_size > 100]
    data = max(sized, key=lambda f: f.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(content)
    assert_is(Checkpoints(copy).read(state(0)), 100)


@pytest.mark.parametrize("share", [0, 0.01, 0.25, 0.5, 0.99])
def test_a_truncated_file_falls_back(copy, share):
    for file in files(copy, 200):
        content = file.read_bytes()
        if content[: int(share * len(content))] == content:
            continue
        file.write_bytes(content[: int(share * len(content))])
        assert_is(Checkpoints(copy).read(state(0)), 100)
        file.write_bytes(content)


def test_a_deleted_file_falls_back(copy):
    for file in files(copy, 200)[:-1]:
        content = file.read_bytes()
        file.unlink()
        assert_is(Checkpoints(copy).read(state(0)), 100)
        file.write_bytes(content)
    assert_is(Checkpoints(copy).read(state(0)), 200)


def test_with_none_usable_it_stops_and_changes_nothing(copy):
    for step in STEPS:
        files(copy, step)[0].write_bytes(b"")
    before = sorted(copy.rglob("*"))
    with pytest.raises(CheckpointError, match=r"no usable .* 200: .* 100: .*Nothing"):
        Checkpoints(copy).restore(state(0))
    assert sorted(copy.rglob("*")) == before


def test_an_unfinished_save_is_named_and_removed(copy, capsys):
    left = copy / "checkpoints" / "300.orbax-checkpoint-tmp"
    left.mkdir()
    assert_is(Checkpoints(copy).restore(state(0)), 200)
    assert (
        "checkpoint 300 was not finished: back to step 200" in capsys.readouterr().err
    )
    assert not left.exists()


def test_a_checkpoint_of_another_program_is_refused(saved):
    other = {**state(0), "params": [np.zeros((7, 6), np.float32)]}
    with pytest.raises(CheckpointError, match=r"params.*\[7, 5\], expected.*\[7, 6\]"):
        Checkpoints(saved).read(other)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 6):
        checkpoints.save(step, state(step), {}, best=1 if step < 4 else 3)
    checkpoints.close()
    assert checkpoints.steps() == [3, 4, 5]
    assert {p.stem for p in (tmp_path / "checkpoints").glob("*.sha256")} == set("345")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint(small_disk):
    checkpoints = Checkpoints(small_disk)
    checkpoints.save(100, state(100), {})
    big = {"big": np.random.default_rng(0).standard_normal(400_000)}
    with pytest.raises(WorkdirError, match=r"step 300 .*\(No space left"):
        checkpoints.save(300, big, {})
    checkpoints.close()
    names = sorted(path.name for path in (small_disk / "checkpoints").iterdir())
    assert names == ["100", "100.sha256"]
    assert_is(Checkpoints(small_disk).restore(state(0)), 100)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_whole_lines(small_disk):
    metrics = Metrics(small_disk, [])
    metrics.write(1, {"bound": -90.0})
    (small_disk / "filler").write_bytes(b"")
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)) == 4096:
            if os.statvfs(small_disk).f_bavail == 0:
                break

    def fill() -> None:
        for step in range(2, 200):
            metrics.write(step, {"bound": -90.0})

    with pytest.raises(OSError, match="No space left"):
        fill()
    lines = (small_disk / "metrics.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["step"] for line in lines] == [*range(1, len(lines) + 1)]


def test_too_little_room_is_refused_at_once(small_disk):
    with pytest.raises(WorkdirError, match=r"MiB free, expected .*config.checkpoint"):
        workdir.check_room(small_disk, 2**20, 4)


def test_metrics_start_from_the_lines_of_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "bound": -9')
    metrics = Metrics(tmp_path, [{"step": 1, "bound": -91.0}])
    metrics.write(2, {"bound": float("nan")}, events_only={"images_per_second": 1.0})
    metrics.close()
    assert (
        path.read_text() == '{"step": 1, "bound": -91.0}\n{"step": 2, "bound": NaN}\n'
    )
    assert len(list((tmp_path / "events").iterdir())) == 1


def test_damaged_parts_are_done_again(tmp_path):
    path = tmp_path / "parts.jsonl"
    parts = Parts(path, {"k": 5})
    values = np.random.default_rng(0).standard_normal(5).astype(np.float32)
    for name in "abc":
        parts.put(name, values.tolist())
    read = Parts(path, {"k": 5})
    np.testing.assert_array_equal(np.asarray(read.get("b"), np.float32), values)
    assert Parts(path, {"k": 6}).get("b") is None

    content = path.read_bytes()
    for i in random.Random(0).sample(range(len(content)), 40):
        flipped = bytearray(content)
        flipped[i] ^= 1 << (i % 8)
        path.write_bytes(flipped)
        read = Parts(path, {"k": 5})
        found = [name for name in "abc" if read.get(name) is not None]
        assert all(read.get(name) == values.tolist() for name in found)
        assert len(found) >= 1
    # A line that was cut short does not swallow the next.
    path.write_bytes(content[:-20])
    Parts(path, {"k": 5}).put("d", 1)
    assert [Parts(path, {"k": 5}).get(name) for name in "cd"] == [None, 1]


def test_one_writer(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(WorkdirError, match=rf"in use by process {os.getpid()} on \w+"),
        locked(tmp_path),
    ):
        raise AssertionError("two writers")
    assert holder(tmp_path) == ""
    with locked(tmp_path):
        assert holder(tmp_path).startswith(f"{os.getpid()} on ")


def test_places_that_cannot_be_a_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    for place, reason in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "run", "is not a directory"),
        (tmp_path / "none" / "run", "none is not a directory.*make it first"),
    ):
        with pytest.raises(WorkdirError, match=reason), locked(place):
            pass


def test_a_read_only_place_is_refused(small_disk):
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with (
        pytest.raises(WorkdirError, match=r"cannot be written \(Read-only"),
        locked(small_disk),
    ):
        pass
    with (
        pytest.raises(WorkdirError, match=r"cannot be written \(Read-only"),
        locked(small_disk / "run"),
    ):
        pass


def test_damaged_json_is_not_read(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(WorkdirError, match="cannot be read: No such file"):
        read_json(path)
    for text in ("{", "[]", "\xff"):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(WorkdirError, match="is damaged"):
            read_json(path)
