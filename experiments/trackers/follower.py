"""Follows a run from a process beside it, so that the run never waits for a tracker."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TextIO

from experiments.errors import LOST, USAGE, WorkdirError
from experiments.storage.lock import locked
from experiments.trackers.copies import RunCopy, SweepCopy, Tracker, make_copy
from experiments.trackers.sinks import one_line, opener

__all__ = ["Follower"]

_POLL_SECONDS = 1.0
# After a failure; twice as many after each further one.
_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 5.0, 300.0
# Where the run was killed, and could not say how long this process may go on.
_KILLED = (LOST, 0.0, 60.0)


class Follower:
    """Copies a run while it goes on, and the rest when it has ended.

    At the end of the run its process writes to the standard input: its exit code, for
    how many seconds it waits, and after how many more this process has to be gone. It
    writes nothing where it was killed.
    """

    def __init__(self, tracker: str, workdir: Path):
        """Takes the streams of this process, and leaves it others."""
        self._name, self._workdir = tracker, workdir
        self._folder = workdir / "tracker"
        self._copy: RunCopy | SweepCopy | None = None
        self._code, self._ended = USAGE, threading.Event()
        self._failed, self._delay, self._not_before = False, 0.0, 0.0
        # What libraries print goes into a file, and what they start inherits that.
        self._input = os.dup(0)
        self._out, self._err = (os.fdopen(os.dup(fd), "w") for fd in (1, 2))
        self._folder.mkdir(exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        log = os.open(self._folder / f"{tracker}.log", flags, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for ours, theirs in ((null, 0), (log, 1), (log, 2)):
            os.dup2(ours, theirs)

    def run(self) -> None:
        """Copies until the run has ended, and the rest then."""
        # A signal to all processes of a terminal or a job is one to the run.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.nice(10)
        threading.Thread(target=self._listen, daemon=True).start()
        with ExitStack() as stack:
            while not self._hold(stack):
                # That of the command before is at its end.
                time.sleep(_POLL_SECONDS)
            while not self._ended.wait(_POLL_SECONDS):
                if time.monotonic() >= self._not_before:
                    self._attempt(self._update)
            self._attempt(self._finish)

    def _listen(self) -> None:
        text = b""
        while read := os.read(self._input, 100):
            text += read
        code, waits, left = text.split() or _KILLED
        self._code = int(code)
        self._ended.set()
        time.sleep(float(waits))
        # The run is gone. Who reads what it printed does not have to wait for this.
        for file in (self._out, self._err):
            os.dup2(1, file.fileno())
        time.sleep(float(left))
        os._exit(USAGE)

    def _hold(self, stack: ExitStack) -> bool:
        try:
            stack.enter_context(locked(self._folder))
        except WorkdirError as error:
            if error.__cause__ is not None:  # it cannot be written
                raise
            return False
        return True

    def _attempt(self, step: Callable[[], None]) -> None:
        """Takes a step; the first one that fails is told."""
        try:
            step()
            self._delay = 0.0
        except Exception as error:  # a library raises what it likes
            longer = max(_RETRY_SECONDS, 2 * self._delay)
            self._delay = min(longer, _LONGEST_RETRY_SECONDS)
            self._not_before = time.monotonic() + self._delay
            if not self._failed:
                self._failed = True
                self._warn(
                    f"{one_line(error)}; the run goes on, this is tried again, and "
                    f"`python -m experiments.trackers --tracker={self._name} "
                    f"--workdir={self._workdir}` sends what is missing then"
                )

    def _update(self) -> None:
        if self._copy is None:
            tell, warn = self._tell, self._warn
            tracker = Tracker(self._name, opener(self._name), warn, tell)
            self._copy = make_copy(self._workdir, tracker)
        if self._copy is not None:
            self._copy.update()

    def _finish(self) -> None:
        self._update()
        if self._copy is not None:
            self._copy.finish(self._code)

    def _tell(self, text: str) -> None:
        _print(f"tracker {self._name}: {text}", self._out)

    def _warn(self, text: str) -> None:
        _print(f"warning: tracker {self._name}: {text}", self._err)


def _print(text: str, file: TextIO) -> None:
    with suppress(OSError):  # the run's terminal is gone
        print(text, file=file, flush=True)
