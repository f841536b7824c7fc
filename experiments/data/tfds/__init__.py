"""Image datasets of tensorflow-datasets, read without TensorFlow.

`read` looks for prepared files before it imports anything. Where there are none it
fails at once, while tensorflow-datasets itself retries a dead network for minutes.

The first read decodes the records (a minute for large sets) and keeps the arrays beside
them, in the dataset's version directory. Later reads take those and check their sums
(`cache`). Datasets of more than `MAPPED_BYTES` stay on the disk, mapped, all the way.

Order: tensorflow-datasets shuffles when it prepares, unless the builder has
`disable_shuffling=True`. The order is then fixed in the files, but it is not the
original one, so "the last training points" are not those of the IDX files.
"""

import importlib.util
import logging
from pathlib import Path

from experiments.data.source import Source, digest, make_source
from experiments.data.tfds import cache
from experiments.data.tfds.cache import is_cached
from experiments.data.tfds.places import default_data_dir, find, list_prepared
from experiments.data.tfds.preparation import prepare
from experiments.data.tfds.records import decode
from experiments.errors import DataError

__all__ = [
    "default_data_dir",
    "is_cached",
    "is_prepared",
    "list_prepared",
    "prepare",
    "read",
]

_log = logging.getLogger(__name__)


def read(name: str, data_dir: Path | None = None) -> Source:
    """Reads an image dataset, from the arrays kept at an earlier read if there are any.

    The dataset needs the splits `train` and `test` and the feature `image`, uint8 of
    one shape for all; an integer feature `label` is read too. A split `validation` is
    appended to `train`, so that cutting off as many points restores it. Images of one
    channel lose the channel axis; images of 0 and 1 are scaled to 0 and 255.

    If nothing is prepared, the dataset is prepared first where that is safe to do
    unasked: in the default directory, with TensorFlow installed and a network.

    >>> read("fashion_mnist", Path("/nowhere"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    experiments.errors.DataError: no data of 'fashion_mnist' in /nowhere: ...

    Args:
      name: `name[/config][:version]`; the newest version there, unless it is given.
      data_dir: the data directory; None is `default_data_dir()`.

    Returns:
      The dataset, its images as [N, D] uint8.

    Raises:
      DataError: the dataset is not there, is damaged, has changed since the first read,
        is not of images, or the disk has no room to decode it.
      OSError: a file cannot be read.
    """
    given, data_dir = data_dir is not None, data_dir or default_data_dir()
    directory = find(name, data_dir)
    if directory is None:
        if given or not _is_installed("tensorflow"):
            option = f" --data_dir={data_dir}" if given else ""
            raise DataError(
                f"no data of {name!r} in {data_dir}: expected the four IDX files, or a "
                "dataset prepared by tensorflow-datasets; check name and path, or run "
                f"`python -m experiments.data prepare {name}{option}` (this "
                "needs TensorFlow for most datasets; reading them does not)."
            )
        directory = prepare(name, data_dir)
    return _read_directory(name, directory)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether a directory has a dataset, prepared.

    >>> is_prepared("fashion_mnist", Path("/nowhere"))
    False
    """
    return find(name, data_dir) is not None


def _read_directory(name: str, directory: Path) -> Source:
    where = f"tensorflow-datasets in {directory}"
    files = cache.files_sha256(directory)
    header = cache.read_header(directory)
    if header is None:
        arrays = decode(name, directory)
        source = make_source(arrays, where)
        cache.write(directory, files, source.sha256, arrays)
        return source
    if header.files != files:
        raise DataError(
            f"the files of {name} in {directory} are not those of the first read: if "
            f"they were prepared anew, delete {cache.HEADER} there; otherwise they are "
            "damaged: delete the directory and prepare the dataset again."
        )
    kept = cache.read_arrays(directory, header)
    if kept is not None:
        return make_source(kept, where, header.sha256)
    _log.warning(
        "%s in %s is missing or damaged: reading again", cache.ARRAYS, directory
    )
    arrays = decode(name, directory)
    if digest(arrays) != header.sha256:
        raise DataError(
            f"{name} in {directory} reads differently from the first read, though its "
            f"files are the same: {cache.HEADER} there is damaged, delete it."
        )
    cache.write(directory, files, header.sha256, arrays)
    return make_source(arrays, where, header.sha256)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
