"""Lists and prepares datasets: `python -m experiments.data`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.arguments import Parser
from experiments.data import Dataset, load, tfds
from experiments.errors import USAGE, ExperimentError

__all__ = []

_DESCRIPTION = """\
list     what is here: image shape, counts, mean training pixel (0 to 1), sha256
prepare  download a dataset of tensorflow-datasets and make it ready to be read"""
_EXAMPLES = """\
examples:
  python -m experiments.data
  python -m experiments.data list my_digits --path DIR_OF_IDX_FILES
  python -m experiments.data list --path frey_rawface.mat
  python -m experiments.data prepare fashion_mnist --data_dir DIR"""


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
    """Lists or prepares datasets.

    >>> main(["list", "mnist"])  # doctest: +ELLIPSIS
    mnist
      images 28 x 28, train 60000, test 10000, labels 0 to 9, training mean 0.1307
      sha256 ...
      source bundled with the project
    0

    Args:
      argv: the arguments; None takes those of the command.

    Returns:
      The exit code: 0, or 1 where something could not be read.
    """
    try:
        args = _arguments(argv)
        data_dir = tfds.default_data_dir()
        if args.data_dir:
            data_dir = Path(args.data_dir).expanduser()
        if args.command == "prepare":
            print(f"prepared in {tfds.prepare(args.name, data_dir)}")
            print(_describe(load(args.name, str(data_dir), num_valid=0)))
        elif args.name or args.path:
            path = args.path or args.data_dir
            print(_describe(load(args.name or _guess(path), path, num_valid=0)))
        else:
            print(_describe(load(num_valid=0)))
            return _list_prepared(data_dir)
    except (ExperimentError, OSError) as error:
        return _fail(error)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m experiments.data", description=_DESCRIPTION, epilog=_EXAMPLES
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
    return args


def _list_prepared(data_dir: Path) -> int:
    """Lists what tensorflow-datasets has prepared; one that fails stops no other."""
    prepared = tfds.list_prepared(data_dir)
    exit_code = 0
    for name, directory in prepared:
        try:
            if tfds.is_cached(directory):
                print(_describe(load(name, str(data_dir), num_valid=0)))
            else:
                print(f"{name}\n  prepared, not read yet (list {name} reads it)")
                print(f"  source tensorflow-datasets in {directory}")
        except (ExperimentError, OSError) as error:
            exit_code = _fail(error)
    if not prepared:
        print(f"no prepared tensorflow-datasets in {data_dir}")
    return exit_code


def _fail(error: Exception) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return USAGE


def _guess(path: str) -> str:
    """Returns the name of the dataset that lies at `path`, from the files there."""
    place = Path(path).expanduser()
    is_mat = place.suffix == ".mat" or (place / "frey_rawface.mat").is_file()
    return "frey_face" if is_mat else "mnist"


if __name__ == "__main__":
    sys.exit(main())
