"""A finished part is kept, and what is damaged or of other work is done again."""

import random

import numpy as np
import pytest

from experiments.storage import parts as storage
from experiments.storage.parts import Part, Parts, read_part


def test_a_line_with_any_flipped_bit_is_no_part():
    line = Part("first", {"log_p": [-90.25, 1e-05]}, "K = 10", "of today").line()
    assert read_part(line) is not None
    for i in range(len(line)):
        for bit in range(8):
            flipped = bytearray(line)
            flipped[i] ^= 1 << bit
            assert read_part(bytes(flipped)) is None


def test_parts_of_other_code_are_done_again_with_a_warning(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "parts.jsonl"
    monkeypatch.setattr(storage, "code_sha256", lambda: "of yesterday")
    before = Parts(path, {"k": 5})
    for name in "ab":
        before.put(name, 1)
    Parts(path, {"k": 6}).put("c", 1)  # other work: not worth a word
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(storage, "code_sha256", lambda: "of today")
    now = Parts(path, {"k": 5})
    assert [now.get(name) for name in "ab"] == [None, None]
    assert "warning: 2 finished parts in" in capsys.readouterr().err
    for name in "ab":
        now.put(name, 2)
    assert [Parts(path, {"k": 5}).get(name) for name in "ab"] == [2, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("line", ["{}", "[]", "1", '"x"', "\xff", '{"name": [1]}'])
def test_a_line_that_is_no_part_is_none(line):
    assert read_part(line.encode("latin1")) is None


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
