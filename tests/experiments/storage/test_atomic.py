"""Files are there as a whole or not at all."""

import os

import pytest

from experiments.errors import WorkdirError
from experiments.storage import atomic
from experiments.storage.atomic import read_json, write_atomically, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "run.json"
    write_json(path, {"a": (1, 2)})
    assert read_json(path) == {"a": [1, 2]}

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"half")
    assert read_json(path) == {"a": [1, 2]}
    assert os.listdir(path.parent) == ["run.json"]


def test_damaged_json_is_not_read(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(WorkdirError, match="cannot be read: No such file"):
        read_json(path)
    for text in ("{", "[]", "\xff"):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(WorkdirError, match="is damaged"):
            read_json(path)
