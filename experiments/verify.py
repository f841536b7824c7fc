"""Reads a run or a sweep back from its workdir and says whether it is whole.

    python -m experiments.verify --workdir=runs/DIR

It looks at the configuration, the data (their sha256), every checkpoint (the sha256 of
its files and of its leaves), metrics.jsonl (every line, no gap, the same numbers as in
the checkpoint), the finished parts of evaluations (the sha256 of each), exported
artefacts (the sha256 of each file), and the results; of a sweep, at its rows and at
every run. It changes nothing, and a run may be writing at the same time.

Exit codes: 0 all is whole; 1 usage, or something is damaged or missing, but there is a
checkpoint to go on from; 3 there are checkpoints, and none is usable.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import cli
from experiments.arguments import Parser, directory
from experiments.artefacts.loader import read_files
from experiments.data import Dataset
from experiments.errors import (
    DONE,
    NO_CHECKPOINT,
    USAGE,
    ExperimentError,
    WorkdirError,
)
from experiments.program import load_dataset, remembering_loader
from experiments.storage.atomic import read_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.lock import holder
from experiments.storage.parts import read_part
from experiments.storage.workdir import read_config

__all__ = ["Finding", "main", "verify"]


class Finding(tuple[bool, str, str]):
    """(whether it is whole, what was looked at, what was found)."""


class _Look:
    """Looks at one thing after another, and keeps what was found."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def __call__(self, what: str, read: Callable[[], str]) -> None:
        try:
            self.findings.append(Finding((True, what, read())))
        except Exception as error:  # a damaged file makes a reader raise what it likes
            text = " ".join(str(error).split())
            if not isinstance(error, ExperimentError | OSError):
                text = f"not as it was written ({type(error).__name__}: {text})"
            self.findings.append(Finding((False, what, text)))

    @property
    def code(self) -> int:
        return DONE if all(found[0] for found in self.findings) else USAGE


def verify(workdir: Path, *, data_path: str = "") -> tuple[list[Finding], int]:
    """Looks at everything in a workdir.

    Args:
      workdir: of a run or of a sweep.
      data_path: where the data lie now, if they have moved.

    Returns:
      What was found, and the exit code.
    """
    look = _Look()
    if held := holder(workdir):
        look("lock", lambda: f"process {held} is writing: what follows may change")
    if (workdir / "sweep.json").exists():
        return _verify_sweep(workdir, look, data_path)
    return _verify_run(workdir, look, data_path, load_dataset)


def _verify_sweep(
    workdir: Path, look: _Look, data_path: str
) -> tuple[list[Finding], int]:
    names: list[str] = []

    def read() -> str:
        stored = read_json(workdir / "sweep.json")
        names.extend(str(name) for name in stored["runs"])
        return f"{len(names):,} runs over {', '.join(stored['fields'])}"

    look("sweep.json", read)
    look("rows.jsonl", partial(_parts, workdir / "rows.jsonl"))
    codes, load = set(), remembering_loader()
    for name in names:
        folder = workdir / "runs" / name
        if folder.is_dir():
            own = _Look()
            codes.add(_verify_run(folder, own, data_path, load)[1])
            look.findings += [
                Finding((whole, f"runs/{name}/{what}", found))
                for whole, what, found in own.findings
            ]
    if (workdir / "results.jsonl").exists():
        look("results.jsonl", lambda: _rows(workdir, len(names)))
    else:
        look("results.jsonl", lambda: "none: the sweep is not finished")
    left = sum(not (workdir / "runs" / name).is_dir() for name in names)
    if left:
        look("runs", lambda: f"{left:,} of {len(names):,} are not finished")
    code = NO_CHECKPOINT if NO_CHECKPOINT in codes else look.code
    return look.findings, code


def _verify_run(
    workdir: Path,
    look: _Look,
    data_path: str,
    load: Callable[[ConfigDict], Dataset],
) -> tuple[list[Finding], int]:
    look("config.json", lambda: _config(workdir))
    look("data", lambda: _data(workdir, data_path, load))
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
    for folder in ("evaluation", "marginal_likelihood/points"):
        for path in sorted((workdir / folder).glob("*.jsonl")):
            look(f"{folder}/{path.name}", partial(_parts, path))
    if (workdir / "artefacts").is_dir():
        look("artefacts", lambda: _artefacts(workdir / "artefacts"))
    if (workdir / "results.json").exists():
        look("results.json", lambda: _results(workdir))
    else:
        look("results.json", lambda: "none: the run is not finished")
    return look.findings, NO_CHECKPOINT if steps and not usable else look.code


def _config(workdir: Path) -> str:
    config = read_config(workdir)
    length = config.epochs or f"{config.train_samples:,} samples, in"
    return f"{config.data.name}, {length} epochs, seed {config.seed}"


def _data(workdir: Path, data_path: str, load: Callable[[ConfigDict], Dataset]) -> str:
    expected = read_json(workdir / "run.json").get("data_sha256")
    dataset = load(read_config(workdir, data_path=data_path))
    if dataset.sha256 != expected:
        raise WorkdirError(
            f"{dataset.source} has sha256 {dataset.sha256}, but the run was trained on "
            f"{expected}"
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
    stride = int(read_json(workdir / "run.json").get("steps_per_epoch", 0))
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
    if not path.exists():
        return "none yet"
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    parts = [part for line in lines if (part := read_part(line)) is not None]
    if len(parts) < len(lines):
        raise WorkdirError(
            f"{len(lines) - len(parts)} of {len(lines)} lines are not as they were "
            "written: those parts are made again"
        )
    return f"{len(parts)} finished parts, each as it was written"


def _artefacts(folder: Path) -> str:
    _, files = read_files(folder)
    return f"{len(files)} files, each as it was written"


def _rows(workdir: Path, num_runs: int) -> str:
    lines = (workdir / "results.jsonl").read_text().splitlines()
    if len([json.loads(line)["run"] for line in lines]) != num_runs:
        raise WorkdirError(f"{len(lines):,} rows, expected {num_runs:,}")
    return f"{len(lines):,} rows"


def _results(workdir: Path) -> str:
    results = read_json(workdir / "results.json")
    return f"test bound {float(results['test_bound']):.2f} nats"


def _run(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="python -m experiments.verify", description=__doc__)
    parser.add_argument(
        "--workdir", type=directory, required=True, help="the run's folder"
    )
    parser.add_argument(
        "--data-path", default="", help="where the data lie now, if they have moved"
    )
    options = parser.parse_args(argv)
    findings, code = verify(options.workdir, data_path=options.data_path)
    for whole, what, found in findings:
        print(f"{'ok      ' if whole else 'DAMAGED '} {what}: {found}")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what is in a workdir; returns the exit code."""
    codes: list[int] = []
    return cli.exit_codes(lambda: codes.append(_run(argv))) or codes[0]


if __name__ == "__main__":
    raise SystemExit(main())
