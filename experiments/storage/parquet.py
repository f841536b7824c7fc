"""Arrays with a row a datapoint as the columns of a Parquet file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.storage.atomic import replacing

__all__ = ["column_names", "read_about", "read_column", "write_parquet"]


def write_parquet(
    output: Path,
    pieces: Iterator[Mapping[str, np.ndarray]],
    about: Mapping[str, Any],
) -> None:
    """Writes arrays piece by piece; the file is there when it is whole.

    Args:
      output: the file.
      pieces: one or more `{name: [rows, ...]}`, of the same names, types and shapes but
        for rows. A column has numbers, or lists of fixed length, row-major where
        nested.
      about: JSON; the file's metadata "about".
    """

    def column(values: np.ndarray) -> Any:
        array = pa.array(np.ascontiguousarray(values).reshape(-1))
        for length in reversed(values.shape[1:]):
            array = pa.FixedSizeListArray.from_arrays(array, length)
        return array

    def table(arrays: Mapping[str, np.ndarray]) -> pa.Table:
        columns = {name: column(values) for name, values in arrays.items()}
        return pa.table(columns).replace_schema_metadata(metadata)

    metadata = {"about": json.dumps(about, sort_keys=True)}
    first = table(next(pieces))
    with replacing(output) as file, pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for arrays in pieces:
            writer.write_table(table(arrays))


def read_about(file: Path) -> Any:
    """What `write_parquet` was told of a file.

    Raises:
      Exception: it is no such file.
    """
    return json.loads(pq.read_schema(file).metadata[b"about"])


def column_names(file: Path) -> list[str]:
    """The names of a file's arrays.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no Parquet file.
    """
    return pq.read_schema(file).names


def read_column(file: Path, name: str) -> np.ndarray:
    """An array as `write_parquet` was given it.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged, or holds something else than numbers, or lists of
        them of a fixed length.
    """
    column = pq.read_table(file, columns=[name]).column(name)
    array = pa.concat_arrays(column.chunks) if column.chunks else column
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    if pa.types.is_nested(array.type):
        raise ValueError(f"{name} is of type {array.type}")
    return np.asarray(array).reshape(shape)
