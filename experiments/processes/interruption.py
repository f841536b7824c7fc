"""SIGTERM and SIGINT as a request to stop at the next good moment.

A preemptible host sends SIGTERM and takes the machine away seconds later. The first
signal lets the epoch (or block of an evaluation) in hand end and its result be saved;
a second one leaves at once.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Listens for signals while it is entered (`with StopRequest() as stop`).

    Attributes:
      requested: whether a signal has come.
    """

    def __init__(self) -> None:
        """Listens to nothing until it is entered."""
        self.requested = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Starts to listen, in the main thread; elsewhere it does nothing."""
        # Handlers in Python run between bytecodes of the main thread, so not while it
        # waits for XLA. The bytes of the wakeup pipe come at once: a thread reads them.
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._previous = signal.set_wakeup_fd(
                self._writer, warn_on_full_buffer=False
            )
            for number in _SIGNALS:
                self._handlers[number] = signal.signal(number, _ignore)
            self._thread = threading.Thread(target=self._listen, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the handlers back that were there before."""
        if self._handlers:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous)
            os.write(self._writer, b"\0")
            self._thread.join()
            os.close(self._writer)
            os.close(self._reader)
            self._handlers = {}

    def _listen(self) -> None:
        while number := os.read(self._reader, 1)[0]:
            if number not in _SIGNALS:
                continue
            if self.requested:
                os._exit(128 + number)
            self.requested = True
            print(
                f"\n{signal.Signals(number).name}: stops after the epoch or the block "
                "in hand, and saves; once more leaves at once",
                file=sys.stderr,
                flush=True,
            )


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wakeup pipe has told."""
