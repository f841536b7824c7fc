"""Runs the paper's experiments again and draws them over the paper's own curves.

    python -m experiments.paper --samples=1e6
    python -m experiments.paper --figures=2,4 --samples=1e7 --frey-face=frey_rawface.mat

--figures names what is run: 2 (bounds of AEVB and wake-sleep), 3 (log p(x) of AEVB,
wake-sleep and MCEM), 4 (manifolds), 5 (samples), readings (what the paper leaves open),
beyond (binary pixels, Adam, a wake-sleep that does not collapse). --samples is the
length of Fig. 2's runs: 1e6 takes minutes on two cores, 1e7 a few hours, 1e8 a day or
more on a CPU.

On a CPU, panels run side by side in processes of their own (--jobs): a step of these
networks does not keep two cores busy. The same command with as many jobs has the same
bits; with another number, the same numbers up to rounding.

Frey Face is not bundled: without --frey-face its panels are left out. The original is
at https://cs.nyu.edu/~roweis/data/frey_rawface.mat.

The same command again continues where it stopped, exactly; report.html in the workdir
has what is finished; it is written again as panels end, at most once a minute.

Exit codes: 0 done; 1 usage, data or workdir error; 2 diverged; 3 no usable checkpoint;
75 stopped by a signal after saving (run the same command again).
"""

import argparse
import contextlib
import functools
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from experiments import cli
from experiments.arguments import Parser
from experiments.data import load
from experiments.errors import ConfigError
from experiments.evaluation.points import Progress
from experiments.processes.interruption import StopRequest
from experiments.processes.workers import Task, cores, run_tasks
from experiments.program import remembering_loader
from experiments.reports.paper.page import print_paper_tables, write_paper_report
from experiments.reproduction import frey, marginal
from experiments.reproduction.outcome import collect
from experiments.reproduction.protocol import Panel, panels, read_sections
from experiments.reproduction.training import find_curves, train_panel, trials_of
from experiments.storage.workdir import held

__all__ = ["main", "parse", "run"]


def run(
    asked: Sequence[Panel],
    sections: Sequence[str],
    samples: int,
    workdir: Path,
    num_jobs: int = 1,
) -> Path:
    """Runs panels, and writes the page as they end, at most once a minute.

    Args:
      asked: the panels.
      sections: of `protocol.SECTIONS`, what is shown.
      samples: of a run of Fig. 2.
      workdir: where everything is written and continued from.
      num_jobs: panels at once; more than one are in processes of their own, each with
        its share of the cores.

    Returns:
      The page.

    Raises:
      StoppedError: a signal came; what is done is saved, and the page has it.
    """

    def write() -> Path:
        return write_paper_report(collect(asked, workdir), sections, samples, workdir)

    written = -math.inf

    with held(workdir), StopRequest() as stop, _compiled_programs() as settings:
        print(f"{len(asked)} panels, {num_jobs} at once; workdir {workdir}", flush=True)
        configure = partial(_configure, settings)
        measure = partial(_measure, workdir=workdir)
        tasks = [
            Task(panel.name, panel, frozenset(trials_of(panel))) for panel in asked
        ]
        try:
            done = (
                _one_by_one(measure, tasks, configure, stop)
                if num_jobs == 1
                else run_tasks(
                    measure,
                    tasks,
                    num_workers=num_jobs,
                    stop=stop,
                    setup=partial(_configure_worker, settings),
                )
            )
            with contextlib.closing(done):
                for count, task in enumerate(done, start=1):
                    title = task.argument.title
                    print(f"{count} of {len(asked)} panels done: {title}", flush=True)
                    late = time.monotonic() - written > _PAGE_SECONDS
                    if late and count < len(asked):
                        write()
                        written = time.monotonic()
        finally:
            page = write()
        print_paper_tables(collect(asked, workdir))
        print(f"report {page}")
    return page


def _measure(panel: Panel, stop: StopRequest, *, workdir: Path) -> None:
    """All that is measured of a panel; what is there is not made again."""
    train_panel(panel, workdir, stop, _loader())
    curves = find_curves(panel, workdir)
    marginal.measure_panel(panel, curves, workdir, stop, _print_points)
    if panel.config.data.name == "frey_face":
        frey.look_at(panel, curves, workdir)


_PAGE_SECONDS = 60.0  # between two pages: one takes three seconds of a core
_MOST_JOBS = 4  # two to three gigabytes each

_loader = functools.cache(remembering_loader)


def _one_by_one(
    function: Callable[[Any, StopRequest], None],
    tasks: Sequence[Task],
    setup: Callable[[], None],
    stop: StopRequest,
) -> Generator[Task]:
    """`run_tasks` in this process."""
    before = {name: getattr(jax.config, name) for name in _CACHE}
    setup()
    try:
        for task in tasks:
            function(task.argument, stop)
            yield task
    finally:
        _configure(before)


_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@contextlib.contextmanager
def _compiled_programs() -> Iterator[dict[str, Any]]:
    """Settings that keep compiled programs while the command runs: panels share theirs.

    Not longer: a program is for this machine, and the workdir may be moved.
    """
    own = {name: getattr(jax.config, name) for name in _CACHE}
    if own[_CACHE[0]]:  # the user's
        yield own
        return
    with tempfile.TemporaryDirectory(prefix="aevb-compiled-") as folder:
        yield dict(zip(_CACHE, (folder, 0.0, 0), strict=True))


def _configure_worker(settings: dict[str, Any]) -> None:
    # The same bits at the same speed, for a quarter less of compiling.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    _configure(settings)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)


def _print_points(progress: Progress) -> None:
    if progress.done == progress.total:
        print(
            f"  log p(x) of {progress.total:,} points: {progress.mean:.2f} nats, "
            f"{progress.points_per_second:.0f} points/s",
            flush=True,
        )


def _samples(text: str) -> int:
    if not re.fullmatch(r"\d+(\.\d*)?([eE]\+?\d{1,2})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 1e6")
    value = float(text)
    if not value.is_integer() or value < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1e4 on")
    return int(value)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(prog="python -m experiments.paper", description=__doc__)
    parser.add_argument(
        "--figures", default="", metavar="2,3,...", help="what is run (everything)"
    )
    parser.add_argument(
        "--samples", type=_samples, default=1_000_000, help="of Fig. 2's runs (1e6)"
    )
    parser.add_argument(
        "--frey-face",
        default="",
        metavar="PATH",
        help="frey_rawface.mat, or its folder",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="panels at once, in processes of their own (one a core, at most 4, on a "
        "CPU; 1 on an accelerator)",
    )
    parser.add_argument(
        "--workdir", default="", help="where all is written (runs/paper-SAMPLES)"
    )
    options = parser.parse_args(argv)
    options.figures = read_sections(options.figures)
    if options.jobs < 0:
        raise ConfigError(f"--jobs={options.jobs} is negative: give 1 or more")
    return options


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    if options.frey_face:  # a wrong path is told at once
        load("frey_face", options.frey_face, num_valid=0)
    elif "2" in options.figures or "4" in options.figures:
        print("Frey Face is left out: give --frey-face=frey_rawface.mat (see --help)")
    asked = panels(options.figures, options.samples, options.frey_face)
    workdir = options.workdir or f"runs/paper-{options.samples:.0e}".replace("+0", "")
    num_jobs = options.jobs or _default_jobs()
    run(asked, options.figures, options.samples, Path(workdir), num_jobs)


def _default_jobs() -> int:
    """A step of these networks does not keep two cores busy."""
    return min(len(cores()), _MOST_JOBS) if jax.default_backend() == "cpu" else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the paper's experiments; returns the exit code."""
    return cli.exit_codes(lambda: _run(argv))


if __name__ == "__main__":
    raise SystemExit(main())
