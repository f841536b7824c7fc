"""The directory of a run or a sweep: held by one process, and only of what it holds.

config.json     the configuration, every field; of a sweep sweep.json, of every run
run.json        the manifest: versions, platform, data sha256, argv, git revision
metrics.jsonl   one JSON object a line, one line an epoch; no clock in it
events/         TensorBoard
evaluation/     the finished parts of the final evaluation
checkpoints/    the state of training (`experiments.storage.checkpoints`)
tracker/        what a tracker has of the run (`experiments.trackers`)

Only process 0 of a job of several writes.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.config import base, flatten, validate
from experiments.errors import WorkdirError
from experiments.processes.distributed import is_writer
from experiments.storage.atomic import read_json, write_json
from experiments.storage.lock import locked

__all__ = [
    "check_continues",
    "check_room",
    "check_sweep_continues",
    "continues",
    "depends_on_length",
    "held",
    "read_config",
    "same_work",
]

# Where the data lie, and how they are read, changes no number.
_PLACES = ("data.path", "data.stream")
# May change between a run and its continuation: how long, what is looked at and kept.
_FREE = ("epochs", "train_samples", "eval.", "checkpoint.", *_PLACES)
# Parts of the manifest that decide the bits, and parts that may.
_REFUSED = ("packages", "platform", "device_kind", "x64", "data_sha256")
_WARNED = ("code_sha256", "cpu", "num_cores", "num_devices", "xla_flags")
# What a disk says that takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Makes and locks a directory, and tells of a disk that cannot be written.

    Raises:
      WorkdirError: the directory is in use, or cannot be made or written. An error of
        reading, of the data say, is not told as one of writing.
    """
    with ExitStack() as stack:
        if is_writer():
            if workdir.parent == Path("runs") and not workdir.parent.exists():
                _make(workdir.parent)
            stack.enter_context(locked(workdir))
        try:
            yield
        except OSError as error:
            name = error.filename
            inside = isinstance(name, str | os.PathLike) and (
                Path(name).absolute().is_relative_to(workdir.absolute())
            )
            if error.errno not in _FULL and not inside:
                raise
            raise WorkdirError(
                f"{name or workdir} cannot be written ({error.strerror}): what was "
                "there is whole; mend that and run the same command again"
            ) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"{folder} cannot be made ({error.strerror}): choose another --workdir"
        ) from error


def read_config(workdir: Path, *, data_path: str = "") -> ConfigDict:
    """The configuration of the run in a directory, checked.

    Args:
      workdir: of the run.
      data_path: where its data lie now, if they have moved; "" is where they were.

    Raises:
      WorkdirError: there is none, or it cannot be read.
    """
    stored = read_json(workdir / "config.json")
    config = base()
    try:
        config.update(_with_tuples(stored))
        if data_path:
            config.data.path = data_path
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


def same_work(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that decide its numbers, flat.

    >>> same_work({"data": {"name": "mnist", "path": "here"}, "seed": 0})
    {'data.name': 'mnist', 'seed': 0}
    """
    return {
        name: value for name, value in flatten(config).items() if name not in _PLACES
    }


def check_continues(
    workdir: Path, config: ConfigDict, manifest: Mapping[str, Any]
) -> list[str]:
    """Refuses a directory that holds another run than the one that is asked for.

    Args:
      workdir: where `config.json` and `run.json` of an earlier process may be.
      config: what is asked for; its length, `eval`, `checkpoint` and where the data lie
        may differ.
      manifest: of this process; the keys that it lacks are not compared.

    Returns:
      Warnings: what differs and may change the last bits.

    Raises:
      WorkdirError: config, versions or data differ, with the list of what does.
    """
    if not _is_told(workdir, "config.json", ("checkpoints/[0-9]*",)):
        return []
    stored = read_json(workdir / "config.json")
    changed = _changed_fields(stored, config.to_dict(), _FREE)
    return _check("run", workdir, changed, manifest)


def continues(config: ConfigDict, shorter: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a run has the bits of another from the first step on, as far as both go.

    Args:
      config: of the run.
      shorter: the workdir of the other. Its length, `eval`, `checkpoint` and where its
        data lie may differ.
      manifest: of this process; the keys that it lacks are not compared.
    """
    before = read_json(shorter / "config.json")
    return not (
        depends_on_length(config)
        or _changed_fields(before, config.to_dict(), _FREE)
        or _differences(shorter, manifest, (*_REFUSED, *_WARNED))
    )


def depends_on_length(config: ConfigDict) -> bool:
    """Whether the first steps of a run are others where it is longer."""
    return config.schedule != "constant" or config.warmup > 0


def check_sweep_continues(
    workdir: Path,
    fields: Sequence[str],
    configs: Mapping[str, Mapping[str, Any]],
    manifest: Mapping[str, Any],
) -> list[str]:
    """Refuses a directory that holds another sweep than the one that is asked for.

    Writes `sweep.json` and `run.json`, what the next process compares with.

    Args:
      workdir: of the sweep.
      fields: what is swept.
      configs: `{run: its configuration}`; where the data lie may differ.
      manifest: of this process; `data_sha256` is `{data set: sha256}`.

    Returns:
      Warnings: what differs and may change the last bits.

    Raises:
      WorkdirError: runs, their configurations, versions or data differ.
    """
    path = workdir / "sweep.json"
    warnings: list[str] = []
    described = {"fields": list(fields), "runs": dict(configs)}
    if _is_told(workdir, path.name, ("rows.jsonl", "lanes/*", "runs/*")):
        stored = read_json(path)
        runs = stored.get("runs", {})
        if list(runs) != list(configs):
            raise WorkdirError(
                f"{workdir} holds another sweep, of {len(runs)} runs over "
                f"{', '.join(stored.get('fields', []))}: choose another --workdir"
            )
        changed = [
            f"{name}, {change}"
            for name, config in configs.items()
            for change in _changed_fields(runs[name], config, _PLACES)
        ]
        if len(changed) > 3:
            changed = [*changed[:3], f"and {len(changed) - 3} more"]
        warnings = _check("sweep", workdir, changed, manifest)
    write_json(path, described)
    write_json(workdir / "run.json", dict(manifest))
    return warnings


def _is_told(workdir: Path, name: str, work: Sequence[str]) -> bool:
    """Whether a directory says what it holds; without that it must hold no work."""
    if all((workdir / file).exists() for file in (name, "run.json")):
        return True
    if any(path for pattern in work for path in workdir.glob(pattern)):
        raise WorkdirError(
            f"{workdir} has finished work but no {name} or no run.json, so it is not "
            "known what the work is of: choose another --workdir"
        )
    return False


def _changed_fields(
    stored: Mapping[str, Any], asked: Mapping[str, Any], free: tuple[str, ...]
) -> list[str]:
    if stored == asked:
        return []
    # A field that is newer than the run has the default, which is what was done before.
    before = flatten(base().to_dict()) | flatten(stored)
    now = flatten(asked)
    return [
        f"config.{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in {**before, **now}
        if not name.startswith(free) and before.get(name) != now.get(name)
    ]


def _check(
    what: str, workdir: Path, changed: list[str], manifest: Mapping[str, Any]
) -> list[str]:
    """Refuses changed fields and versions; returns warnings of what else differs."""
    changed = changed + _differences(workdir, manifest, _REFUSED)
    if changed:
        raise WorkdirError(
            f"{workdir} holds another {what}, which this would not continue bit for "
            "bit (" + "; ".join(changed) + "): change that back, or choose another "
            "--workdir"
        )
    return [
        f"the {what} was started with another {difference}: its bits may differ from "
        f"those of an uninterrupted {what}"
        for difference in _differences(workdir, manifest, _WARNED)
    ]


def _differences(
    workdir: Path, manifest: Mapping[str, Any], keys: tuple[str, ...]
) -> list[str]:
    """Parts of the manifest that the one in a directory has otherwise."""
    before = flatten(read_json(workdir / "run.json"))
    return [
        f"{name}: {before.get(name)} -> {value}"
        for name, value in flatten(manifest).items()
        if name.startswith(keys) and before.get(name) != value
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
