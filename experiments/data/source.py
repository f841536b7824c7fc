"""What every reader of data shares: checked bytes, and the arrays it hands over."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.errors import DataError

__all__ = [
    "MAPPED_BYTES",
    "Source",
    "Split",
    "cause",
    "check_range",
    "contents",
    "digest",
    "is_mapped",
    "make_source",
    "read_bytes",
]

MAPPED_BYTES = 2**28
"""A file of more bytes is not read into memory but mapped: its pages come on demand."""


class Split(NamedTuple):
    """The datapoints of one role.

    images: [N, D] uint8, C-contiguous, read-only; D is the product of `image_shape`.
    labels: [N] int32, or None where the dataset has none.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Source(NamedTuple):
    """What a reader hands to `load`: a dataset before its validation set is cut off.

    image_shape: (H, W), or (H, W, C) for colour.
    train, test: the splits.
    sha256: the sum that identifies the data; it does not depend on where they lie.
    source: where they came from, for a person to read.
    """

    image_shape: tuple[int, ...]
    train: Split
    test: Split
    sha256: str
    source: str


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns one sha256 over the names, types, shapes and bytes of `arrays`.

    >>> digest({"images": np.zeros((2, 3), np.uint8)})[:16]
    '720f9112057550e0'
    """
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def cause(error: BaseException) -> str:
    """Returns the type of an error and the first line that it says, for a message.

    >>> cause(KeyError("ff"))
    "KeyError: 'ff'"
    """
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def make_source(
    arrays: Mapping[str, np.ndarray], source: str, sha256: str = ""
) -> Source:
    """Builds a `Source` from whole arrays.

    >>> images = np.zeros((4, 3, 2), np.uint8)
    >>> made = make_source({"train_images": images, "test_images": images}, "memory")
    >>> made.image_shape, made.train.images.shape, made.train.labels
    ((3, 2), (4, 6), None)

    Args:
      arrays: `train_images` and `test_images`, uint8 [N, H, W] or [N, H, W, C], and
        `train_labels` and `test_labels`, int32 [N], if there are any.
      source: where they came from.
      sha256: the digest of the dataset; "" computes it from `arrays`.
    """

    def split(role: str) -> Split:
        images = np.ascontiguousarray(arrays[f"{role}_images"])
        return Split(images.reshape(len(images), -1), arrays.get(f"{role}_labels"))

    image_shape = arrays["train_images"].shape[1:]
    return Source(
        image_shape=image_shape,
        train=split("train"),
        test=split("test"),
        sha256=sha256 or digest(arrays),
        source=source,
    )


def is_mapped(num_bytes: int) -> bool:
    """Returns whether so many bytes stay on the disk, mapped.

    >>> is_mapped(1000)
    False
    """
    return num_bytes > MAPPED_BYTES


def contents(file: Path) -> memoryview:
    """Returns the bytes of a file: it reads a small file and maps a large one.

    >>> len(contents(Path(__file__))) > 1000
    True

    Raises:
      OSError: the file cannot be read.
    """
    if is_mapped(file.stat().st_size):
        return np.memmap(file, np.uint8, mode="r").data
    return memoryview(file.read_bytes())


def read_bytes(file: Path) -> memoryview:
    """Returns the `contents` of a data file.

    >>> read_bytes(Path("/nowhere/images"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    experiments.errors.DataError: /nowhere/images cannot be read ...

    Raises:
      DataError: the file cannot be read, is empty, or is a web page.
    """
    try:
        data = contents(file)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror or cause(error)}): expected a "
            "data file; check the path and its permissions."
        ) from error
    if not len(data):
        raise DataError(f"{file} is empty (0 bytes): copy or download it again.")
    if (
        bytes(data[:512])
        .lstrip()
        .lower()
        .startswith((b"<!doctype", b"<html", b"<?xml"))
    ):
        raise DataError(
            f"{file} is an HTML page, not data (a download that failed often leaves "
            "one): download it again from a working address."
        )
    return data


def check_range(images: np.ndarray, where: object) -> None:
    """Refuses images of 0 and 1 where grey levels are expected.

    >>> check_range(np.array([[0, 255]], np.uint8), "the image")

    Args:
      images: uint8 of any shape, not empty.
      where: what holds them, for the message.

    Raises:
      DataError: no pixel is above 1.
    """
    if images.max() <= 1:
        raise DataError(
            f"{where} has pixels from {images.min()} to {images.max()}, expected grey "
            "levels from 0 to 255: multiply binary pixels by 255."
        )
