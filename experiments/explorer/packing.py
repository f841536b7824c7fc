"""Arrays as few bytes, for a page to read: float32, bytes, bits, and rows of integers.

A row of a weight matrix is integers of 16 or 24 bits times one float32. Beside those of
float32, 24 bits lose nothing that is seen, and save a quarter. `assets/data.js` reads
what is written here.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Rows", "Store", "pack_rows", "unpack_rows"]


class Rows(NamedTuple):
    """A matrix as integers times a number a row.

    Attributes:
      integers: `[n, m]` int32, within 2^(8 · num_bytes − 1) of 0.
      scales: `[n]` float32.
      num_bytes: of an integer.
    """

    integers: NDArray[np.int32]
    scales: NDArray[np.float32]
    num_bytes: int

    def to_bytes(self) -> bytes:
        """The integers, little-endian, row by row."""
        flat = self.integers.astype("<i4").reshape(-1, 1).view(np.uint8)
        return flat[:, : self.num_bytes].tobytes()


def pack_rows(matrix: ArrayLike, num_bytes: int) -> Rows:
    """Rounds a matrix to integers times the largest number of each row.

    Args:
      matrix: `[n, m]` finite.
      num_bytes: of an integer, 1 to 3.

    Returns:
      `Rows`, each number within half a step of its own.

    Raises:
      ValueError: a number is not finite, or the integers have another size.

    >>> rows = pack_rows([[0.5, -1.0], [0.0, 0.0]], 1)
    >>> rows.integers.tolist(), rows.to_bytes().hex()
    ([[64, -127], [0, 0]], '40810000')
    """
    if num_bytes not in (1, 2, 3):
        raise ValueError(f"num_bytes is {num_bytes}, expected 1, 2 or 3")
    values = np.asarray(matrix, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a weight is not finite, expected numbers to round")
    limit = 2 ** (8 * num_bytes - 1) - 1
    scales = (np.abs(values).max(axis=1) / limit).astype(np.float32)
    # A row whose numbers are all too small to have a scale is 0, as the scale is.
    divisor = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
    integers = np.clip(np.rint(values / divisor), -limit, limit)
    return Rows(integers.astype(np.int32), scales, num_bytes)


def unpack_rows(rows: Rows) -> NDArray[np.float32]:
    """The matrix that a page will read: `[n, m]`, the same bits.

    >>> unpack_rows(pack_rows([[1.0, -0.25]], 2)).round(4).tolist()
    [[1.0, -0.25]]
    """
    product = rows.integers * rows.scales.astype(np.float64)[:, None]
    return product.astype(np.float32)


class Store:
    """Arrays one after another, and a directory of where each is.

    >>> store = Store()
    >>> store.put("labels", np.array([3, 1], np.uint8))
    >>> store.put_bits("images", np.array([[1, 0, 1]], np.uint8))
    >>> store.directory["images"]
    {'kind': 'bits', 'shape': [1, 3], 'offset': 2, 'size': 1}
    >>> store.to_bytes().hex()
    '0301a0'
    """

    def __init__(self) -> None:
        """It is empty at first."""
        self.directory: dict[str, dict[str, Any]] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def put(self, name: str, array: ArrayLike) -> None:
        """Adds an array: bytes as they are, everything else as float32."""
        array = np.asarray(array)
        kind = "uint8" if array.dtype == np.uint8 else "float32"
        data = array.astype("<f4" if kind == "float32" else np.uint8).tobytes()
        self._add(name, data, {"kind": kind, "shape": list(array.shape)})

    def put_bits(self, name: str, array: ArrayLike) -> None:
        """Adds an array of 0 and 1, eight to a byte; each row starts a byte."""
        array = np.asarray(array)
        data = np.packbits(array, axis=-1).tobytes()
        self._add(name, data, {"kind": "bits", "shape": list(array.shape)})

    def put_rows(self, name: str, rows: Rows) -> None:
        """Adds a matrix of rounded rows: the scales first."""
        data = rows.scales.astype("<f4").tobytes() + rows.to_bytes()
        entry = {"kind": "rows", "shape": list(rows.integers.shape)}
        self._add(name, data, entry | {"bytes": rows.num_bytes})

    def to_bytes(self) -> bytes:
        """Everything that was put."""
        return b"".join(self._parts)

    def _add(self, name: str, data: bytes, entry: dict[str, Any]) -> None:
        self.directory[name] = entry | {"offset": self._size, "size": len(data)}
        self._parts.append(data)
        self._size += len(data)
