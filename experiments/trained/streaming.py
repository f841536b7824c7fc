"""Codes and pixels of many datapoints, to one file: streamed, and resumed after a stop.

A chunk of rows is computed, and kept on the disk; when all are there they become one
NPZ or Parquet file. The same command after a kill goes on where it was, and the file is
the same to the byte.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.errors import ConfigError, DataError, StoppedError
from experiments.processes.interruption import StopRequest
from experiments.storage.chunks import Chunks, write_npz
from experiments.storage.digests import json_digest
from experiments.storage.parquet import read_about, write_parquet

__all__ = ["SUFFIXES", "Rows", "progress", "write_rows"]

SUFFIXES = (".npz", ".parquet")
"""Of the files that are written."""


class Rows(NamedTuple):
    """What is to be written.

    Attributes:
      num: how many rows there are.
      make: `make(first, last) -> {name: [last - first, ...]}`; the values of a row do
        not depend on where the chunks end.
      identity: JSON; what the values depend on.
      about: JSON; told in the file.
    """

    num: int
    make: Callable[[int, int], Mapping[str, np.ndarray]]
    identity: Mapping[str, Any]
    about: Mapping[str, Any]


def write_rows(
    output: Path,
    rows: Rows,
    stop: StopRequest,
    report: Callable[[int], None],
    *,
    chunk_size: int = 5000,
) -> bool:
    """Makes rows that are missing and writes all of them.

    Args:
      output: the file, of `SUFFIXES`.
      rows: what is written.
      stop: asked after every chunk.
      report: `report(done)`, called after every chunk.
      chunk_size: rows at a time.

    Returns:
      Whether there was anything to do: False where the file is there.

    Raises:
      ConfigError: the file's name has another suffix.
      DataError: there is a file of other rows.
      StoppedError: a signal came; what was made is on the disk.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"--output={output}: expected a file name that ends in "
            f"{' or '.join(SUFFIXES)}"
        )
    about = {**rows.about, "identity": json_digest(rows.identity)}
    identity = {**rows.identity, "chunk_size": chunk_size}
    chunks = Chunks(output.with_name(f"{output.name}.chunks"), identity)
    if output.exists():
        if _about(output) == about:
            chunks.remove()  # of a process that was killed before it could
            return False
        raise DataError(
            f"{output} is there, and is of another run, checkpoint, input or option: "
            "give another --output, or remove it"
        )
    firsts = range(0, rows.num, chunk_size)
    for number, first in enumerate(firsts):
        if chunks.get(number) is None:
            last = min(first + chunk_size, rows.num)
            chunks.put(number, rows.make(first, last))
            report(last)
            if stop.requested and last < rows.num:
                raise StoppedError

    @lru_cache(maxsize=1)
    def chunk(number: int) -> Mapping[str, np.ndarray]:
        found = chunks.get(number)
        if found is None:
            raise DataError(
                f"a chunk beside {output} was damaged while it was read: give the same "
                "command again"
            )
        return found

    # What a kill leaves of it goes with the chunks.
    unfinished = chunks.folder / f"whole{output.suffix}"
    if output.suffix == ".npz":
        arrays = {
            name: (value.dtype, (rows.num, *value.shape[1:]))
            for name, value in chunk(0).items()
        }
        text = np.array(json.dumps(about, sort_keys=True))
        write_npz(unfinished, arrays, chunk, len(firsts), about=text)
    else:
        pieces = (chunk(number) for number in range(len(firsts)))
        write_parquet(unfinished, pieces, about)
    unfinished.replace(output)
    chunks.remove()
    return True


def progress(what: str, total: int) -> Callable[[int], None]:
    """A `report` for `write_rows`: one line, written over."""

    def report(done: int) -> None:
        end = "\n" if done == total else "\r"
        print(f"{done:,}/{total:,} {what}   ", end=end, flush=True)

    return report


def _about(output: Path) -> Any:
    try:
        if output.suffix == ".npz":
            with np.load(output, allow_pickle=False) as arrays:
                return json.loads(str(arrays["about"]))
        return read_about(output)
    except Exception:  # a file of something else makes a reader raise what it likes
        return None
