"""Codes of images: q(z|x) of a trained run, as a file.

    python -m experiments.encode --workdir=runs/DIR --output=codes.npz
    python -m experiments.encode --workdir=runs/DIR --input=mine.png \\
        --output=mine.parquet --draws=10 --log-likelihood=5000

The file has a row an image: "mean" and "std" of q(z|x), which have no unit (under a
standard normal prior z has deviation 1), "draws" of it if they are asked for, and
log p(x) by importance sampling, in nats, with its standard error, effective sample size
and k-hat; beside them "index", and "split" and "label" where they are known. The pixels
of a binary run are binary: test images as in the report, training images drawn once, of
your own files white from a byte of 128 on.

NPZ is read by `numpy.load`, Parquet by pandas and others. Rows are made chunk by chunk.
If you stop it, or it is killed, the same command goes on and makes the same file.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint; 75 stopped
by a signal after saving (run the same command again).
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments import cli
from experiments.arguments import Parser, add_run, count, told
from experiments.evaluation.points import points_identity
from experiments.keys import Stream, stream_key
from experiments.processes.interruption import StopRequest
from experiments.trained import TrainedRun
from experiments.trained.arrays import Array
from experiments.trained.sources import SPLITS, Source, read_sources
from experiments.trained.streaming import Rows, progress, write_rows
from experiments.training.opened import load_run

__all__ = ["main", "parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(prog="python -m experiments.encode", description=__doc__)
    add = parser.add_argument
    add_run(parser)
    add(
        "--input",
        default="all",
        help=f"all, some of {','.join(SPLITS)} with commas, or a PNG, NPY or IDX file "
        "(all)",
    )
    add("--output", type=Path, required=True, help="the file: NAME.npz or NAME.parquet")
    add("--draws", type=count, default=0, help="of each q(z|x) (0)")
    add(
        "--log-likelihood",
        type=count,
        default=0,
        metavar="K",
        help="importance samples for log p(x); 0 leaves it out (0)",
    )
    add("--seed", type=count, default=0, help="other draws (0)")
    return parser.parse_args(argv)


def _rows(
    run: TrainedRun, sources: Sequence[Source], options: argparse.Namespace
) -> Callable[[int, int], dict[str, np.ndarray]]:
    """`make(first, last)` over all sources, one after another."""
    starts = np.cumsum([0, *(source.num for source in sources)])
    width = max(len(source.name) for source in sources)
    has_labels = any(source.labels is not None for source in sources)

    def of_source(number: int, first: int, last: int) -> dict[str, np.ndarray]:
        source, indices = sources[number], np.arange(first, last)
        xs = source.inputs(first, last)
        key = stream_key(Stream.CODES, options.seed)
        codes = run.encode(
            xs,
            num_draws=options.draws,
            key=jax.random.fold_in(key, number),
            indices=indices,
        )
        split = np.full(len(xs), source.name, f"U{width}")
        found: dict[str, Array] = {"index": indices, "split": split}
        if has_labels:
            unknown = np.full(len(xs), -1, np.int32)
            labels = source.labels
            found["label"] = unknown if labels is None else labels[first:last]
        found |= {"mean": codes.mean, "std": codes.std}
        if options.draws:
            found["draws"] = codes.draws
        if options.log_likelihood:
            estimate = run.log_likelihood(
                xs,
                num_samples=options.log_likelihood,
                seed=options.seed,
                indices=indices,
            )
            found |= {
                "log_likelihood": estimate.log_likelihood,
                "log_likelihood_std_error": estimate.std_error,
                "ess": estimate.ess,
                "pareto_k": estimate.pareto_k,
            }
        return {name: np.asarray(value) for name, value in found.items()}

    def make(first: int, last: int) -> dict[str, np.ndarray]:
        found = []
        for number, start in enumerate(starts[:-1]):
            low, high = max(first, start), min(last, starts[number + 1])
            if low < high:
                found.append(of_source(number, int(low - start), int(high - start)))
        return {name: np.concatenate([f[name] for f in found]) for name in found[0]}

    return make


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    opened = load_run(options.workdir, step=options.step, data_path=options.data_path)
    names = list(SPLITS) if options.input == "all" else options.input.split(",")
    sources = read_sources(opened, names)
    run = TrainedRun(options.workdir, opened)
    about = told(options) | {"step": opened.step}
    identity = {
        **points_identity(opened.config, opened.params, opened.dataset.sha256),
        "training_precision": opened.config.precision,
        "sources": [[source.identity, source.num] for source in sources],
        "draws": options.draws,
        "log_likelihood": options.log_likelihood,
        "seed": options.seed,
    }
    num = sum(source.num for source in sources)
    rows = Rows(num, _rows(run, sources, options), identity, about)
    # log p(x) takes long: a chunk is a few seconds' work.
    chunk_size = 200 if options.log_likelihood else 5000
    report = progress("images", num)
    with StopRequest() as stop:
        made = write_rows(options.output, rows, stop, report, chunk_size=chunk_size)
    print(f"{options.output}: {num:,} images" + ("" if made else ", was there already"))


def main(argv: Sequence[str] | None = None) -> int:
    """Encodes and returns the exit code."""
    return cli.exit_codes(partial(_run, argv))


if __name__ == "__main__":
    raise SystemExit(main())
