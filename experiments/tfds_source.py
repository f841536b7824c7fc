"""Image datasets of tensorflow-datasets, read without TensorFlow.

`read` looks for prepared files first, with nothing imported, so that it fails at once
where there are none: tensorflow-datasets itself retries a dead network for minutes.

The first read decodes the records (a minute for large sets) and leaves two files beside
them, in the dataset's version directory: `aevb_arrays.bin`, the arrays as raw bytes,
and `aevb_arrays.json`, their names, types and shapes, the sha256 over them, and the
sha256 of the prepared files. Later reads check both sums and are fast. The sums matter:
the records carry hashes, but their index and the two JSON files of tensorflow-datasets
do not, and a truncated file can read back as `{'image': None}` without an error.
Datasets of more than `data_files.MAPPED_BYTES` stay on the disk, mapped, all the way.

Order: tensorflow-datasets shuffles when it prepares, unless the builder has
`disable_shuffling=True`. The order is then fixed in the files, but it is not the
original one, so "the last training points" are others than those of the IDX files.
"""

import contextlib
import difflib
import importlib.util
import json
import logging
import math
import os
import re
import socket
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from experiments import data_files
from experiments.data_files import (
    DataError,
    Source,
    cause,
    contents,
    digest,
    make_source,
)
from experiments.files import write_atomically

_NAME = re.compile(
    r"(?P<name>\w+)(/(?P<config>[\w\-.]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_RECORD = "aevb_arrays.json"
_ARRAYS = "aevb_arrays.bin"
_log = logging.getLogger(__name__)


def default_data_dir() -> Path:
    """Returns where tensorflow-datasets keeps its files unless told otherwise."""
    default = "~/tensorflow_datasets"
    return Path(os.environ.get("TFDS_DATA_DIR") or default).expanduser()


def read(name: str, data_dir: Path | None = None) -> Source:
    """Reads an image dataset, from the arrays kept at an earlier read if there are any.

    The dataset needs the splits `train` and `test` and the feature `image`, uint8 of
    one shape for all; an integer feature `label` is read too. A split `validation` is
    appended to `train`, so that cutting off as many points restores it. Images of one
    channel lose the channel axis; images of 0 and 1 are scaled to 0 and 255.

    If nothing is prepared, the dataset is prepared first where that is safe to do
    unasked: in the default directory, with TensorFlow installed and a network.

    Args:
      name: `name[/config][:version]`; the newest version there, unless it is given.
      data_dir: the data directory; None is `default_data_dir()`.

    Raises:
      DataError: not there, damaged, changed since the first read, or not images.
    """
    given, data_dir = data_dir is not None, data_dir or default_data_dir()
    directory = _find(name, data_dir)
    if directory is None:
        if given or not _is_installed("tensorflow"):
            option = f" --data_dir={data_dir}" if given else ""
            raise DataError(
                f"no data of {name!r} in {data_dir}: expected the four IDX files, or a "
                "dataset prepared by tensorflow-datasets; check name and path, or run "
                f"`python -m experiments.data prepare {name}{option}` (most datasets "
                "need TensorFlow for that, none to be read)."
            )
        directory = prepare(name, data_dir)
    return _read_directory(name, directory)


def list_prepared(data_dir: Path | None = None) -> list[tuple[str, Path]]:
    """Returns the full name and the directory of each dataset in `data_dir`."""
    data_dir = data_dir or default_data_dir()
    found = []
    for depth in ("*/*", "*/*/*"):
        for file in sorted(data_dir.glob(f"{depth}/dataset_info.json")):
            if _VERSION.fullmatch(file.parent.name):
                *names, version = file.parent.relative_to(data_dir).parts
                found.append((f"{'/'.join(names)}:{version}", file.parent))
    return found


def is_recorded(directory: Path) -> bool:
    """Returns whether a dataset has been read before, so that reading it is quick."""
    return (directory / _RECORD).exists()


def prepare(name: str, data_dir: Path | None = None) -> Path:
    """Downloads and prepares a dataset; returns the directory of its files.

    Builders that hand over encoded images or plain arrays need no TensorFlow; those
    that extract archives or encode PNGs, as `mnist` and its relatives do, need it.

    Raises:
      DataError: unknown name, no network, no TensorFlow where it is needed, or any
        failure of the builder. No prepared dataset is then left behind.
    """
    data_dir = data_dir or default_data_dir()
    directory = _find(name, data_dir)
    if directory is not None:
        return directory
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        base = name.split("/")[0].split(":")[0]
        near = difflib.get_close_matches(base, known, n=3)
        raise DataError(
            f"tensorflow-datasets has no {base!r}: check the name"
            + (f"; did you mean {' or '.join(near)}?" if near else ".")
        ) from error
    except Exception as error:
        raise DataError(f"{name} cannot be prepared ({cause(error)}).") from error
    _check_network(builder.url_infos or ())  # None where nothing is registered
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:
        _remove_empty(data_dir / builder.name)
        _remove_empty(data_dir / "downloads")
        if _lacks_tensorflow(error):
            raise DataError(
                f"preparing {name} needs TensorFlow, which is not installed: "
                "`pip install tensorflow`, then prepare it again (reading it needs "
                "none)."
            ) from error
        raise DataError(
            f"preparing {name} in {data_dir} failed ({cause(error)}): mend that and "
            "prepare it again."
        ) from error
    return Path(builder.data_dir)


def _find(name: str, data_dir: Path) -> Path | None:
    """Returns the version directory of a dataset, or None."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"{name!r} is not the name of a dataset: expected `name`, `name/config` or "
            "`name:1.2.3`."
        )
    root = data_dir / match["name"]
    if match["config"]:
        root /= match["config"]
    versions = _versions(root)
    if not versions and not match["config"] and root.is_dir():
        configs = [child for child in sorted(root.iterdir()) if _versions(child)]
        if len(configs) > 1:
            raise DataError(
                f"{name} is prepared with the configs "
                f"{', '.join(child.name for child in configs)} in {data_dir}: say "
                f"which, as in {match['name']}/{configs[0].name}."
            )
        versions = _versions(configs[0]) if configs else []
    if match["version"]:
        versions = [child for child in versions if child.name == match["version"]]
    return versions[-1] if versions else None


def _versions(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    found = [child for child in directory.iterdir() if _VERSION.fullmatch(child.name)]
    return sorted(found, key=lambda child: [int(n) for n in child.name.split(".")])


# ---- reading ----


def _read_directory(name: str, directory: Path) -> Source:
    where = f"tensorflow-datasets in {directory}"
    files = _files_sha256(directory)
    record = _read_record(directory)
    if record is None:
        arrays = _decode(name, directory)
        source = make_source(arrays, where)
        _write_record(directory, files, source.sha256, arrays)
        return source
    if record["files"] != files:
        raise DataError(
            f"the files of {name} in {directory} are not those of the first read: if "
            f"they were prepared anew, delete {_RECORD} there; otherwise they are "
            "damaged: delete the directory and prepare the dataset again."
        )
    kept = _read_arrays(directory, record)
    if kept is not None:
        return make_source(kept, where, record["sha256"])
    _log.warning("%s in %s is missing or damaged: reading again", _ARRAYS, directory)
    arrays = _decode(name, directory)
    if digest(arrays) != record["sha256"]:
        raise DataError(
            f"{name} in {directory} reads otherwise than at the first read, though its "
            f"files are the same: {_RECORD} there is damaged, delete it."
        )
    _write_record(directory, files, record["sha256"], arrays)
    return make_source(arrays, where, record["sha256"])


def _files_sha256(directory: Path) -> str:
    """Returns one sha256 over the names and contents of the prepared files."""
    total = sha256()
    try:
        for file in sorted(directory.iterdir()):
            # Ours, and what is being written: neither is part of the dataset.
            if file.is_file() and not file.name.startswith(("aevb_arrays.", ".")):
                with file.open("rb") as stream:
                    total.update(f"{file.name} ".encode())
                    total.update(file_digest(stream, "sha256").digest())
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}): check its "
            "permissions, or prepare the dataset again."
        ) from error
    return total.hexdigest()


def _decode(name: str, directory: Path) -> dict[str, np.ndarray]:
    """Decodes the records, after checking that they are as many as promised."""
    tfds = _import_tfds()
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
    except Exception as error:  # parsers of four libraries raise what they like
        raise DataError(
            f"the files of {name} in {directory} cannot be read ({cause(error)}): "
            "they are damaged or not of images; delete the directory and prepare the "
            "dataset again."
        ) from error
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
    if arrays["train_images"].max() <= 1:  # binarized_mnist is kept as 0 and 1
        for role in ("train", "test"):
            arrays[f"{role}_images"] *= 255
    return arrays


def _check_files(name: str, directory: Path) -> None:
    """Holds the files against `dataset_info.json`, whose text no hash protects.

    A flipped digit in it reads fewer records, a flipped letter drops a split.
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
                images = _empty((total, *image.shape), directory)
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


def _empty(shape: tuple[int, ...], directory: Path) -> np.ndarray:
    """Bytes to be filled, on the disk where they are many."""
    if math.prod(shape) > data_files.MAPPED_BYTES:
        with (
            contextlib.suppress(OSError),  # a directory that cannot be written to
            tempfile.TemporaryFile(prefix=".aevb", dir=directory) as file,
        ):
            return np.memmap(file, np.uint8, mode="w+", shape=shape)
    return np.empty(shape, np.uint8)


# ---- the arrays kept beside the prepared files ----


def _read_record(directory: Path) -> dict[str, Any] | None:
    file = directory / _RECORD
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_bytes())
        return {key: record[key] for key in ("files", "sha256", "arrays")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} cannot be read ({cause(error)}): delete it, and the dataset is "
            "read from its records again."
        ) from error


def _read_arrays(
    directory: Path, record: Mapping[str, Any]
) -> dict[str, np.ndarray] | None:
    """Returns the arrays if they are as recorded, otherwise None."""
    try:
        data = contents(directory / _ARRAYS)
        arrays, start = {}, 0
        for name, (dtype, shape) in record["arrays"].items():
            count = math.prod(shape)
            array = np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
            arrays[name] = array
            start += array.nbytes
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return arrays if digest(arrays) == record["sha256"] else None


def _write_record(
    directory: Path, files: str, sum_: str, arrays: Mapping[str, np.ndarray]
) -> None:
    shapes = {name: [a.dtype.str, list(a.shape)] for name, a in arrays.items()}
    record = {"files": files, "sha256": sum_, "arrays": shapes}
    try:
        # The record last: until it is there, the arrays are not looked at.
        write_atomically(
            directory / _ARRAYS, *map(np.ascontiguousarray, arrays.values())
        )
        write_atomically(directory / _RECORD, json.dumps(record, indent=1).encode())
    except OSError as error:
        _log.warning("%s is not kept in %s (%s)", _ARRAYS, directory, error.strerror)


# ---- preparing ----


def _import_tfds() -> ModuleType:
    try:
        import array_record  # noqa: F401  what it reads, and an extra of its own
        import importlib_resources  # noqa: F401  it needs this, and does not declare it
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"tensorflow-datasets cannot be imported ({error}): `pip install "
            "tensorflow-datasets importlib_resources array_record`."
        ) from error
    return tfds


def _lacks_tensorflow(error: BaseException | None) -> bool:
    while error is not None:  # tensorflow-datasets wraps what it caught
        if isinstance(error, ImportError) and error.name == "tensorflow":
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_network(urls: Iterable[str], patience: float = 0.9) -> None:
    """Raises within `patience` seconds if the hosts of `urls` do not answer.

    tensorflow-datasets would retry for 204 s. Behind a proxy nothing can be said.
    """
    parts = [urllib.parse.urlsplit(url) for url in urls]
    hosts = {p.hostname: p.port or {"http": 80}.get(p.scheme, 443) for p in parts}
    if not hosts or urllib.request.getproxies():
        return
    failures: list[str] = []

    def probe() -> None:  # in a thread: a name server that is gone has no time limit
        for host, port in list(hosts.items())[:3]:
            try:
                socket.create_connection((host or "", port), patience).close()
            except OSError as error:
                failures.append(f"{host}: {error.strerror or error}")

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(patience)
    if failures or thread.is_alive():
        raise DataError(
            "no network to download from ("
            + (failures[0] if failures else f"no answer in {patience} s")
            + "): prepare the dataset on a machine that has one, and copy its data "
            "directory here."
        )


def _remove_empty(directory: Path) -> None:
    for path in [*sorted(directory.rglob("*"), reverse=True), directory]:
        with contextlib.suppress(OSError):
            path.rmdir()
