"""Arrays in a Parquet file: the same when they are read again."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.storage.parquet import (
    column_names,
    read_about,
    read_column,
    write_parquet,
)


def pieces(*rows):
    generator = np.random.default_rng(0)
    return [
        {
            "mean": generator.standard_normal((n, 3)).astype(np.float32),
            "draws": generator.standard_normal((n, 2, 3)),
            "label": generator.integers(0, 10, n).astype(np.int32),
            "split": np.array(["train"] * n),
        }
        for n in rows
    ]


@pytest.mark.parametrize("rows", [(4,), (4, 4, 1)])
def test_arrays_are_as_they_were_written(tmp_path, rows):
    path, written = tmp_path / "codes.parquet", pieces(*rows)
    write_parquet(path, iter(written), {"step": 3})
    assert column_names(path) == list(written[0])
    assert read_about(path) == {"step": 3}
    for name in written[0]:
        expected = np.concatenate([piece[name] for piece in written])
        found = read_column(path, name)
        np.testing.assert_array_equal(found, expected)
        if name != "split":
            assert found.dtype == expected.dtype


def test_a_failure_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "codes.parquet"
    write_parquet(path, iter(pieces(2)), {})
    before = path.read_bytes()

    def broken():
        yield from pieces(3)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_parquet(path, broken(), {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["codes.parquet"]


def test_what_is_no_array_is_refused(tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"lists": [[1.0], [1.0, 2.0]]}), path)
    with pytest.raises(ValueError, match="lists is of type list"):
        read_column(path, "lists")
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError):
        column_names(path)
