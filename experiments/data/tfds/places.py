"""Where the files of tensorflow-datasets lie, found without importing it."""

import os
import re
from pathlib import Path

from experiments.errors import DataError

__all__ = ["default_data_dir", "find", "list_prepared"]

_NAME = re.compile(
    r"(?P<name>\w+)(/(?P<config>[\w\-.]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def default_data_dir() -> Path:
    """Returns where tensorflow-datasets keeps its files unless told otherwise.

    >>> isinstance(default_data_dir(), Path)  # $TFDS_DATA_DIR, or a place in the home
    True
    """
    default = "~/tensorflow_datasets"
    return Path(os.environ.get("TFDS_DATA_DIR") or default).expanduser()


def list_prepared(data_dir: Path | None = None) -> list[tuple[str, Path]]:
    """Returns the full name and the directory of each dataset in `data_dir`.

    >>> list_prepared(Path("/nowhere"))
    []
    """
    data_dir = data_dir or default_data_dir()
    found = []
    for depth in ("*/*", "*/*/*"):
        for file in sorted(data_dir.glob(f"{depth}/dataset_info.json")):
            if _VERSION.fullmatch(file.parent.name):
                *names, version = file.parent.relative_to(data_dir).parts
                found.append((f"{'/'.join(names)}:{version}", file.parent))
    return found


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the version directory of a prepared dataset, None if there is none.

    >>> find("fashion_mnist:3.0.1", Path("/nowhere")) is None
    True

    Args:
      name: `name[/config][:version]`; the newest version there, unless it is given.
      data_dir: the data directory.

    Raises:
      DataError: the name is malformed, or several configs are there and none is given.
    """
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
    """Returns the version directories in `directory`, the newest last."""
    if not directory.is_dir():
        return []
    found = [child for child in directory.iterdir() if _VERSION.fullmatch(child.name)]
    return sorted(found, key=lambda child: [int(n) for n in child.name.split(".")])
