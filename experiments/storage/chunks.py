"""Large arrays that are made chunk by chunk, and become one file when all are there."""

import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.storage.atomic import replacing, write_atomically
from experiments.storage.digests import json_digest

__all__ = ["Chunks", "write_npz"]


class Chunks:
    """Chunks of named arrays, each in a file of its own, with its sha256 in the name.

    A chunk that is damaged, or of other work, is not there.

    Attributes:
      folder: of the chunks, and of what is made of them until it is whole.

    >>> import tempfile
    >>> chunks = Chunks(Path(tempfile.mkdtemp()), {"step": 10})
    >>> chunks.put(0, {"mean": np.zeros((2, 3))})
    >>> chunks.get(0)["mean"].shape
    (2, 3)
    >>> chunks.get(1) is None
    True
    """

    def __init__(self, folder: Path, identity: Any) -> None:
        """Continues what is in a folder of the same work.

        Args:
          folder: of the chunks; made when the first is put.
          identity: JSON that tells the work from other work.
        """
        self.folder, self._work = folder, json_digest(identity)[:16]

    def put(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps a chunk; it is on the disk when this returns."""
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        content = file.getvalue()
        write_atomically(self._path(number, hashlib.sha256(content)), content)

    def get(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of a chunk, or None."""
        for path in self.folder.glob(f"{self._work}-{number:06d}-*.npz"):
            content = path.read_bytes()
            if path == self._path(number, hashlib.sha256(content)):
                with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                    return dict(arrays)
        return None

    def remove(self) -> None:
        """Removes the folder: what it had is in the file that was made of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int, digest: Any) -> Path:
        return self.folder / f"{self._work}-{number:06d}-{digest.hexdigest()[:32]}.npz"


def write_npz(
    path: Path,
    arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    chunk: Callable[[int], Mapping[str, np.ndarray]],
    num_chunks: int,
    **others: np.ndarray,
) -> None:
    """Writes an NPZ of arrays that are larger than memory: whole, or not at all.

    The bytes follow from the content: no clock is in them.

    Args:
      path: the file.
      arrays: `{name: (dtype, shape)}` of the whole arrays.
      chunk: `chunk(i)`, the i-th piece of each along the first axis.
      num_chunks: how many there are.
      **others: small arrays, written as they are.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, value in others.items():
            with archive.open(_member(name), "w") as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
        for name, (dtype, shape) in arrays.items():
            with archive.open(_member(name), "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(member, header)
                for i in range(num_chunks):
                    member.write(np.ascontiguousarray(chunk(i)[name]).tobytes())


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # of 1980, whenever it is made
