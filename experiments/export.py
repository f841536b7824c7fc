"""Exports a trained run as functions that run without this code, with jax alone.

    python -m experiments.export --workdir=runs/DIR
    python runs/DIR/artefacts/load.py           # in an environment with jax alone

Encoder, decoder, sampler and log p(x) become `jax.export` artefacts: one file each, for
CPUs, NVIDIA GPUs and TPUs and any number of datapoints at a time, with the weights, a
loader, a manifest (shapes, units, sums, versions) and numbers to compare with. They go
to the folder `artefacts` of the workdir, or to --out.

What a run does not have is left out, and the command says so: encoder and log p(x) of
Monte Carlo EM, log p(x) of grey pixels under a Bernoulli. With a posterior over the
weights the functions are at its means, and log p(x) is the predictive one.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial

from experiments import cli
from experiments.arguments import Parser, add_run, positive
from experiments.artefacts.exporting import PLATFORMS, artefacts
from experiments.artefacts.folder import FILES, check_folder, write_folder
from experiments.storage.atomic import read_json
from experiments.training.opened import load_run

__all__ = ["main", "parse"]

_FOLDER = "artefacts"
# Where config.eval.num_samples is 0: the K of the field's default.
_NUM_SAMPLES = 5000


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(prog="python -m experiments.export", description=__doc__)
    add = parser.add_argument
    add_run(parser, folder=_FOLDER)
    add(
        "--platforms",
        type=_platforms,
        default=PLATFORMS,
        help=f"with commas, of {', '.join(PLATFORMS)} (all)",
    )
    add(
        "--importance-samples",
        type=positive,
        metavar="K",
        help="of log p(x), for each datapoint (config.eval.num_samples)",
    )
    return parser.parse_args(argv)


def _platforms(text: str) -> tuple[str, ...]:
    words = dict.fromkeys(word.strip() for word in text.split(","))
    for word in words:
        if word not in PLATFORMS:
            raise argparse.ArgumentTypeError(
                f"{word!r} is none of {', '.join(PLATFORMS)}"
            )
    return tuple(words)


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    folder = options.out or options.workdir / _FOLDER
    check_folder(folder)
    opened = load_run(options.workdir, step=options.step, data_path=options.data_path)
    files = artefacts(
        opened,
        read_json(options.workdir / "run.json"),
        num_samples=options.importance_samples
        or opened.config.eval.num_samples
        or _NUM_SAMPLES,
        platforms=options.platforms,
    )
    write_folder(folder, files)
    print(f"step {opened.step:,} for {', '.join(options.platforms)}, in {folder}")
    for name, content in files.items():
        print(f"{len(content):12,} bytes  {name:24}  {FILES[name]}")
    for name, why in json.loads(files["manifest.json"])["left_out"].items():
        print(f"left out: {name}: {why}")
    print(f"check them anywhere with jax alone: python {folder / 'load.py'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Exports a run and returns the exit code."""
    return cli.exit_codes(partial(_run, argv))


if __name__ == "__main__":
    raise SystemExit(main())
