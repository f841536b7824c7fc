"""Rows of data that may lie on the disk."""

from typing import Any

import numpy as np

from experiments.data.source import cause
from experiments.errors import DataError

__all__ = ["read_rows"]


def read_rows(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Returns `images[indices]`, read in the order in which the rows lie on the disk.

    >>> images = np.arange(8, dtype=np.uint8).reshape(4, 2)
    >>> read_rows(images, np.array([3, 0]))
    array([[6, 7],
           [0, 1]], dtype=uint8)

    Args:
      images: [N, ...], in memory or mapped (`numpy.memmap`).
      indices: integers of any shape, from 0 to N - 1.

    Returns:
      [*indices.shape, ...], a new array in memory.

    Raises:
      DataError: the rows cannot be read.
    """
    flat = indices.reshape(-1)
    order = np.argsort(flat, kind="stable")
    rows = np.empty((len(flat), *images.shape[1:]), images.dtype)
    try:
        rows[order] = images[flat[order]]
    except OSError as error:
        name = error.filename or _file(images) or "the training images"
        raise DataError(
            f"{name} cannot be read ({error.strerror or cause(error)}): expected "
            f"{len(flat)} of its rows; check the disk and the connection to it, then "
            "give the same command again."
        ) from error
    return rows.reshape(*indices.shape, *images.shape[1:])


def _file(array: Any) -> str:
    """Returns the name of the file that an array is a view of, "" if there is none."""
    while array is not None:
        name = getattr(array, "filename", None)  # of a numpy.memmap
        if name:
            return str(name)
        # `numpy.frombuffer` has a memoryview as its base.
        array = array.obj if isinstance(array, memoryview) else array.base
        if not isinstance(array, np.ndarray | memoryview):
            return ""
    return ""
