"""The flag `--tracker`, and the process that it starts beside a run.

A library that hangs, that takes all memory, or that leaves threads behind cannot be
left alone in the process of the run, and can in one of its own. That process reads the
workdir: the run hands nothing over, and waits at its end alone, and not for long.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.arguments import Parser
from experiments.errors import DONE, STOPPED, USAGE, ExperimentError
from experiments.processes.distributed import is_writer
from experiments.trackers.sinks import require

__all__ = ["HELP", "copied", "read_flag"]

HELP = """\
A copy of the run in a tracker (docs/use.md, "Trackers"):

    --tracker=wandb|mlflow     copies metrics, figures and results; a failure of the
                               tracker is a warning, and nothing of the run changes"""
_ROOT = Path(__file__).resolve().parents[2]
# For the last lines, figures and results. A host that stops a run does not wait.
_WAIT_SECONDS, _WAIT_WHEN_STOPPED_SECONDS = 30.0, 5.0
# Then the process has so long to end by itself: a database that is being made, say,
# would be of no use if its maker were killed.
_LEFT_SECONDS = 60.0


def read_flag(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Reads `--tracker`.

    Returns:
      The tracker, "" for none, and the other arguments.

    Raises:
      ConfigError: it is unknown, or its library is not installed.

    >>> read_flag(["mnist", "--workdir=run"])
    ('', ['mnist', '--workdir=run'])
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tracker", default="")
    found, rest = parser.parse_known_args(list(argv))
    if found.tracker:
        require(found.tracker)
    return found.tracker, rest


@contextmanager
def copied(tracker: str, workdir: Path) -> Iterator[None]:
    """Copies a run to a tracker, beside it and, for half a minute, after it.

    Args:
      tracker: of the flag; "" is none.
      workdir: of a run or a sweep; there is such a directory, and the caller holds it.
    """
    if not tracker or not is_writer():
        yield
        return
    process = _start(tracker, workdir)
    code = USAGE
    try:
        yield
        code = DONE
    except ExperimentError as error:
        code = error.exit_code
        raise
    finally:
        if process is not None:
            _end(process, code, tracker, workdir)


def _start(tracker: str, workdir: Path) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-P", "-m", "experiments.trackers", "--follow"]
    # The checkout alone: in the working directory wandb makes a folder `wandb`.
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    try:
        return subprocess.Popen(
            [*command, f"--tracker={tracker}", f"--workdir={workdir}"],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )
    except OSError as error:
        _warn(tracker, workdir, f"its process cannot be started ({error.strerror})")
        return None


def _end(
    process: subprocess.Popen[bytes], code: int, tracker: str, workdir: Path
) -> None:
    """Says how the run ended, and waits as long as it says."""
    seconds = _WAIT_WHEN_STOPPED_SECONDS if code == STOPPED else _WAIT_SECONDS
    try:
        said = f"{code} {seconds} {_LEFT_SECONDS}"
        process.communicate(said.encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, daemon=True).start()
        _warn(tracker, workdir, f"it is left alone, as it did not end in {seconds:g} s")
    else:
        if process.returncode:
            _warn(tracker, workdir, f"its process ended with {process.returncode}")


def _warn(tracker: str, workdir: Path, what: str) -> None:
    print(
        f"warning: tracker {tracker}: {what}; nothing of the run is lost, and `python "
        f"-m experiments.trackers --tracker={tracker} --workdir={workdir}` sends what "
        "is missing",
        file=sys.stderr,
        flush=True,
    )
