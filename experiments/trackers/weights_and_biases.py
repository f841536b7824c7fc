"""Runs of Weights and Biases; `WANDB_PROJECT`, `WANDB_MODE` and the like are its own.

A run has what its workdir has: wandb's own records of the machine, the checkout, the
packages and the terminal are off.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.trackers.sinks import Identity, Sink, leaves

__all__ = ["open_sink"]

_PROJECT = "aevb"
# Of the online mode, where the server is asked what it has; wandb's own is 90.
_INIT_SECONDS = 30.0
# Of a `.wandb` file: its mark with a version, and a part's sum, size and kind.
_FILE_HEADER, _BLOCK, _PART = b":W&B\xe1\xbe\x00", 32768, struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# The folders that this process writes to offline, each with the last step of its lines.
_own: dict[Path, int] = {}


def open_sink(identity: Identity) -> Sink:
    """Opens a run, or goes on with the one of the same token."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        init_timeout=_INIT_SECONDS,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=identity.token,
        name=identity.name,
        group=identity.group or None,
        dir=None if "WANDB_DIR" in os.environ else str(identity.folder),
        resume="allow",
        # After a failure a run may be open still.
        reinit="finish_previous",
        settings=settings,
    )

    folder = Path(run.dir).parent

    def describe(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        fields = {**config, "run": dict(manifest)}
        run.config.update(fields, allow_val_change=True)

    def log(lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            values = {name: value for name, value in line.items() if name != "step"}
            # Committed: else a row waits for the next one.
            run.log(values, step=line["step"], commit=True)
            _own[folder] = line["step"]

    def figures(paths: Sequence[Path], step: int) -> None:
        images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in paths}
        # The row of the last line is closed, and rows come in the order of steps.
        run.log(images, step=max(step + 1, run.starting_step), commit=True)

    def results(numbers: Mapping[str, Any], step: int) -> None:
        del step  # a summary has none
        run.summary.update(dict(leaves(numbers, "/", "results/")))

    last_step: int | None
    if run.offline or run.disabled:
        # Each process has a folder of its own; `wandb sync` joins them by the id.
        _own[folder] = -1
        parts = f"offline-run-*-{identity.token}*"
        place = f"`wandb sync {folder.parent / parts}` sends it"
        where = f"{'disabled' if run.disabled else 'offline'} {run.project}"
        last_step = _last_step(list(folder.parent.glob(parts)))
    else:
        where = place = str(run.url)
        last_step = run.starting_step - 1 if run.resumed else None
    return Sink(
        where,
        place,
        last_step,
        describe,
        log,
        figures,
        results,
        run.finish,
    )


def _last_step(folders: Sequence[Path]) -> int:
    """The last step in the files of the offline mode, -1 for none.

    A process that is killed leaves rows in wandb's memory that it was handed long ago,
    and a file with half a record, or with none, at which `wandb sync` stops: the half
    is cut off here, and the folder without a record gets another name.
    """
    steps = [-1]
    for folder in folders:
        if folder in _own:  # it is being written
            steps.append(_own[folder])
            continue
        for path in folder.glob("*.wandb"):
            data, end, is_closed = path.read_bytes(), 0, False
            for record, end in _records(data):  # noqa: B007
                is_closed |= record.HasField("exit")
                if record.HasField("history"):
                    steps.append(record.history.step.num)
            if not end:
                folder.rename(folder.with_name(f"empty-{folder.name}"))
            elif not is_closed and end < len(data):
                os.truncate(path, end)
    return max(steps)


def _records(data: bytes) -> Iterator[tuple[Any, int]]:
    """The whole records of a `.wandb` file, each with where it ends.

    They are protocol buffers in LevelDB's log format: parts with a header each, none of
    which crosses the border of a block.
    """
    from wandb.proto import wandb_internal_pb2

    # Its names come from the module for the version of protobuf that is installed.
    messages: Any = wandb_internal_pb2
    at, record = len(_FILE_HEADER), b""
    while at + _PART.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PART.size:
            at += left
            continue
        _, size, kind = _PART.unpack_from(data, at)
        part = data[at + _PART.size : at + _PART.size + size]
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or len(part) < size:
            return
        at += _PART.size + size
        record += part
        if kind in (_WHOLE, _LAST):
            yield messages.Record.FromString(record), at
            record = b""
