"""Scalars by step: `metrics.jsonl` and TensorBoard events."""

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.processes.distributed import is_writer
from experiments.storage.atomic import write_atomically

__all__ = ["Metrics"]

_NOT_LOADED = object()


def _tensorboard(name: str) -> Any:
    """A module of tensorboardX, which must not load torch.

    It imports torch where that is installed, to draw torch's graphs: seconds for
    nothing, and the end of a run where torch is broken. While the module is loaded,
    torch is said to be missing, which tensorboardX provides for.
    """
    modules: dict[str, Any] = sys.modules
    before = modules.get("torch", _NOT_LOADED)
    modules["torch"] = None
    try:
        return importlib.import_module(f"tensorboardX.{name}")
    finally:
        del modules["torch"]
        if before is not _NOT_LOADED:
            modules["torch"] = before


class Metrics:
    """Scalars by step, one line a step: `metrics.jsonl`, TensorBoard, and in memory.

    Attributes:
      lines: what has been written, from the first step on.
    """

    def __init__(self, workdir: Path, lines: list[dict[str, Any]]):
        """Starts both files from `lines`; what they held of later steps is cut off.

        The lines come with the checkpoint that a run continues from, so what happened
        to the file since (a line cut short, steps that were lost) does not matter.
        """
        self.lines = list(lines)
        self._is_writer = is_writer()
        if not self._is_writer:
            return
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self._file = os.open(
            write_atomically(workdir / "metrics.jsonl", text.encode()),
            os.O_WRONLY | os.O_APPEND,
        )
        (workdir / "events").mkdir(exist_ok=True)
        # The asynchronous writer of tensorboardX blocks for ever on a full disk.
        writer = _tensorboard("event_file_writer").EventsWriter
        self._event = _tensorboard("proto.event_pb2").Event
        self._events = writer(str(workdir / "events" / "events"))
        # Tells TensorBoard to drop the points of steps that will come again.
        last = self.lines[-1]["step"] if self.lines else -1
        self._add_event(last + 1, session_log={"status": 1})

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        *,
        events_only: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one line; `events_only` (speeds) go to TensorBoard alone.

        Raises:
          OSError: the disk is full; the file then ends with the line before.
        """
        self.lines.append({"step": step, **scalars})
        if not self._is_writer:
            return
        size = os.fstat(self._file).st_size
        text = (json.dumps(self.lines[-1]) + "\n").encode()
        try:
            if os.write(self._file, text) != len(text):
                raise OSError(28, "No space left on device", "metrics.jsonl")
        except OSError:
            os.ftruncate(self._file, size)
            raise
        values = [
            {"tag": name, "simple_value": value}
            for name, value in {**scalars, **(events_only or {})}.items()
        ]
        self._add_event(step, summary={"value": values})

    def _add_event(self, step: int, **content: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **content)
        self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        """Closes both files; what was written is on the disk."""
        if self._is_writer:
            os.fsync(self._file)
            os.close(self._file)
            self._events.close()
