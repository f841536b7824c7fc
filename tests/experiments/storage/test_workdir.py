"""A workdir continues only the run or the sweep that it holds."""

import errno
from pathlib import Path

import pytest
from configurations import small

from experiments.errors import WorkdirError
from experiments.storage import workdir as storage
from experiments.storage.atomic import read_json, write_json
from experiments.storage.workdir import (
    check_continues,
    check_room,
    check_sweep_continues,
    held,
    read_config,
    same_work,
)

MANIFEST = {
    "packages": {"jax": "0.10"},
    "platform": "cpu",
    "device_kind": "cpu",
    "x64": False,
    "code_sha256": "a",
    "num_devices": 1,
}


def run_in(workdir: Path) -> None:
    """A run's workdir as a process leaves it that was just started."""
    write_json(workdir / "run.json", MANIFEST | {"data_sha256": "d"})
    write_json(workdir / "config.json", small().to_dict())


def test_a_run_continues_with_more_of_the_same(tmp_path):
    assert check_continues(tmp_path, small(), MANIFEST) == []  # there is nothing yet
    run_in(tmp_path)
    longer = small(
        **{"epochs": 100, "eval.num_points": 9, "checkpoint.keep": 1},
        **{"data.path": "/moved", "data.stream": "never"},
    )
    assert check_continues(tmp_path, longer, MANIFEST) == []
    [warning] = check_continues(tmp_path, small(), MANIFEST | {"code_sha256": "b"})
    assert "the run was started with another code_sha256: a -> b" in warning


@pytest.mark.parametrize(
    ("config", "manifest", "expected"),
    [
        ({"seed": 1}, {}, "config.seed: 0 -> 1"),
        ({"data.num_train": 321}, {}, "config.data.num_train: 320 -> 321"),
        ({}, {"packages": {"jax": "0.11"}}, "packages.jax: 0.10 -> 0.11"),
        ({}, {"data_sha256": "e"}, "data_sha256: d -> e"),
        ({}, {"x64": True}, "x64: False -> True"),
    ],
)
def test_another_run_is_refused(tmp_path, config, manifest, expected):
    run_in(tmp_path)
    with pytest.raises(WorkdirError, match="holds another run.*" + expected):
        check_continues(tmp_path, small(**config), MANIFEST | manifest)


def test_a_manifest_that_says_nothing_is_refused(tmp_path):
    run_in(tmp_path)
    write_json(tmp_path / "run.json", {})
    with pytest.raises(WorkdirError, match="platform: None -> cpu"):
        check_continues(tmp_path, small(), MANIFEST)


def sweep_in(
    workdir: Path,
    manifest: dict | None = None,
    seeds: tuple[int, ...] = (0, 1),
    **changes: object,
) -> list[str]:
    """Starts or continues a sweep over seeds."""
    configs = {f"seed={i}": small(seed=i, **changes).to_dict() for i in seeds}
    now = MANIFEST | {"data_sha256": {"mnist": "d"}} | (manifest or {})
    return check_sweep_continues(workdir, ["seed"], configs, now)


def test_a_sweep_continues(tmp_path):
    assert sweep_in(tmp_path) == []
    (tmp_path / "rows.jsonl").touch()
    moved = {"data.path": "/moved", "data.stream": "never"}
    assert sweep_in(tmp_path, **moved) == []
    [warning] = sweep_in(tmp_path, {"code_sha256": "b"})
    assert "the sweep was started with another code_sha256: a -> b" in warning


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"data_sha256": {"mnist": "e"}}, "data_sha256.mnist: d -> e"),
        ({"packages": {"jax": "0.11"}}, "packages.jax: 0.10 -> 0.11"),
        ({"platform": "tpu"}, "platform: cpu -> tpu"),
    ],
)
def test_a_sweep_on_other_data_or_of_another_version_is_refused(
    tmp_path, manifest, expected
):
    sweep_in(tmp_path)
    with pytest.raises(WorkdirError, match="holds another sweep.*" + expected):
        sweep_in(tmp_path, manifest)
    assert sweep_in(tmp_path) == []  # what was refused has changed nothing


def test_another_sweep_is_refused(tmp_path):
    sweep_in(tmp_path)
    with pytest.raises(WorkdirError, match="another sweep, of 2 runs over seed"):
        sweep_in(tmp_path, seeds=(0, 1, 2))
    with pytest.raises(WorkdirError, match=r"seed=0, config\.batch_size: 32 -> 40"):
        sweep_in(tmp_path, batch_size=40)
    # More of the same would not be the rows that are there.
    with pytest.raises(WorkdirError, match=r"config\.eval\.num_samples: 10 -> 20"):
        sweep_in(tmp_path, **{"eval.num_samples": 20})


def test_a_new_field_had_its_default_in_an_old_workdir(tmp_path):
    run_in(tmp_path / "run")
    sweep_in(tmp_path / "sweep")
    old = read_json(tmp_path / "run" / "config.json")
    del old["beta"], old["data"]["scale"]
    write_json(tmp_path / "run" / "config.json", old)
    stored = read_json(tmp_path / "sweep" / "sweep.json")
    for config in stored["runs"].values():
        del config["beta"], config["data"]["scale"]
    write_json(tmp_path / "sweep" / "sweep.json", stored)

    assert check_continues(tmp_path / "run", small(), MANIFEST) == []
    with pytest.raises(WorkdirError, match=r"config\.beta: 1.0 -> 2.0"):
        check_continues(tmp_path / "run", small(beta=2.0), MANIFEST)
    with pytest.raises(WorkdirError, match=r"config\.beta: 1.0 -> 2.0"):
        sweep_in(tmp_path / "sweep", beta=2.0)
    assert sweep_in(tmp_path / "sweep") == []


@pytest.mark.parametrize("missing", ["run.json", "sweep.json"])
def test_rows_of_unknown_origin_are_refused(tmp_path, missing):
    sweep_in(tmp_path)
    (tmp_path / missing).unlink()
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(WorkdirError, match=r"no sweep\.json or no run\.json"):
        sweep_in(tmp_path)


def test_a_run_is_opened_where_its_data_are_now(tmp_path):
    write_json(tmp_path / "config.json", small().to_dict())
    assert read_config(tmp_path).data.path == ""
    assert read_config(tmp_path, data_path="/moved").data.path == "/moved"
    assert same_work(small().to_dict()) == same_work(
        read_config(tmp_path, data_path="/moved").to_dict()
    )


def test_an_error_of_reading_data_is_not_one_of_writing(tmp_path):
    workdir = tmp_path / "run"
    for error in (
        OSError(errno.EIO, "Input/output error", str(tmp_path / "data" / "images")),
        OSError(errno.EACCES, "Permission denied", str(tmp_path / "images")),
        OSError(errno.EIO, "Input/output error"),
        OSError("a library that cannot be loaded"),
    ):
        with pytest.raises(OSError) as raised, held(workdir):
            raise error
        assert raised.value is error
    for error in (
        OSError(errno.EACCES, "Permission denied", str(workdir / "metrics.jsonl")),
        OSError(errno.ENOSPC, "No space left on device"),
    ):
        with pytest.raises(WorkdirError, match="cannot be written"), held(workdir):
            raise error


def test_held_makes_runs_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with held(Path("runs/one")):
        assert (tmp_path / "runs" / "one").is_dir()
    with pytest.raises(WorkdirError, match="make it first"), held(Path("other/one")):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "runs")

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(storage.Path, "mkdir", refuse)
    with (
        pytest.raises(WorkdirError, match=r"runs cannot be made \(Permission"),
        held(Path("runs/one")),
    ):
        pass


def test_a_full_disk_is_one_sentence(small_disk):
    with (
        pytest.raises(WorkdirError, match=r"cannot be written \(No space left"),
        held(small_disk),
    ):
        write_json(small_disk / "results.json", {"much": "x" * 2**21})


def test_too_little_room_is_refused_at_once(small_disk):
    with pytest.raises(WorkdirError, match=r"MiB free, expected .*config.checkpoint"):
        check_room(small_disk, 2**20, 4)
