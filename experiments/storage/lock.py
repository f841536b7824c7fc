"""One writer to a workdir at a time, by `flock`: the lock goes with its process.

The standard library alone: an entrypoint asks here before it imports JAX, so that a
second process is refused at once.
"""

import fcntl
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import WorkdirError

__all__ = ["holder", "locked", "refuse_if_held"]

_LOCK = "lock"


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
            raise WorkdirError(_in_use(workdir, held)) from None
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


def refuse_if_held(argv: Sequence[str]) -> None:
    """Exits with 1 where `--workdir` names a directory that another process holds.

    Of a job of several processes, where the first one holds it, nothing is asked here.
    """
    if any(re.match("--?(distributed|process_id)", value) for value in argv):
        return
    names = [value for value in argv if value.lstrip("-").startswith("workdir=")]
    workdir = Path(names[-1].partition("=")[2]) if names else None
    if workdir is not None and (held := holder(workdir)):
        print(f"error: {_in_use(workdir, held)}", file=sys.stderr)
        sys.exit(1)


def _in_use(workdir: Path, held: str) -> str:
    return (
        f"{workdir} is in use by process {held}: wait for it, stop it, or choose "
        "another --workdir"
    )
