"""A checkpoint comes back with its bits, or not at all."""

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import CheckpointError, WorkdirError
from experiments.storage.checkpoints import Checkpoints

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
        checkpoints.save(step, state(step), {}, kept=(1,) if step < 4 else (3,))
    checkpoints.close()
    assert checkpoints.steps() == [3, 4, 5]
    assert {p.stem for p in (tmp_path / "checkpoints").glob("*.sha256")} == set("345")


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
