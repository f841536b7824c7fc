"""Every dataset through one door: `load` returns checked uint8 arrays in memory.

What is wrong with a file is found before a number is read from it, and said in one
sentence (`DataError`). `python -m experiments.data` lists what is there.

Three kinds of files are read: IDX (the format of MNIST; MNIST itself is bundled), the
`.mat` of Frey Face (`experiments.data_files`), and those of tensorflow-datasets
(`experiments.tfds_source`).
"""

import argparse
import operator
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from experiments import data_files, tfds_source
from experiments.data_files import DataError, Source, Split, digest

__all__ = ["DataError", "Dataset", "Split", "digest", "load"]


class Dataset(NamedTuple):
    """A dataset in memory.

    name: as it was asked for.
    image_shape: (H, W), or (H, W, C) for colour.
    train, valid, test: the splits; `valid` has no rows when `num_valid` is 0.
    sha256: `digest` of the whole source, before any splitting: it identifies the data.
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

    Where it is looked for:

    - `mnist` without a path: the bundled files.
    - `path` is a directory with IDX files (plain or .gz, `train-images-idx3-ubyte` or
      `train-images.idx3-ubyte`): these, whatever the name. Under the name `mnist` they
      must be MNIST's, by their sums.
    - `path` is a `.mat` file, or the name is `frey_face` and `path` the directory of
      `frey_rawface.mat`: Frey Face, no labels. The 1965 frames are put in a fixed
      random order; the first 1600 are the training set and the last 365 the test set.
      Under the name `frey_face` the frames must be the known ones, by their sum.
    - otherwise a tensorflow-datasets name (`fashion_mnist`, `emnist/letters`,
      `cifar10:3.0.2`) with `path` its data directory, see `experiments.tfds_source`.

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
    except OSError as error:  # raised by a mere look at a path, such as no permission
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}): expected "
            f"the files of {name}; check the path and its permissions."
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
        return data_files.read_idx(name, data_files.BUNDLED)
    if name == "frey_face" or (place is not None and place.suffix == ".mat"):
        return data_files.read_frey_face(name, place)
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
    if place is not None and data_files.has_idx(place):
        return data_files.read_idx(name, place)
    return tfds_source.read(name, place)


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


_DESCRIPTION = """\
list     what is here: image shape, counts, mean training pixel (0 to 1), sha256
prepare  download a dataset of tensorflow-datasets and make it ready to be read"""

_EXAMPLES = """\
examples:
  python -m experiments.data
  python -m experiments.data list my_digits --path DIR_OF_IDX_FILES
  python -m experiments.data list --path frey_rawface.mat
  python -m experiments.data prepare fashion_mnist --data_dir DIR"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line and exit code 1, as for every other usage error of the project.
        self.exit(1, f"{self.prog}: error: {message} (see --help)\n")


def _describe(data: Dataset) -> str:
    labels = data.train.labels
    classes = "none" if labels is None else f"{labels.min()} to {labels.max()}"
    return (
        f"{data.name}\n"
        f"  images {' x '.join(map(str, data.image_shape))}, "
        f"train {len(data.train.images)}, test {len(data.test.images)}, "
        f"labels {classes}, training mean {data.train.images.mean() / 255:.4f}\n"
        f"  sha256 {data.sha256}\n"
        f"  source {data.source}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Lists or prepares datasets; returns the exit code, 0 or 1."""
    parser = _Parser(
        prog="python -m experiments.data",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", nargs="?", choices=("list", "prepare"), default="list"
    )
    parser.add_argument("name", nargs="?", default="", help="one dataset, not all")
    parser.add_argument(
        "--path", default="", help="a directory of IDX files, or a .mat file, to list"
    )
    parser.add_argument(
        "--data_dir",
        default="",
        help="where tensorflow-datasets keeps its files (default: $TFDS_DATA_DIR, or "
        "tensorflow_datasets in the home directory)",
    )
    args = parser.parse_args(argv)
    if args.command == "prepare" and (not args.name or args.path):
        parser.error("prepare takes a NAME and, if need be, --data_dir")
    if args.path and args.data_dir:
        parser.error("--path and --data_dir exclude each other")

    data_dir = tfds_source.default_data_dir()
    if args.data_dir:
        data_dir = Path(args.data_dir).expanduser()
    try:
        if args.command == "prepare":
            print(f"prepared in {tfds_source.prepare(args.name, data_dir)}")
            print(_describe(load(args.name, str(data_dir), num_valid=0)))
            return 0
        if args.name or args.path:
            path = args.path or args.data_dir
            print(_describe(load(args.name or _guess(path), path, num_valid=0)))
            return 0
        print(_describe(load(num_valid=0)))
        prepared = tfds_source.list_prepared(data_dir)
    except (DataError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    failed = 0
    for name, directory in prepared:
        try:
            if tfds_source.is_recorded(directory):
                print(_describe(load(name, str(data_dir), num_valid=0)))
            else:
                print(f"{name}\n  prepared, not read yet (list {name} reads it)")
                print(f"  source tensorflow-datasets in {directory}")
        except DataError as error:
            failed = 1
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
    if not prepared:
        print(f"no prepared tensorflow-datasets in {data_dir}")
    return failed


def _guess(path: str) -> str:
    """Returns the name under which the files at `path` are meant."""
    place = Path(path).expanduser()
    is_mat = place.suffix == ".mat" or (place / "frey_rawface.mat").is_file()
    return "frey_face" if is_mat else "mnist"


if __name__ == "__main__":
    sys.exit(main())
