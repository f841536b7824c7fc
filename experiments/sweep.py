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

Seeds, step sizes, beta, the weight prior's scale and the optimizer's real-valued
arguments are lanes of one program. A decay so near to one that float32 loses 1 - x
(b2=0.999) is compiled apart, as is anything that changes shapes, the estimator or the
schedule. Lanes are spread over all devices, of several processes too. The workdir gets
results.jsonl, results.csv, report.html, figures/, and in runs/NAME/ every run as
experiments.mnist would have written it: experiments.marginal_likelihood,
experiments.verify and experiments.mnist --workdir open it.

The same command again continues where it stopped. A run that diverges is marked and
does not disturb the others.

Exit codes: 0 done; 1 usage, configuration, data or workdir error; 2 every run diverged;
3 no usable checkpoint; 75 stopped by a signal after saving (the same command again);
76 another process of the job was lost (the same command on all of them goes on).
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.config import get_field
from experiments.errors import DONE, ConfigError, DivergenceError
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.reports.sweep import write_sweep_report
from experiments.storage.workdir import held
from experiments.sweeps import grid
from experiments.sweeps.runner import Sweep, default_workdir, train
from experiments.trackers.process import HELP, copied, read_flag

__all__ = ["main", "parse", "run"]


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
        return get_field(one, field)

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
    runs = grid.expand(config, overrides)
    if any(run.config.eval.std_error for run in runs):
        raise ConfigError(
            "config.eval.std_error is for a single run, and the rows of a sweep are of "
            "the same test points: set config.eval.num_points"
        )
    return Sweep(runs, fields, num_lanes, num_devices, workdir)


def run(sweep: Sweep, workdir: Path, tracker: str = "") -> list[dict[str, Any]]:
    """Trains a sweep and writes its report; returns its rows."""
    with held(workdir), StopRequest() as stop, copied(tracker, workdir):
        count = len(sweep.runs)
        print(f"{count:,} runs over {', '.join(sweep.fields)}; workdir {workdir}")
        rows = train(sweep, workdir, stop)
        if distributed.is_writer():
            write_sweep_report(sweep.runs, sweep.fields, rows, workdir)
    return rows


def _run(argv: Sequence[str]) -> None:
    tracker, argv = read_flag(argv)
    job, num_devices, rest = distributed.read_flags(argv)
    sweep = parse(rest, num_devices=num_devices)
    distributed.join(job)
    workdir = Path(sweep.workdir) if sweep.workdir else default_workdir(sweep)
    rows = run(sweep, workdir, tracker)
    if all(row["status"] != "done" for row in rows):
        raise DivergenceError(f"all {len(rows):,} runs diverged: smaller step sizes?")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a sweep; returns the exit code."""
    argv = list(sys.argv if argv is None else argv)
    if cli.asks_for_help(argv):
        print(f"{(__doc__ or '').strip()}\n\n{distributed.HELP}\n\n{HELP}")
        return DONE
    return cli.exit_codes(lambda: _run(argv))


if __name__ == "__main__":
    distributed.leave(main())
