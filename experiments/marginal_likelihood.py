"""log p(x) of a trained run by every estimator, with its errors, and a verdict.

    python -m experiments.marginal_likelihood --workdir=runs/DIR
    python -m experiments.marginal_likelihood --workdir=runs/DIR --num-points=1000 \\
        --importance-samples=5000,100000 --temperatures=100,1000,10000:200

Importance sampling and annealed importance sampling (AIS) bound log p(x) from below. On
data that the model makes, AIS forward and in reverse bound it from both sides (BDMC).
With few latent dimensions there are Appendix D, and the truth by quadrature. The gap
between log p(x) and the bound is split into what a Gaussian cannot do and what the
encoder does not do.

The work is saved point by point. If you stop it, the same command continues; more
points, a larger K or more temperatures only do the missing work. It writes
results.json, figures/ and report.html in the folder `marginal_likelihood` of the
workdir, or in --out.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint; 75 stopped
by a signal after saving (run the same command again).
"""

import argparse
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.arguments import Parser, add_run, count, positive, told
from experiments.errors import ConfigError
from experiments.evaluation.annealing import (
    AnnealingPath,
    find_step_sizes,
    prior_of,
)
from experiments.evaluation.points import (
    Measured,
    evenly_spaced,
    point_evaluator,
    points_identity,
)
from experiments.evaluation.registry import ROWS, Setup, Work
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.reports.likelihood import write_likelihood_report
from experiments.storage.parts import Parts
from experiments.storage.workdir import held
from experiments.training.opened import Opened, load_run
from experiments.training.progress import print_points

__all__ = ["main", "measure", "parse"]

_FOLDER = "marginal_likelihood"


def measure(
    opened: Opened, options: argparse.Namespace, folder: Path, stop: StopRequest
) -> list[Measured]:
    """Every estimate that the options ask for, in the order of the registry.

    Raises:
      ConfigError: the run's log p(x|z) is not a likelihood.
      StoppedError: a signal came; what was finished is on the disk.
    """
    program, params = opened.program, opened.params
    if not program.is_likelihood:
        raise ConfigError(
            "this run has grey pixels under a Bernoulli, which is no likelihood, so "
            "there is no log p(x) to estimate: train with "
            "--config.data.binarization=dynamic or static"
        )
    images = program.test
    points = evenly_spaced(len(images), options.num_points)
    identity = points_identity(opened.config, params, opened.dataset.sha256)
    mesh = distributed.mesh("points", options.devices)

    def apply(work: Work) -> Measured:
        estimator, num = work
        if estimator.kind.simulated:
            # The estimator makes the data from the keys: only their shape is asked for.
            shown, indices = np.zeros((num, images.shape[1]), np.uint8), np.arange(num)
        else:
            shown, indices = images, points[evenly_spaced(len(points), num)]
        evaluate = point_evaluator(
            estimator, program.to_input, seed=options.seed, mesh=mesh
        )
        parts = Parts(
            folder / "points" / f"{estimator.name}.jsonl",
            {**identity, **estimator.settings, "seed": options.seed},
        )
        return evaluate(
            params, shown, indices, parts=parts, stop=stop, report=print_points
        )

    @lru_cache
    def path() -> AnnealingPath:
        return _tuned_path(opened, options, folder, identity)

    setup = Setup(
        model=program.likelihood_model,
        latent_dim=_latent_dim(opened),
        is_normal=(opened.config.posterior, opened.config.weights)
        == ("normal", "point"),
        chunk_size=opened.config.eval.chunk_size,
        batch_size=opened.config.eval.batch_size,
        path=path,
    )
    # What is planned is done at once: step sizes are looked for when chains need them.
    return [apply(work) for row in ROWS for work in row.plan(setup, options)]


def _latent_dim(opened: Opened) -> int:
    """How many real numbers the latent is: the noise of q(theta) is a part of it."""
    model, x = opened.program.likelihood_model, jnp.zeros(opened.program.test.shape[1])
    prior = prior_of(model, opened.params, x)
    z = jax.eval_shape(prior.sample, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(z))


def _tuned_path(
    opened: Opened, options: argparse.Namespace, folder: Path, identity: dict
) -> AnnealingPath:
    path = AnnealingPath(options.start, options.schedule, options.leapfrog_steps)
    return find_step_sizes(
        opened.program.likelihood_model,
        opened.params,
        jnp.zeros(opened.program.test.shape[1]),
        path,
        Parts(folder / "points" / "step_sizes.jsonl", {**identity, **path._asdict()}),
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(
        prog="python -m experiments.marginal_likelihood", description=__doc__
    )
    add = parser.add_argument
    add_run(parser, folder=_FOLDER)
    add(
        "--num-points",
        type=count,
        default=200,
        help="test points, evenly spaced; 0 is all (200)",
    )
    for row in ROWS:
        for flag, keywords in row.flags.items():
            add(flag, **keywords)
    add(
        "--leapfrog-steps",
        type=positive,
        default=10,
        help="of each HMC transition (10)",
    )
    add("--seed", type=count, default=0, help="other draws for the same points (0)")
    add(
        "--rows",
        type=positive,
        default=256,
        help="chains at a time on each device, over points: memory and speed (256)",
    )
    add(
        "--devices",
        type=count,
        default=1,
        help="devices that share the points; 0 is all of this machine (1)",
    )
    options = parser.parse_args(argv)
    return options


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    folder = options.out or options.workdir / _FOLDER
    opened = load_run(options.workdir, step=options.step, data_path=options.data_path)
    with held(folder), StopRequest() as stop:
        found = measure(opened, options, folder, stop)
        config = opened.config
        write_likelihood_report(
            found,
            folder,
            title=f"log p(x) of {opened.dataset.name}, {config.latent_dim} latent dims",
            config=config.to_dict(),
            num_dims=opened.program.test.shape[1],
            levels=config.data.scale if config.likelihood == "gaussian" else 1,
            options=told(options) | {"step": opened.step},
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, writes the report and returns the exit code."""
    return cli.exit_codes(partial(_run, argv))


if __name__ == "__main__":
    raise SystemExit(main())
