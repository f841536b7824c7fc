"""The folder of artefacts: written so that an interrupted export is refused."""

import re
from collections.abc import Mapping
from pathlib import Path

from experiments.artefacts.functions import FUNCTIONS
from experiments.errors import WorkdirError
from experiments.storage.atomic import write_atomically

__all__ = ["write_folder"]

_OWN = {
    *(f"{name}.jaxexport" for name in FUNCTIONS),
    "weights.npz",
    "reference.npz",
    "load.py",
    "flatbuffers.zip",
    "README.txt",
    "LICENSE",
    "manifest.json",
    "SHA256SUMS",
}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes artefacts to a folder, in the place of those of an earlier export.

    SHA256SUMS is removed before anything is written and written after everything else.
    A folder without it, or with files of two exports, is refused when it is loaded.

    Args:
      folder: is made if its parent is there.
      files: of `artefacts`.

    Raises:
      WorkdirError: it cannot be made or written, or has files of something else.
    """
    if not folder.parent.is_dir():
        raise WorkdirError(
            f"{folder.parent} is not a directory, so {folder.name} cannot be made in "
            "it: make it first, or choose another --out"
        )
    if folder.exists() and not folder.is_dir():
        raise WorkdirError(f"{folder} is a file: choose another --out")
    try:
        folder.mkdir(exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        # What a killed export left, and Python's copy of load.py.
        own = _OWN | {name for name in names if re.fullmatch(r"\..*\.tmp", name)}
        if others := sorted(names - own - {"__pycache__"}):
            raise WorkdirError(
                f"{folder} has {others[0]}, which is of no export: choose another "
                "--out, a new folder"
            )
        (folder / "SHA256SUMS").unlink(missing_ok=True)
        for name in names & own - set(files):
            (folder / name).unlink()
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise WorkdirError(
            f"{error.filename or folder} cannot be written ({error.strerror}): mend "
            "that and run the same command again"
        ) from error
