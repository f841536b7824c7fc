"""The records of a prepared dataset, decoded into arrays after checks of the files."""

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from experiments.data.frey_face import split_frames
from experiments.data.source import cause, is_mapped
from experiments.errors import DataError

__all__ = ["decode", "import_tfds"]


def import_tfds() -> ModuleType:
    """Imports tensorflow-datasets, which takes seconds, and what it needs.

    >>> import_tfds().__name__  # doctest: +SKIP
    'tensorflow_datasets'

    Raises:
      DataError: a package is missing.
    """
    try:
        import array_record  # noqa: F401  tfds reads with it, but does not require it
        import importlib_resources  # noqa: F401  tfds needs it, but does not declare it
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"tensorflow-datasets cannot be imported ({error}): `pip install "
            "tensorflow-datasets importlib_resources array_record`."
        ) from error
    return tfds


def decode(name: str, directory: Path) -> dict[str, np.ndarray]:
    """Decodes the records, after a check that they are as many as promised.

    >>> decode("mnist", Path("~/tensorflow_datasets/mnist/3.0.1"))  # doctest: +SKIP

    Args:
      name: the dataset, for messages.
      directory: its version directory.

    Returns:
      `train_images` and `test_images`, uint8 [N, H, W] or [N, H, W, C], and
      `train_labels` and `test_labels`, int32 [N], where there are any.

    Raises:
      DataError: a file is damaged, the dataset is not of images of one shape, or the
        disk has no room for them.
      OSError: a file cannot be read.
    """
    tfds = import_tfds()
    _check_files(name, directory)
    try:
        splits = tfds.builder_from_directory(directory).as_data_source()
        found = {}
        for role, parts in (("train", ["train", "validation"]), ("test", ["test"])):
            if splits.get(role):
                present = {part: splits[part] for part in parts if part in splits}
                found[role] = _stack(name, directory, present)
    except DataError:
        raise
    except Exception as error:  # the parsers of four libraries raise anything
        if _is_of_the_system(error):
            raise
        raise DataError(
            f"the files of {name} in {directory} cannot be read ({cause(error)}): "
            "they are damaged or not of images; delete the directory and prepare the "
            "dataset again."
        ) from error
    if list(found) == ["train"] and re.match(r"frey_face\b", name):
        frames, _ = found["train"]
        if frames.shape == (1965, 28, 20):
            return split_frames(frames)
    if "train" not in found or "test" not in found:
        raise DataError(
            f"{name} in {directory} has the splits {', '.join(splits)}, expected train "
            "and test: choose another dataset."
        )
    arrays = {}
    for role, (images, labels) in found.items():
        arrays[f"{role}_images"] = images
        if labels is not None:
            arrays[f"{role}_labels"] = labels
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise DataError(
            f"{name} in {directory} has images of several shapes, expected one: choose "
            "another dataset."
        )
    if arrays["train_images"].max() <= 1:  # binarized_mnist holds 0 and 1
        for role in ("train", "test"):
            arrays[f"{role}_images"] *= 255
    return arrays


def _is_of_the_system(error: Exception) -> bool:
    """Whether the disk or a permission failed, not what is in a file.

    Pillow's errors about damaged images are an `OSError` too, without a number.
    """
    return isinstance(error, OSError) and error.errno is not None


def _check_files(name: str, directory: Path) -> None:
    """Compares the files with `dataset_info.json`, which no hash protects.

    A flipped digit in it loses records; a flipped letter loses a split.
    """
    try:
        info = json.loads((directory / "dataset_info.json").read_bytes())
        file_format = info.get("fileFormat", "tfrecord")
        lengths = {
            split["name"]: [int(n) for n in split.get("shardLengths", [])]
            for split in info["splits"]
        }
        present = {
            role: sorted(directory.glob(f"*-{role}.array_record-*")) for role in lengths
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"dataset_info.json of {name} in {directory} cannot be read "
            f"({cause(error)}): delete the directory and prepare the dataset again."
        ) from error
    if file_format != "array_record":
        raise DataError(
            f"{name} in {directory} was prepared as {file_format}, expected "
            "array_record, which is read without TensorFlow: prepare it again with "
            "`python -m experiments.data prepare` in another data directory."
        )
    try:
        # A data source of a whole file counts its records by opening it.
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        got = {
            role: [len(ArrayRecordDataSource(str(file))) for file in present[role]]
            for role in present
        }
    except Exception as error:
        if _is_of_the_system(error):
            raise
        raise DataError(
            f"a file of {name} in {directory} is damaged ({cause(error)}): delete the "
            "directory and prepare the dataset again."
        ) from error
    undeclared = len(list(directory.glob("*.array_record-*"))) - sum(
        len(files) for files in present.values()
    )
    if got != lengths or undeclared:
        raise DataError(
            f"{name} in {directory} has shards of {got} records, {undeclared} of no "
            f"known split, but dataset_info.json says {lengths}: delete the directory "
            "and prepare the dataset again."
        )


def _stack(
    name: str, directory: Path, parts: Mapping[str, Sequence[Any]]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the images [N, H, W] or [N, H, W, C] and the labels [N] of splits."""
    images: np.ndarray | None = None
    labels: list[Any] = []
    total = sum(map(len, parts.values()))
    for role, data in parts.items():
        for i, example in enumerate(data):
            image = example.get("image") if isinstance(example, dict) else None
            if not isinstance(image, np.ndarray):
                raise DataError(
                    f"record {i} of {role} has no image (it reads as {type(image)}): "
                    "the file is truncated, or the dataset is not of images."
                )
            if image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise DataError(
                    f"image {i} of {role} is {image.dtype} of shape {image.shape}, "
                    "expected uint8 of 2 or 3 axes: choose another dataset."
                )
            if images is None:
                images = _allocate((total, *image.shape), name, directory)
            if image.shape != images.shape[1:]:
                raise DataError(
                    f"{name} in {directory} has images of several shapes, "
                    f"{images.shape[1:]} and {image.shape}, expected one: choose "
                    "another dataset."
                )
            images[len(labels)] = image
            labels.append(example.get("label"))
    if images is None or len(labels) != total:
        raise DataError(
            f"{name} in {directory} has {len(labels)} records where its files promise "
            f"{total}: delete the directory and prepare the dataset again."
        )
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if any(np.ndim(label) or label is None for label in labels):
        return images, None
    as_array = np.asarray(labels)
    return images, as_array.astype(np.int32) if as_array.dtype.kind in "iu" else None


def _allocate(shape: tuple[int, ...], name: str, directory: Path) -> np.ndarray:
    """Returns uint8 zeros to be filled; many lie in a nameless file in `directory`.

    The file's space is reserved first. A mapped file with holes in it takes its space
    at the first write to each page, and a disk that is full then kills the process
    (SIGBUS): no exception can be caught.
    """
    size = math.prod(shape)
    if is_mapped(size):
        try:
            with tempfile.TemporaryFile(prefix=".aevb", dir=directory) as file:
                _reserve(file, size)
                return np.memmap(file, np.uint8, mode="r+", shape=shape)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                free = shutil.disk_usage(directory).free
                raise DataError(
                    f"decoding {name} needs {size} bytes in {directory}, where "
                    f"{free} are free ({error.strerror}): make room there, or move "
                    "the data directory to a larger disk and give it as the path."
                ) from error
            # A directory that cannot be written to: there is still the memory.
    return np.zeros(shape, np.uint8)


def _reserve(file: IO[bytes], size: int) -> None:
    """Makes a file `size` bytes long, without holes."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, 2**20):  # macOS
        file.write(bytes(min(2**20, size - start)))
    file.flush()
