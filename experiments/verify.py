"""Reads a run back from its workdir and says what is there and whether it is whole.

    python -m experiments.verify --workdir=runs/DIR

It looks at the configuration, the data (their sha256), every checkpoint (the sha256 of
its files and of its leaves), metrics.jsonl (every line, no gap, the same numbers as in
the checkpoint), the finished parts of the evaluation, and the results. It changes
nothing, and a run may be writing at the same time.

Exit codes: 0 all is whole; 1 usage, or something is damaged or missing, but there is a
checkpoint to go on from; 3 there are checkpoints, and none is usable.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from experiments import cli, data, lock, records
from experiments import workdir as workdirs
from experiments.checkpoints import CheckpointError, Checkpoints
from experiments.config import ConfigError
from experiments.data import DataError
from experiments.lock import WorkdirError

__all__ = ["Finding", "main", "verify"]


class Finding(tuple[bool, str, str]):
    """(whether it is whole, what was looked at, what was found)."""


def verify(workdir: Path) -> tuple[list[Finding], int]:
    """Looks at everything in a workdir.

    Returns:
      What was found, and the exit code.
    """
    findings: list[Finding] = []

    def look(what: str, read: Callable[[], str]) -> bool:
        try:
            findings.append(Finding((True, what, read())))
            return True
        except (
            CheckpointError, ConfigError, DataError, OSError, ValueError, WorkdirError
        ) as error:  # fmt: skip
            text = " ".join(str(error).split())
            findings.append(Finding((False, what, text)))
            return False

    if held := lock.holder(workdir):
        look("lock", lambda: f"process {held} is writing: what follows may change")
    look("config.json", lambda: _config(workdir))
    look("data", lambda: _data(workdir))

    checkpoints = Checkpoints(workdir)
    usable: dict[int, dict[str, Any]] = {}

    def checkpoint(step: int) -> str:
        found = checkpoints.verify(step)
        usable[step] = found.record
        return f"{len(found.state)} leaves and all files are as they were saved"

    steps = checkpoints.steps()
    for step in steps:
        look(f"checkpoint {step}", partial(checkpoint, step))
    if not steps:
        look("checkpoints", lambda: "none yet")
    for path in checkpoints.unfinished():
        look(path.name, lambda: "an unfinished save: the next run removes it")
    if (workdir / "damaged").is_dir():
        names = sorted(path.name for path in (workdir / "damaged").iterdir())
        look("damaged", lambda: f"{', '.join(names)}: set aside, not used")

    record = usable[max(usable)] if usable else {"step": 0, "lines": []}
    look("metrics.jsonl", lambda: _metrics(workdir, record))
    for path in sorted((workdir / "evaluation").glob("*.jsonl")):
        look(f"evaluation/{path.name}", partial(_parts, path))
    if (workdir / "results.json").exists():
        look("results.json", lambda: _results(workdir))
    else:
        look("results.json", lambda: "none: the run is not finished")

    if steps and not usable:
        return findings, cli.NO_CHECKPOINT
    return findings, cli.DONE if all(found[0] for found in findings) else cli.USAGE


def _config(workdir: Path) -> str:
    config = workdirs.read_config(workdir)
    length = config.epochs or f"{config.train_samples:,} samples, in"
    return f"{config.data.name}, {length} epochs, seed {config.seed}"


def _data(workdir: Path) -> str:
    manifest = records.read_json(workdir / "run.json")
    fields = workdirs.read_config(workdir).data
    dataset = data.load(
        fields.name,
        fields.path,
        num_valid=fields.num_valid,
        num_train=fields.num_train,
    )
    if dataset.sha256 != manifest.get("data_sha256"):
        raise WorkdirError(
            f"{dataset.source} has sha256 {dataset.sha256}, but the run was trained on "
            f"{manifest.get('data_sha256')}"
        )
    return f"sha256 {dataset.sha256[:16]}…, the data of the run"


def _metrics(workdir: Path, record: dict[str, Any]) -> str:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        if record["lines"]:
            raise WorkdirError("missing: the next run writes it from the checkpoint")
        return "none yet"
    text = path.read_bytes().decode()
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    stride = int(records.read_json(workdir / "run.json").get("steps_per_epoch", 0))
    for i, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or line.get("epoch") != i:
            raise WorkdirError(f"line {i} is not that of epoch {i}")
        if line.get("step") != i * stride:
            raise WorkdirError(
                f"line {i} is of step {line.get('step')}, expected {i * stride}"
            )
    kept = [line for line in lines if line["step"] <= record["step"]]
    if json.dumps(kept) != json.dumps(record["lines"]):
        raise WorkdirError(
            f"not what the checkpoint of step {record['step']} has: the next run "
            "writes it from there"
        )
    if not text.endswith("\n") and text:
        raise WorkdirError("its last line is cut short: the next run writes it anew")
    return f"{len(lines)} lines, no gap; {len(kept)} of them as in the last checkpoint"


def _parts(path: Path) -> str:
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    if not all({"name", "value", "sha256"} <= set(line) for line in lines):
        raise WorkdirError("a line is not a finished part: it is done again")
    return f"{len(lines)} finished parts"


def _results(workdir: Path) -> str:
    results = records.read_json(workdir / "results.json")
    return f"test bound {results['test_bound']:.2f} nats"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line and exit code 1, as for every other usage error of the project.
        self.exit(cli.USAGE, f"error: {message} (see --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what is in a workdir; returns the exit code."""
    parser = _Parser(
        prog="python -m experiments.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="the run's folder")
    workdir = parser.parse_args(argv).workdir
    if not workdir.is_dir():
        parser.error(f"{workdir} is not a directory")
    code = cli.USAGE

    def run() -> None:
        nonlocal code
        findings, code = verify(workdir)
        for whole, what, found in findings:
            print(f"{'ok      ' if whole else 'DAMAGED '} {what}: {found}")

    return cli.exit_codes(run) or code


if __name__ == "__main__":
    raise SystemExit(main())
