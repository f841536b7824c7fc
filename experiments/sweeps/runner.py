"""Trains a sweep group by group, and writes every run as a single one is written."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.errors import ConfigError
from experiments.evaluation.verdict import describe
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.program import Program, build, remembering_loader
from experiments.storage.atomic import read_json, write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.digests import json_digest
from experiments.storage.manifest import make_manifest
from experiments.storage.metrics import Metrics
from experiments.storage.parts import Parts
from experiments.storage.workdir import check_sweep_continues, same_work
from experiments.sweeps import grid, lanes, sizing
from experiments.sweeps.grid import Run
from experiments.sweeps.progress import SweepProgress
from experiments.training.loop import kept_steps
from experiments.training.precision import advice, settle, with_precision
from experiments.training.precision import describe as describe_precision

__all__ = ["Sweep", "default_workdir", "train"]


class Sweep(NamedTuple):
    """What is asked for.

    Attributes:
      runs: all of them.
      fields: what is swept, in order.
      num_lanes: at once; 0 is measured.
      num_devices: over which lanes are spread; 0 is all.
      workdir: "" for one that is named after the sweep.
    """

    runs: list[Run]
    fields: list[str]
    num_lanes: int
    num_devices: int
    workdir: str


def train(
    sweep: Sweep,
    workdir: Path,
    stop: StopRequest,
    load: Callable[[ConfigDict], Dataset] | None = None,
) -> list[dict[str, Any]]:
    """Trains what is not trained yet, and evaluates it.

    Args:
      sweep: what is asked for.
      workdir: where everything is written and continued from.
      stop: asked after every epoch.
      load: `program.remembering_loader()`, for sweeps that share their data; None is a
        new one.

    Returns:
      One row a run, in the order of the sweep.

    Raises:
      StoppedError: a signal came; what is finished is on the disk.
    """
    mesh = distributed.mesh("lane", sweep.num_devices)
    load = load or remembering_loader()
    sums = _data_sums(sweep, load)
    settled = distributed.on_writer(lambda: _precisions(sweep.runs, workdir, load))
    sweep = sweep._replace(
        runs=[
            run._replace(config=with_precision(run.config, settled[run.name]["chosen"]))
            for run in sweep.runs
        ]
    )
    manifest = make_manifest()
    warnings = distributed.on_writer(
        lambda: check_sweep_continues(
            workdir,
            sweep.fields,
            {run.name: run.config.to_dict() for run in sweep.runs},
            manifest | {"data_sha256": sums, "precision": settled},
        )
    )
    if distributed.is_writer():
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    # Where the data lie is no part of what the rows are of; what they are is.
    work = [same_work(run.config.to_dict()) for run in sweep.runs]
    parts = Parts(workdir / "rows.jsonl", {"runs": work, "data": sums})
    done = distributed.on_writer(
        lambda: {run.name: row for run in sweep.runs if (row := parts.get(run.name))}
    )
    progress = SweepProgress(len(sweep.runs), len(done))
    for number, group in enumerate(grid.groups(sweep.runs)):
        if all(run.name in done for run in group):
            continue
        config = group[0].config
        dataset = load(config)
        program = build(config, dataset)
        if program.is_streamed:
            raise ConfigError(
                f"the training images of {dataset.name} are streamed, and lanes have "
                "theirs on each device: set config.data.stream=never, or train the "
                "runs one by one with experiments.mnist"
            )
        own = manifest | {
            "precision": settled[group[0].name],
            "data_sha256": dataset.sha256,
            "grown_from": [],
            "num_epochs": program.num_epochs,
            "steps_per_epoch": program.steps_per_epoch,
        }
        width = _width(parts, number, group, program, mesh, sweep.num_lanes)
        progress.start_group(number, group, min(width, len(group)))
        trainers: dict[int, lanes.Trainer] = {}
        chunks = _chunks(group, width, set(done), workdir)
        for chunk in chunks:
            # Another number of lanes is compiled anew; a few idle ones are cheaper.
            sizes = [len(c) for c in chunks if len(c) <= 1.25 * len(chunk)]
            count = max(sizes)
            if count not in trainers:
                trainers[count] = lanes.Trainer(config, program, mesh, count)
            folder = workdir / "lanes" / json_digest([run.name for run in chunk])[:16]
            if distributed.is_writer():
                folder.mkdir(parents=True, exist_ok=True)
                names = {"runs": [run.name for run in chunk]}
                write_json(folder / "runs.json", names)
            progress.start_chunk(len(chunk), program)
            trained = lanes.train_lanes(
                trainers[count], chunk, folder, stop, progress.epoch, progress.evaluated
            )
            for i, run in enumerate(chunk):
                done[run.name] = row = _row(run, trained, i, program)
                if distributed.is_writer():
                    _write_run(
                        workdir / "runs" / run.name, run, trained, i, program, own
                    )
                    parts.put(run.name, row)
            if distributed.is_writer():
                shutil.rmtree(folder)
            progress.finish_chunk()
    if distributed.is_writer():
        shutil.rmtree(workdir / "lanes", ignore_errors=True)
    return [done[run.name] for run in sweep.runs]


def _precisions(
    runs: list[Run], workdir: Path, load: Callable[[ConfigDict], Dataset]
) -> dict[str, dict[str, Any]]:
    """`{run: what its precision is and why}`, timed once for what is compiled once."""
    kept: dict[str, Any] = {}
    if (workdir / "run.json").exists() and (workdir / "sweep.json").exists():
        had = read_json(workdir / "sweep.json").get("runs", {})
        kept = {name: {"chosen": config["precision"]} for name, config in had.items()}
        kept |= read_json(workdir / "run.json").get("precision", {})
    found: dict[str, dict[str, Any]] = {}
    for group in grid.groups(runs):
        config, earlier = group[0].config, kept.get(group[0].name)
        entry = settle(config, load(config), earlier)
        found |= {run.name: entry for run in group}
        if earlier is None and (chosen := describe_precision(entry)):
            print(chosen)
        if earlier is None and (slow := advice(entry)):
            print(f"warning: {slow}", file=sys.stderr, flush=True)
    return found


def _data_sums(sweep: Sweep, load: Callable[[ConfigDict], Dataset]) -> dict[str, str]:
    """`{data set: sha256}` of every data set of the sweep."""
    configs = {
        (run.config.data.name, run.config.data.path): run.config for run in sweep.runs
    }
    sums: dict[str, str] = {}
    for (name, _), config in configs.items():
        found = load(config).sha256
        if sums.setdefault(name, found) != found:
            raise ConfigError(
                f"the sweep reads {name} from places with different data: give them "
                "different names (config.data.name)"
            )
    return sums


def _chunks(
    group: list[Run], width: int, done: set[str], workdir: Path
) -> list[list[Run]]:
    """What trains together: first what an interruption left, on whatever devices."""

    def begun() -> list[list[str]]:
        paths = sorted((workdir / "lanes").glob("*/runs.json"))
        return [read_json(path)["runs"] for path in paths]

    by_name = {run.name: run for run in group if run.name not in done}
    chunks = []
    for names in distributed.on_writer(begun):
        if all(name in by_name for name in names):
            chunks.append([by_name.pop(name) for name in names])
    rest = list(by_name.values())
    # Chunks of one size, or nearly: a size more is a compile more.
    size = -(-len(rest) // max(1, -(-len(rest) // width)))
    return chunks + [rest[i : i + size] for i in range(0, len(rest), size or 1)]


def _width(
    parts: Parts,
    number: int,
    group: list[Run],
    program: Program,
    mesh: Mesh,
    asked: int,
) -> int:
    """Lanes at once, kept: a sweep that goes on has the lanes that it had."""
    if asked:
        return asked

    # Of this number of devices: another one has another.
    name = f"lanes of group {number} on {mesh.size} devices"
    width = distributed.on_writer(lambda: parts.get(name))
    if width is None:
        width = sizing.lanes_at_once(group, program, mesh)
        # Processes time apart: the first one's choice counts.
        measured = width
        width = distributed.on_writer(lambda: measured)
        parts.put(name, width)
    return int(width)


def _row(
    run: Run, trained: lanes.TrainedLanes, i: int, program: Program
) -> dict[str, Any]:
    last = trained.lines[i][-1] if trained.lines[i] else {}
    curve, test = run.config.eval.curve, trained.test
    diverged = trained.diverged[i]
    samples = program.num_epochs * program.steps_per_epoch * run.config.batch_size
    seconds = trained.seconds / len(trained.lines)
    found = describe(trained.likelihood[i]) if trained.likelihood else {}
    row = {
        "run": run.name,
        **{
            field: list(value) if isinstance(value, tuple) else value
            for field, value in run.overrides.items()
        },
        "status": f"diverged in epoch {diverged}" if diverged else "done",
        "train_bound": last.get("train/bound"),
        f"{curve}_bound": last.get(f"{curve}/bound"),
        "test_bound": test and float(test.bound[i]),
        "test_bound_std_error": test and float(test.std_error[i]),
        "active_units": test and int(test.active_units[i]),
        "log_likelihood": found.get("log_likelihood"),
        "log_likelihood_std_error": found.get("std_error"),
        "ess_mean": found["ess"]["mean"] if found else None,
        "seconds": seconds,
        "images_per_second": samples / seconds if seconds else None,
    }
    if diverged:
        keep = ("run", "status", "seconds", *run.overrides)
        row = {name: v if name in keep else None for name, v in row.items()}
    return {
        name: None if isinstance(v, float) and not np.isfinite(v) else v
        for name, v in row.items()
    }


def _write_run(
    folder: Path,
    run: Run,
    trained: lanes.TrainedLanes,
    i: int,
    program: Program,
    manifest: dict[str, Any],
) -> None:
    """A run's workdir, as `experiments.training.runner` leaves it."""
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was cut short
    folder.mkdir(parents=True)
    write_json(folder / "run.json", manifest)
    write_json(folder / "config.json", run.config.to_dict())
    Metrics(folder, trained.lines[i]).close()
    if trained.diverged[i]:
        return
    seconds = trained.seconds / len(trained.lines)
    with closing(Checkpoints(folder, keep=run.config.checkpoint.keep)) as checkpoints:
        for lanes_of_runs in (*trained.kept, trained.state):
            state = jax.tree.map(lambda leaf: leaf[i], lanes_of_runs)
            step = int(state.step)
            lines = [line for line in trained.lines[i] if line["step"] <= step]
            checkpoints.save(
                step,
                state,
                {"lines": lines, "seconds": seconds},
                kept=kept_steps(run.config, program, lines),
            )


def default_workdir(sweep: Sweep) -> Path:
    """`runs/sweep-DIGEST`: one place for each sweep."""
    configs = [run.config.to_dict() for run in sweep.runs]
    for config in configs:  # where the data lie is free, as for a single run
        config["data"]["path"] = ""
    digest = hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()
    return Path("runs") / f"sweep-{digest[:8]}"
