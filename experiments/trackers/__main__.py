"""Copies a run or a sweep to a tracker: all that its workdir has and the tracker lacks.

    python -m experiments.trackers --tracker=wandb --workdir=runs/DIR
    python -m experiments.trackers --tracker=mlflow --workdir=runs/DIR

It is for runs that were made without a tracker, and for what a tracker did not take
while they ran. What the tracker has is not sent again. The libraries' own variables say
where it goes: WANDB_PROJECT, WANDB_MODE=offline, MLFLOW_TRACKING_URI and the like.

Exit codes: 0 the tracker has all of it; 1 usage, or the tracker failed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.arguments import Parser, directory
from experiments.errors import (
    DONE,
    STOPPED,
    USAGE,
    ExperimentError,
    WorkdirError,
)
from experiments.storage.atomic import read_json
from experiments.storage.lock import locked
from experiments.trackers.copies import Tracker, make_copy
from experiments.trackers.follower import Follower
from experiments.trackers.sinks import TRACKERS, one_line, opener, require

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Copies a workdir; returns the exit code."""
    parser = Parser(prog="python -m experiments.trackers", description=__doc__)
    add = parser.add_argument
    add("--tracker", required=True, help=" or ".join(TRACKERS))
    add("--workdir", type=directory, required=True, help="of the run or the sweep")
    # `process.copied` gives it: the standard input then says when the run ends.
    add("--follow", action="store_true", help=argparse.SUPPRESS)
    try:
        args = parser.parse_args(argv)
        if args.follow:
            Follower(args.tracker, args.workdir).run()
        else:
            require(args.tracker)
            _copy(args.tracker, args.workdir)
    except (ExperimentError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE
    return DONE


def _copy(name: str, workdir: Path) -> None:
    """Copies what is there, and waits for it."""

    def warn(text: str) -> None:
        print(f"warning: {name}: {text}", file=sys.stderr, flush=True)

    with locked(workdir), locked(workdir / "tracker"):
        try:
            copy = make_copy(workdir, Tracker(name, opener(name), warn, print))
            if copy is None:
                raise WorkdirError(f"{workdir} holds neither a run nor a sweep")
            copy.finish(_status(workdir))
        except ExperimentError:
            raise
        except Exception as error:  # a library raises what it likes
            raise WorkdirError(
                f"{name} failed ({one_line(error)}); what it has is written down, and "
                "the same command sends the rest"
            ) from error
    print(f"{name} has all of {workdir}")


def _status(workdir: Path) -> int:
    """How the last command on a run ended, as far as its files tell."""
    if not (workdir / "results.json").exists():
        return STOPPED
    # Of a run that was made longer they are those of the shorter one.
    last = (workdir / "metrics.jsonl").read_bytes().splitlines()[-1]
    num_epochs = read_json(workdir / "run.json")["num_epochs"]
    return DONE if json.loads(last)["epoch"] == num_epochs else STOPPED


if __name__ == "__main__":
    sys.exit(main())
