"""The arrays kept beside the prepared files, so that later reads are fast.

Two files: `aevb_arrays.bin` holds the arrays as raw bytes; its header
`aevb_arrays.json` holds their types and shapes and two sums, one over the arrays and
one over the prepared files. The sums matter: the records of tensorflow-datasets carry
hashes, but their index and its two JSON files do not, and a truncated file can read
back as `{'image': None}` without an error.
"""

import json
import logging
import math
from collections.abc import Mapping
from hashlib import file_digest
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.source import cause, contents, digest
from experiments.errors import DataError
from experiments.storage.atomic import write_atomically

__all__ = ["ARRAYS", "HEADER", "Header", "files_sha256", "is_cached"]
__all__ += ["read_arrays", "read_header", "write"]

HEADER = "aevb_arrays.json"
"""The file that says what is in `ARRAYS`."""

ARRAYS = "aevb_arrays.bin"
"""The file of the arrays."""

_log = logging.getLogger(__name__)


class Header(NamedTuple):
    """What was kept at the first read.

    files: the sha256 of the prepared files.
    sha256: the digest of the arrays.
    arrays: for each array, in order, its type and its shape.
    """

    files: str
    sha256: str
    arrays: Mapping[str, tuple[str, list[int]]]


def is_cached(directory: Path) -> bool:
    """Returns whether a dataset has been read before, so that reading it is quick.

    >>> is_cached(Path("/nowhere"))
    False
    """
    return (directory / HEADER).exists()


def files_sha256(directory: Path) -> str:
    """Returns one sha256 over the names and contents of the prepared files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     files_sha256(Path(empty))[:16]
    'e3b0c44298fc1c14'

    Raises:
      DataError: one of them cannot be read.
    """
    total = new_sha256()
    try:
        for file in sorted(directory.iterdir()):
            # Kept arrays and files that are being written are not of the dataset.
            if file.is_file() and not file.name.startswith(("aevb_arrays.", ".")):
                with file.open("rb") as stream:
                    total.update(f"{file.name} ".encode())
                    total.update(file_digest(stream, "sha256").digest())
    except OSError as error:
        raise DataError(
            f"{error.filename or directory} cannot be read "
            f"({error.strerror or cause(error)}): check its permissions, or prepare "
            "the dataset again."
        ) from error
    return total.hexdigest()


def read_header(directory: Path) -> Header | None:
    """Returns the header, None if nothing is kept.

    >>> read_header(Path("/nowhere")) is None
    True

    Raises:
      DataError: the header is damaged.
    """
    file = directory / HEADER
    if not file.exists():
        return None
    try:
        header = json.loads(file.read_bytes())
        return Header(*(header[field] for field in Header._fields))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} cannot be read ({cause(error)}): delete it, and the dataset is "
            "read from its records again."
        ) from error


def read_arrays(directory: Path, header: Header) -> dict[str, np.ndarray] | None:
    """Returns the arrays if they are as the header says, otherwise None.

    >>> read_arrays(Path("/nowhere"), Header("", "", {})) is None
    True
    """
    try:
        data = contents(directory / ARRAYS)
        arrays, start = {}, 0
        for name, (dtype, shape) in header.arrays.items():
            count = math.prod(shape)
            array = np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
            arrays[name] = array
            start += array.nbytes
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return arrays if digest(arrays) == header.sha256 else None


def write(
    directory: Path, files: str, sha256: str, arrays: Mapping[str, np.ndarray]
) -> None:
    """Keeps the arrays; logs a warning where that cannot be done.

    >>> import tempfile
    >>> arrays = {"test_images": np.zeros((1, 2, 2), np.uint8)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder), "", digest(arrays), arrays)
    ...     read_arrays(Path(folder), read_header(Path(folder)))["test_images"].shape
    (1, 2, 2)

    Args:
      directory: of the prepared files.
      files: their sha256.
      sha256: the digest of the arrays.
      arrays: of any types and shapes.
    """
    shapes = {name: (a.dtype.str, list(a.shape)) for name, a in arrays.items()}
    header = Header(files, sha256, shapes)
    try:
        # The header is written last: until it is there, nobody looks at the arrays.
        write_atomically(
            directory / ARRAYS, *map(np.ascontiguousarray, arrays.values())
        )
        text = json.dumps(header._asdict(), indent=1)
        write_atomically(directory / HEADER, text.encode())
    except OSError as error:
        _log.warning("%s is not kept in %s (%s)", ARRAYS, directory, error.strerror)
