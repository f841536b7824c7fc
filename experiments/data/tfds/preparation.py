"""Downloads of tensorflow-datasets: the only part that needs a network."""

import contextlib
import difflib
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from experiments.data.source import cause
from experiments.data.tfds.places import default_data_dir, find
from experiments.data.tfds.records import import_tfds
from experiments.errors import DataError

__all__ = ["prepare"]


def prepare(name: str, data_dir: Path | None = None) -> Path:
    """Downloads and prepares a dataset; returns the directory of its files.

    Builders that hand over encoded images or plain arrays need no TensorFlow; those
    that extract archives or encode PNGs, as `mnist` and its relatives do, need it.

    >>> prepare("fashion_mnist:3")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    experiments.errors.DataError: 'fashion_mnist:3' is not the name of a dataset: ...

    Args:
      name: `name[/config][:version]`.
      data_dir: the data directory; None is `default_data_dir()`.

    Returns:
      The version directory.

    Raises:
      DataError: the name is unknown, there is no network, TensorFlow is needed and
        missing, or the builder fails. No prepared dataset is then left behind.
    """
    data_dir = data_dir or default_data_dir()
    directory = find(name, data_dir)
    if directory is not None:
        return directory
    tfds = import_tfds()
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


def _lacks_tensorflow(error: BaseException | None) -> bool:
    while error is not None:  # tensorflow-datasets wraps what it caught
        if isinstance(error, ImportError) and error.name == "tensorflow":
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_network(urls: Iterable[str], patience: float = 0.9) -> None:
    """Raises within `patience` seconds if the hosts of `urls` do not answer.

    tensorflow-datasets would retry for 204 s. Behind a proxy this checks nothing.
    """
    parts = [urllib.parse.urlsplit(url) for url in urls]
    hosts = {p.hostname: p.port or {"http": 80}.get(p.scheme, 443) for p in parts}
    if not hosts or urllib.request.getproxies():
        return
    failures: list[str] = []

    def probe() -> None:  # in a thread: looking up a name has no time limit
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
