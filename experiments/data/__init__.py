"""Every dataset through one door: `load` returns checked uint8 arrays.

`load` checks a file before it returns a number from it, and says in one sentence what
is wrong (`DataError`). `python -m experiments.data` lists the datasets that are there.

There is a reader for each of three formats: IDX (`idx`; MNIST itself is bundled), the
`.mat` of Frey Face (`frey_face`), and tensorflow-datasets (`tfds`). A reader returns a
`Source`; `_read` chooses it.
"""

import operator
from pathlib import Path
from typing import NamedTuple

from experiments.data import tfds
from experiments.data.frey_face import read_frey_face
from experiments.data.idx import BUNDLED, has_idx, read_idx
from experiments.data.rows import read_rows
from experiments.data.source import Source, Split, cause
from experiments.errors import DataError

__all__ = ["Dataset", "Split", "load", "read_rows"]


class Dataset(NamedTuple):
    """A dataset: in memory, or mapped where it is large.

    name: as it was asked for.
    image_shape: (H, W), or (H, W, C) for colour.
    train, valid, test: the splits; `valid` has no rows when `num_valid` is 0.
    sha256: identifies the data: a sum over the whole source, before any splitting; it
      depends neither on where the files lie nor on how they are packed.
    source: where it came from, for a person to read.
    """

    name: str
    image_shape: tuple[int, ...]
    train: Split
    valid: Split
    test: Split
    sha256: str
    source: str


def load(
    name: str = "mnist",
    path: str = "",
    *,
    num_valid: int = 10_000,
    num_train: int = 0,
    num_test: int = 0,
) -> Dataset:
    """Returns a dataset as uint8 arrays, checked, in the same order at every call.

    Where `load` looks for it:

    - `mnist` without a path: the bundled files.
    - `path` is a directory with IDX files (plain or .gz, `train-images-idx3-ubyte` or
      `train-images.idx3-ubyte`): these, whatever the name. Under the name `mnist` they
      must be MNIST's, by their sums.
    - `path` is a `.mat` file, or the name is `frey_face` and `path` the directory of
      `frey_rawface.mat`: Frey Face, no labels. The 1965 frames are put in a fixed
      random order; the first 1600 are the training set and the last 365 the test set.
      Under the name `frey_face` the frames must be the known ones, by their sum. A
      `frey_face` that was prepared with tensorflow-datasets keeps its splits; if it is
      one split of 1965 frames, it is split in the same way.
    - otherwise a tensorflow-datasets name (`fashion_mnist`, `emnist/letters`,
      `cifar10:3.0.2`) with `path` its data directory, see `experiments.data.tfds`.

    Args:
      name: the dataset.
      path: a file or a directory; "" is the default place.
      num_valid: how many of the last training points become the validation set.
      num_train: how many of the first training points are kept; 0 keeps all that
        `num_valid` leaves.
      num_test: how many of the first test points are kept; 0 keeps all.

    Raises:
      DataError: a file is missing, damaged or not what it should be, or a count is
        negative or too large. Nothing is left half-written.

    >>> data = load(num_train=100, num_test=10)
    >>> data.train.images.shape, data.valid.images.shape, data.test.images.shape
    ((100, 784), (10000, 784), (10, 784))
    """
    num_valid = _count("num_valid", num_valid)
    num_train = _count("num_train", num_train)
    num_test = _count("num_test", num_test)
    try:
        source = _read(name, path)
    except OSError as error:  # a mere look at a path raises it, if permission is denied
        place = error.filename or path or "the data directory"
        raise DataError(
            f"{place} cannot be read ({error.strerror or cause(error)}): expected the "
            f"files of {name}; check the path, its permissions and the disk."
        ) from error
    available = len(source.train.images)
    if num_valid >= available:
        raise DataError(
            f"num_valid={num_valid} leaves no training points of the {available} of "
            f"{name}: give a smaller num_valid."
        )
    available -= num_valid
    num_train = num_train or available
    if num_train > available:
        raise DataError(
            f"num_train={num_train} is more than the {available} training points of "
            f"{name} that num_valid={num_valid} leaves: give less of either."
        )
    num_test = num_test or len(source.test.images)
    if num_test > len(source.test.images):
        raise DataError(
            f"num_test={num_test} is more than the {len(source.test.images)} test "
            f"points of {name}: give a smaller num_test, or 0 for all."
        )
    return Dataset(
        name=name,
        image_shape=source.image_shape,
        train=_rows(source.train, slice(0, num_train)),
        valid=_rows(source.train, slice(available, available + num_valid)),
        test=_rows(source.test, slice(0, num_test)),
        sha256=source.sha256,
        source=source.source,
    )


def _read(name: str, path: str) -> Source:
    place = Path(path).expanduser() if path else None
    if place is None and name == "mnist":
        return read_idx(name, BUNDLED)
    if place is not None and place.suffix == ".mat":
        return read_frey_face(name, place)
    if name == "frey_face" and (place is None or not tfds.is_prepared(name, place)):
        return read_frey_face(name, place)
    if place is not None and place.is_file():
        raise DataError(
            f"{place} is a file, but {name} is read from a directory: give the "
            "directory that holds its files (only a .mat is given as a file)."
        )
    if place is not None and not place.is_dir():
        raise DataError(
            f"{place} does not exist: give the directory that holds the files of "
            f"{name}."
        )
    if place is not None and has_idx(place):
        return read_idx(name, place)
    return tfds.read(name, place)


def _count(field: str, value: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = -1
    if count < 0:
        raise DataError(f"{field}={value!r} is not a count: give an integer >= 0.")
    return count


def _rows(split: Split, rows: slice) -> Split:
    images, labels = split.images[rows], split.labels
    labels = None if labels is None else labels[rows]
    for array in (images, labels):
        if array is not None:
            array.setflags(write=False)
    return Split(images, labels)
