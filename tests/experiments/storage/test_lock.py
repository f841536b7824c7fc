"""One process writes to a workdir."""

import os
import subprocess

import pytest

from experiments.errors import WorkdirError
from experiments.storage.lock import holder, locked


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
