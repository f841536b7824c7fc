"""The directory of a run: one writer at a time, and only the run that it holds."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import records
from experiments.config import base, validate
from experiments.records import WorkdirError

__all__ = ["check_continues", "check_room", "holder", "locked", "read_config"]

_LOCK = "lock"
# May change between a run and its continuation: how long, what is looked at and kept.
_FREE = ("epochs", "train_samples", "eval.", "checkpoint.")
# Parts of the manifest that decide the bits, and parts that may.
_REFUSED = ("packages", "platform", "device_kind", "x64", "data_sha256")
_WARNED = ("code_sha256", "cpu", "num_cores", "xla_flags")


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the directory and holds its lock, which dies with the process (`flock`).

    Raises:
      WorkdirError: it cannot be made or written, or another process holds it.
    """
    if not workdir.parent.is_dir():
        raise WorkdirError(
            f"{workdir.parent} is not a directory, so {workdir.name} cannot be made in "
            "it: make it first, or choose another --workdir"
        )
    if workdir.exists() and not workdir.is_dir():
        raise WorkdirError(f"{workdir} is a file: choose another --workdir")
    try:
        workdir.mkdir(exist_ok=True)
        descriptor = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkdirError(
            f"{workdir} cannot be written ({error.strerror}): choose another --workdir"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError:
            held = os.read(descriptor, 1000).decode(errors="replace")
            raise WorkdirError(
                f"{workdir} is in use by process {held}: wait for it, stop it, or "
                "choose another --workdir"
            ) from None
        except OSError as error:
            raise WorkdirError(
                f"{workdir} cannot be locked ({error.strerror}): make room, or choose "
                "another --workdir"
            ) from error
        yield
    finally:
        os.close(descriptor)


def holder(workdir: Path) -> str:
    """The process that writes to a directory now, or ""."""
    try:
        with (workdir / _LOCK).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(1000).decode(errors="replace")
    except OSError:
        pass
    return ""


def read_config(workdir: Path) -> ConfigDict:
    """The configuration of the run in a directory, checked.

    Raises:
      WorkdirError: there is none, or it cannot be read.
    """
    stored = records.read_json(workdir / "config.json")
    config = base()
    try:
        config.update(_with_tuples(stored))
        validate(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WorkdirError(
            f"{workdir / 'config.json'} is not a configuration of this version "
            f"({' '.join(str(error).split())})"
        ) from error
    return config


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def check_continues(
    workdir: Path, config: ConfigDict, manifest: Mapping[str, Any]
) -> list[str]:
    """Refuses a directory that holds another run than the one that is asked for.

    Args:
      workdir: where `config.json` and `run.json` of an earlier process may be.
      config: what is asked for; its length, `eval` and `checkpoint` may differ.
      manifest: of this process; the keys that it lacks are not compared.

    Returns:
      Warnings: what differs and may change the last bits.

    Raises:
      WorkdirError: config, versions or data differ, with the list of what does.
    """
    present = [(workdir / name).exists() for name in ("config.json", "run.json")]
    if not all(present):
        if any((workdir / "checkpoints").glob("[0-9]*")):
            raise WorkdirError(
                f"{workdir} has checkpoints but no config.json or no run.json, so it "
                "is not known what they are of: choose another --workdir"
            )
        return []
    stored = records.flatten(records.read_json(workdir / "config.json"))
    asked = records.flatten(config.to_dict())
    changed = [
        f"config.{name}: {stored.get(name)!r} -> {asked.get(name)!r}"
        for name in {**stored, **asked}
        if not name.startswith(_FREE) and stored.get(name) != asked.get(name)
    ]
    before = records.flatten(records.read_json(workdir / "run.json"))
    now = records.flatten(manifest)

    def differing(keys: tuple[str, ...]) -> list[str]:
        return [
            f"{name}: {before.get(name)} -> {value}"
            for name, value in now.items()
            if name.startswith(keys) and before.get(name) != value
        ]

    changed += differing(_REFUSED)
    if changed:
        raise WorkdirError(
            f"{workdir} holds another run, which this would not continue bit for bit ("
            + "; ".join(changed)
            + "): change that back, or choose another --workdir"
        )
    return [
        f"the run was started with another {difference}: its bits may differ from "
        "those of an uninterrupted run"
        for difference in differing(_WARNED)
    ]


def check_room(workdir: Path, num_bytes: int, num_checkpoints: int) -> None:
    """Refuses a disk on which the checkpoints to come will not fit.

    Raises:
      WorkdirError: with what is free and what is needed.
    """
    kept = len(list((workdir / "checkpoints").glob("*.sha256")))
    needed = num_bytes * max(1, num_checkpoints - kept) + 2**20
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise WorkdirError(
            f"{workdir} has {free / 2**20:,.1f} MiB free, expected "
            f"{needed / 2**20:,.1f} for {num_checkpoints} checkpoints: make room, "
            "choose another --workdir, or lower config.checkpoint.keep"
        )
