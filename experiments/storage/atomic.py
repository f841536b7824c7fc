"""Writes files, JSON too, so that a file exists whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from experiments.errors import WorkdirError

__all__ = ["read_json", "replacing", "write_atomically", "write_json"]


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      WorkdirError: it is missing or damaged.
    """
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WorkdirError(f"{path} is damaged: {error}") from error
    return value


def write_atomically(path: str | os.PathLike[str], *parts: Any) -> Path:
    """Replaces a file as a whole: readers see the old bytes or the new, never a part.

    Args:
      path: the file to write.
      *parts: its content, bytes or contiguous arrays, one after another.

    Returns:
      The path written.

    Raises:
      OSError: the file cannot be written; an old one is then as it was.
    """
    path = Path(path)
    with replacing(path) as file:
        for part in parts:
            file.write(part)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` if the block does not fail.

    It is a hidden one beside `path`, and reaches the disk before it takes the name. The
    folder is made if it is not there.

    Raises:
      OSError: the file cannot be written; an old one is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
