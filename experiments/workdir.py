"""The directory of a run: room for it, and only the run that it holds."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import records
from experiments.config import base, validate
from experiments.lock import WorkdirError

__all__ = ["check_continues", "check_room", "read_config"]

# May change between a run and its continuation: how long, what is looked at and kept,
# where the data lie.
_FREE = ("epochs", "train_samples", "eval.", "checkpoint.", "data.stream")
# Parts of the manifest that decide the bits, and parts that may.
_REFUSED = ("packages", "platform", "device_kind", "x64", "data_sha256")
_WARNED = ("code_sha256", "cpu", "num_cores", "num_devices", "xla_flags")


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
    # A field that is newer than the run has the default, which is what was done before.
    stored = records.flatten(base().to_dict())
    stored |= records.flatten(records.read_json(workdir / "config.json"))
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
