"""The folder of artefacts: written so that an interrupted export is refused."""

import re
from collections.abc import Mapping
from pathlib import Path

from experiments.errors import WorkdirError
from experiments.storage.atomic import write_atomically

__all__ = ["FILES", "SUMS", "check_folder", "write_folder"]

SUMS = "SHA256SUMS"
FILES = {
    "encode.jaxexport": "x to q(z|x)",
    "decode.jaxexport": "z to p(x|z)",
    "sample.jaxexport": "draws of z and x",
    "log_likelihood.jaxexport": "x to log p(x)",
    "weights.npz": "what the functions take first; numpy.load reads it",
    "reference.npz": "inputs and the program's outputs, for the check of load.py",
    "load.py": "loads and checks: its first lines say how",
    "flatbuffers.zip": "jax reads artefacts with it, and does not bring it",
    "LICENSE": "of load.py and flatbuffers.zip",
    "README.txt": "how to use them",
    "manifest.json": "what each function takes and returns, versions, sums",
    SUMS: "the sums of the others: sha256sum -c reads it",
}
"""Every file that an export may write, with what it is."""


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else than an earlier export.

    Args:
      folder: need not exist; its parent must.

    Raises:
      WorkdirError: artefacts cannot be written there.
    """
    if not folder.parent.is_dir():
        raise WorkdirError(
            f"{folder.parent} is not a directory, so {folder.name} cannot be made in "
            "it: make it first, or choose another --out"
        )
    if folder.exists() and not folder.is_dir():
        raise WorkdirError(f"{folder} is a file: choose another --out")
    others = _names(folder) - set(FILES) - {"__pycache__"}
    # What an export leaves that is killed while it writes.
    others = {name for name in others if not re.fullmatch(r"\..+\.tmp", name)}
    if others:
        raise WorkdirError(
            f"{folder} has {min(others)}, which no export wrote, expected a new folder "
            "or that of an earlier export: choose another --out"
        )


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes artefacts to a folder, in the place of those of an earlier export.

    The sums are removed before anything is written, and come last. A folder without
    them, or with files of two exports, is refused when it is loaded.

    Args:
      folder: is made if it is not there.
      files: by name, `SUMS` among them.

    Raises:
      WorkdirError: it cannot be made or written, or holds something else.
    """
    check_folder(folder)
    try:
        folder.mkdir(exist_ok=True)
        for name in [SUMS, *(_names(folder) - set(files) - {"__pycache__"})]:
            (folder / name).unlink(missing_ok=True)
        for name in [*(set(files) - {SUMS}), SUMS]:
            write_atomically(folder / name, files[name])
    except OSError as error:
        raise WorkdirError(
            f"{error.filename or folder} cannot be written ({error.strerror}): mend "
            "that and run the same command again; what is there now is refused when "
            "it is loaded"
        ) from error


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
