"""Trains a whole sweep, as many runs as possible as lanes of one compiled program.

    python -m experiments.sweep --sweep.learning_rate=1e-3,3e-3 --sweep.seed=0:16
    python -m experiments.sweep --config=experiments/configs/paper.py \\
        --sweep=grid.py --workdir=runs/mine

    --sweep.FIELD=VALUE,VALUE,...   values of a field of the configuration; several such
    --sweep.FIELD=FIRST:END         flags make a product. optimizer_args.b1 is one
                                    argument of the optimizer
    --sweep=FILE.py                 its get_sweep() returns a list of {field: value}
    --config=..., --config.FIELD=   what all runs share, as for experiments.mnist
    --lanes=N                       lanes at once; 0 is what fits and is fastest (0)
    --workdir=DIR                   where the sweep is written and continued from

Seeds, step sizes, beta, the weight prior's scale and real-valued arguments of the
optimizer are lanes; whatever else differs (shapes, the estimator, the schedule) is
compiled apart. Lanes are spread over all devices, of several processes too. The workdir
gets results.jsonl, results.csv, report.html, figures/, and in runs/NAME/ every run as
experiments.mnist would have written it: experiments.marginal_likelihood,
experiments.verify and experiments.mnist --workdir open it.

The same command again continues where it stopped. A run that diverges is marked and
does not disturb the others.

Exit codes: 0 done; 1 usage, configuration, data or workdir error; 2 every run diverged;
3 no usable checkpoint; 75 stopped by a signal after saving (the same command again);
76 another process of the job was lost (the same command on all of them goes on).
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import cli, data, distributed, grid, lanes, lock, records, sizing
from experiments.checkpoints import Checkpoints
from experiments.config import ConfigError
from experiments.grid import Run
from experiments.interruption import StopRequest
from experiments.program import Program, build
from experiments.progress import SweepProgress
from experiments.records import json_digest
from experiments.training import DivergenceError, best_step

__all__ = ["Sweep", "main", "parse", "train"]


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


def parse(argv: Sequence[str], *, num_devices: int = 0) -> Sweep:
    """Reads the command line; every run's configuration is checked.

    Raises:
      ConfigError: anything is wrong with it.
    """
    plain, num_lanes, file = [], 0, ""
    for argument in argv:
        if match := re.fullmatch(r"--?lanes=(.*)", argument):
            if not match[1].isdigit():
                raise ConfigError(f"{argument}: expected a whole number, 0 or more")
            num_lanes = int(match[1])
        elif match := re.fullmatch(r"--?sweep=(.*)", argument):
            file = match[1]
        else:
            plain.append(argument)
    rest = [item for item in plain if not re.match(r"--?sweep\.", item)]

    def typed(field: str, text: str) -> Any:
        # ml_collections would join two values of a tuple: the swept one replaces.
        shared = re.compile(rf"--?config\.{re.escape(field)}=")
        others = [item for item in rest if not shared.match(item)]
        one, _ = cli.parse(
            [*others, f"--config.{field}={text}"], config_file="default.py"
        )
        return one[field] if field in one else _nested(one, field)

    axes, rest = grid.read_axes(plain, typed)
    config, workdir = cli.parse(rest, config_file="default.py")
    if file and axes:
        raise ConfigError("--sweep=FILE and --sweep.FIELD: expected one or the other")
    overrides = grid.read_file(Path(file)) if file else grid.combinations(axes)
    if not file and not axes:
        raise ConfigError(
            "nothing is swept: give --sweep.FIELD=VALUE,VALUE,... or --sweep=FILE.py"
        )
    fields = list(dict.fromkeys(field for own in overrides for field in own))
    return Sweep(
        grid.expand(config, overrides), fields, num_lanes, num_devices, workdir
    )


def _nested(config: Any, field: str) -> Any:
    for name in field.split("."):
        config = config[name]
    return config


def train(sweep: Sweep, workdir: Path, stop: StopRequest) -> list[dict[str, Any]]:
    """Trains what is not trained yet, and evaluates it.

    Returns:
      One row a run, in the order of the sweep.

    Raises:
      StoppedError: a signal came; what is finished is on the disk.
    """
    mesh = distributed.mesh("lane", sweep.num_devices)
    manifest = records.manifest()
    parts = records.Parts(
        workdir / "rows.jsonl", [run.config.to_dict() for run in sweep.runs]
    )
    done = distributed.on_writer(
        lambda: {run.name: row for run in sweep.runs if (row := parts.get(run.name))}
    )
    progress = SweepProgress(len(sweep.runs), len(done))
    for number, group in enumerate(grid.groups(sweep.runs)):
        if all(run.name in done for run in group):
            continue
        config = group[0].config
        dataset = data.load(
            config.data.name,
            config.data.path,
            num_valid=config.data.num_valid,
            num_train=config.data.num_train,
        )
        program = build(config, dataset)
        if program.is_streamed:
            raise ConfigError(
                f"the training images of {dataset.name} are streamed, and lanes have "
                "theirs on each device: set config.data.stream=never, or train the "
                "runs one by one with experiments.mnist"
            )
        own = manifest | {
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
                records.write_json(folder / "runs.json", names)
            progress.start_chunk(len(chunk), program)
            trained = lanes.train_lanes(
                trainers[count], chunk, folder, stop, progress.epoch, progress.evaluated
            )
            for i, run in enumerate(chunk):
                done[run.name] = row = _row(run, trained, i, program)
                if distributed.is_writer():
                    _write_run(workdir / "runs" / run.name, run, trained, i, own)
                    parts.put(run.name, row)
            if distributed.is_writer():
                shutil.rmtree(folder)
            progress.finish_chunk()
    if distributed.is_writer():
        shutil.rmtree(workdir / "lanes", ignore_errors=True)
    return [done[run.name] for run in sweep.runs]


def _chunks(
    group: list[Run], width: int, done: set[str], workdir: Path
) -> list[list[Run]]:
    """What trains together: first what an interruption left, on whatever devices."""

    def begun() -> list[list[str]]:
        paths = sorted((workdir / "lanes").glob("*/runs.json"))
        return [records.read_json(path)["runs"] for path in paths]

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
    parts: records.Parts,
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
    curve = run.config.eval.curve
    diverged = trained.diverged[i]
    samples = program.num_epochs * program.steps_per_epoch * run.config.batch_size
    seconds = trained.seconds / len(trained.lines)
    found = trained.likelihood[i].summary() if trained.likelihood else {}
    row = {
        "run": run.name,
        **{
            field: list(value) if isinstance(value, tuple) else value
            for field, value in run.overrides.items()
        },
        "status": f"diverged in epoch {diverged}" if diverged else "done",
        "train_bound": last.get("train/bound"),
        f"{curve}_bound": last.get(f"{curve}/bound"),
        "test_bound": float(trained.test.bound[i]),
        "test_bound_std_error": float(trained.test.std_error[i]),
        "active_units": int(trained.test.active_units[i]),
        "log_likelihood": found.get("log_likelihood"),
        "log_likelihood_std_error": found.get("std_error"),
        "ess_mean": found.get("ess_mean"),
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
    manifest: dict[str, Any],
) -> None:
    """A run's workdir, as `experiments.runner` leaves it before its summary."""
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was cut short
    folder.mkdir(parents=True)
    records.write_json(folder / "run.json", manifest)
    records.write_json(folder / "config.json", run.config.to_dict())
    records.Metrics(folder, trained.lines[i]).close()
    if trained.diverged[i]:
        return
    state = jax.tree.map(lambda leaf: leaf[i], trained.state)
    seconds = trained.seconds / len(trained.lines)
    with closing(Checkpoints(folder, keep=run.config.checkpoint.keep)) as checkpoints:
        checkpoints.save(
            int(state.step),
            state,
            {"lines": trained.lines[i], "seconds": seconds},
            best=best_step(run.config, trained.lines[i]),
        )


def default_workdir(sweep: Sweep) -> Path:
    """`runs/sweep-DIGEST`: one place for each sweep."""
    configs = json.dumps([run.config.to_dict() for run in sweep.runs], sort_keys=True)
    return Path("runs") / f"sweep-{hashlib.sha256(configs.encode()).hexdigest()[:8]}"


def _check_continues(workdir: Path, sweep: Sweep) -> None:
    described = {
        "fields": sweep.fields,
        "runs": {run.name: run.config.to_dict() for run in sweep.runs},
    }
    path = workdir / "sweep.json"
    if path.exists():
        stored = records.read_json(path)
        if json.dumps(stored["runs"]) != json.dumps(described["runs"]):
            raise lock.WorkdirError(
                f"{workdir} holds another sweep, of {len(stored['runs'])} runs over "
                f"{', '.join(stored['fields'])}: choose another --workdir"
            )
    records.write_json(path, described)


def _run(argv: Sequence[str]) -> None:
    job, num_devices, rest = distributed.read_flags(argv)
    sweep = parse(rest, num_devices=num_devices)
    distributed.join(job)
    workdir = Path(sweep.workdir) if sweep.workdir else default_workdir(sweep)
    with ExitStack() as stack:
        if distributed.is_writer():
            if workdir.parent == Path("runs"):
                workdir.parent.mkdir(exist_ok=True)
            stack.enter_context(lock.locked(workdir))
        distributed.on_writer(lambda: _check_continues(workdir, sweep))
        stop = stack.enter_context(StopRequest())
        count = len(sweep.runs)
        print(f"{count:,} runs over {', '.join(sweep.fields)}; workdir {workdir}")
        rows = train(sweep, workdir, stop)
        if distributed.is_writer():
            from experiments.sweep_report import write_sweep_report

            write_sweep_report(sweep.runs, sweep.fields, rows, workdir)
    if all(row["status"] != "done" for row in rows):
        raise DivergenceError(f"all {len(rows):,} runs diverged: smaller step sizes?")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a sweep; returns the exit code."""
    argv = list(sys.argv if argv is None else argv)
    if any(re.fullmatch(r"--?h(elp\w*)?(=.*)?", item) for item in argv[1:]):
        print(f"{(__doc__ or '').strip()}\n\n{distributed.HELP}")
        return cli.DONE
    return cli.exit_codes(lambda: _run(argv))


if __name__ == "__main__":
    distributed.leave(main())
