"""IDX files (the format of MNIST), checked; MNIST itself is bundled."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from experiments.data.source import Source, check_range, make_source, read_bytes
from experiments.errors import DataError

__all__ = ["BUNDLED", "MNIST_SHA256", "has_idx", "read_idx", "read_images"]

BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "mnist"
"""The directory of the bundled MNIST."""

# The .gz around the files differ from one distributor to the next.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
"""The sha256 of MNIST's four files, unpacked, by their names."""


def _unpack(file: Path) -> memoryview:
    data = read_bytes(file)
    if bytes(data[:2]) != b"\x1f\x8b":
        return data  # plain, whatever its suffix: browsers unpack and keep the name
    try:
        return memoryview(gzip.decompress(data))
    except EOFError as error:
        raise DataError(
            f"{file} is a truncated gzip file: {len(data)} bytes, its end is missing; "
            "copy or download it again."
        ) from error
    except (OSError, zlib.error) as error:
        raise DataError(
            f"{file} is a damaged gzip file ({error}): copy or download it again."
        ) from error


def _idx_files(directory: Path, stem: str) -> list[Path]:
    names = [stem, stem.replace("-idx", ".idx")]
    files = [directory / (name + gz) for name in names for gz in ("", ".gz")]
    return [file for file in files if file.exists()]


def _idx(directory: Path, stem: str, ndim: int) -> tuple[np.ndarray, Path, memoryview]:
    """Returns the uint8 array of an IDX file, the file, and its unpacked bytes."""
    files = _idx_files(directory, stem)
    if not files:
        raise DataError(
            f"{stem} (or {stem}.gz) is missing in {directory}: put the four files "
            f"{', '.join(MNIST_SHA256)} there."
        )
    file = files[0]
    array, data = _array(file, ndim)
    return array, file, data


def _array(file: Path, ndim: int) -> tuple[np.ndarray, memoryview]:
    data = _unpack(file)
    start = 4 + 4 * ndim
    if len(data) < start:
        raise DataError(
            f"{file} holds {len(data)} bytes, less than the {start} of an IDX header: "
            "copy or download it again."
        )
    magic, *shape = struct.unpack_from(f">{1 + ndim}I", data)
    if magic != 0x0800 + ndim:
        raise DataError(
            f"{file} starts with {magic:#010x}, expected the magic number "
            f"{0x0800 + ndim:#010x} of {ndim}-dimensional uint8 IDX data; "
            "put the right file there."
        )
    if math.prod(shape) != len(data) - start or 0 in shape:
        raise DataError(
            f"{file} has {len(data) - start} bytes of data, but its header says "
            f"{' x '.join(map(str, shape))}: it is truncated or damaged; copy or "
            "download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape), data


def read_images(file: Path) -> np.ndarray:
    """Reads the images of one IDX file.

    >>> read_images(BUNDLED / "t10k-images-idx3-ubyte.gz").shape
    (10000, 28, 28)

    Args:
      file: plain or .gz.

    Returns:
      `[N, H, W]` uint8.

    Raises:
      DataError: it is damaged, or holds no images.
    """
    images, _ = _array(file, 3)
    return images


def has_idx(directory: Path) -> bool:
    """Returns whether any of the four IDX files is in `directory`.

    >>> has_idx(BUNDLED)
    True
    """
    return any(_idx_files(directory, stem) for stem in MNIST_SHA256)


def read_idx(name: str, directory: Path) -> Source:
    """Reads the four IDX files in `directory`.

    >>> read_idx("mnist", BUNDLED).test.images.shape
    (10000, 784)

    Args:
      name: the dataset; under the name `mnist` the files must be MNIST's, by their
        sums.
      directory: where the files are, plain or .gz.

    Returns:
      The dataset. Its sha256 is over the unpacked arrays, so it is the same wherever
      the files are and however they are packed.

    Raises:
      DataError: a file is missing, damaged or not what it should be.
    """
    arrays, unpacked = {}, {}
    for role, prefix in (("train", "train"), ("test", "t10k")):
        stem = f"{prefix}-images-idx3-ubyte"
        images, file, unpacked[stem] = _idx(directory, stem, 3)
        check_range(images, file)
        stem = f"{prefix}-labels-idx1-ubyte"
        labels, labels_file, unpacked[stem] = _idx(directory, stem, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{file} has {len(images)} images, but {labels_file.name} beside it "
                f"has {len(labels)} labels: they are not of one dataset."
            )
        if name == "mnist" and labels.max() > 9:
            raise DataError(
                f"{labels_file} has a label {labels.max()}, expected 0 to 9: it is "
                "not MNIST; load it under another name."
            )
        arrays[f"{role}_images"] = images
        arrays[f"{role}_labels"] = labels.astype(np.int32)
    shapes = [arrays[f"{role}_images"].shape[1:] for role in ("train", "test")]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{directory} has training images of {shapes[0]} and test images of "
            f"{shapes[1]} pixels: they are not of one dataset."
        )
    for stem, data in unpacked.items() if name == "mnist" else ():
        got = hashlib.sha256(data).hexdigest()
        if got != MNIST_SHA256[stem]:
            raise DataError(
                f"{stem} in {directory} is not MNIST's: its sha256 unpacked is "
                f"{got[:16]}..., expected {MNIST_SHA256[stem][:16]}...; copy it again, "
                "or load it under another name if it is another dataset."
            )
    bundled = directory == BUNDLED
    where = "bundled with the project" if bundled else f"IDX files in {directory}"
    return make_source(arrays, where)
