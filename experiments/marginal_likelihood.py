"""log p(x) of a trained run by every estimator, with its errors, and a verdict.

    python -m experiments.marginal_likelihood --workdir=runs/DIR
    python -m experiments.marginal_likelihood --workdir=runs/DIR --num-points=1000 \\
        --importance-samples=5000,100000 --temperatures=100,1000,10000:200

Importance sampling and annealed importance sampling (AIS) bound log p(x) from below. On
data that the model makes, AIS forward and in reverse bound it from both sides (BDMC).
With few latent dimensions there are Appendix D, and the truth by quadrature. The gap
between log p(x) and the bound is split into what a Gaussian cannot do and what the
encoder does not do.

The work is kept point by point: stopped, it goes on where it was; more points, a larger
K or more temperatures only do what is not there yet. It writes results.json, figures/
and report.html in the folder `marginal_likelihood` of the workdir, or in --out.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint; 75 stopped
by a signal after saving (run the same command again).
"""

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, distributed, likelihoods, lock, records, runner
from experiments.config import ConfigError
from experiments.evaluation import evenly_spaced
from experiments.interruption import StopRequest
from experiments.likelihoods import AnnealingPath
from experiments.measuring import Estimator, Measured, measure
from experiments.program import FIXED_SEED
from experiments.progress import duration

__all__ = ["main", "measure_all"]

# Appendix D is of use in a few dimensions (the paper: below five).
_RECIPROCAL_DIMS = 4
_QUADRATURE_DIMS = 3


def measure_all(
    opened: runner.Opened, options: argparse.Namespace, folder: Path, stop: StopRequest
) -> list[Measured]:
    """Every estimate that the options ask for, in the order of their cost.

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
    model, latent_dim = program.model, opened.config.latent_dim
    images = program.test
    points = evenly_spaced(len(images), options.num_points)
    identity = {
        "params": records.digests(params),
        "data": opened.dataset.sha256,
        "binarization": opened.config.data.binarization,
    }
    run = partial(
        measure,
        params=params,
        to_input=program.to_input,
        seed=options.seed,
        folder=folder / "points",
        identity=identity,
        stop=stop,
        report=_progress,
        mesh=distributed.mesh("points", options.devices),
    )

    def on_points(estimator: Estimator, num_points: int) -> Measured:
        chosen = points[evenly_spaced(len(points), num_points)]
        return run(estimator, images=images, indices=chosen)

    def simulated(estimator: Estimator, num_points: int) -> Measured:
        blank = np.zeros((num_points, images.shape[1]), images.dtype)
        return run(estimator, images=blank, indices=np.arange(num_points))

    found = []
    for num_samples, num_points in options.importance_samples:
        estimator = likelihoods.importance(
            model,
            num_samples=num_samples,
            chunk_size=opened.config.eval.chunk_size,
            batch_size=opened.config.eval.batch_size,
        )
        found.append(on_points(estimator, num_points))
    if options.gap_points:
        estimator = likelihoods.inference_gap(
            model,
            num_steps=options.gap_steps,
            num_samples=1000,
            batch_size=max(1, options.rows // 8),
        )
        found.append(on_points(estimator, options.gap_points))
    if latent_dim <= _RECIPROCAL_DIMS and options.reciprocal_points:
        estimator = likelihoods.reciprocal(
            model,
            num_chains=8,
            num_samples=options.posterior_draws,
            num_burn_in=options.posterior_draws // 2,
            num_leapfrog_steps=options.leapfrog_steps,
            batch_size=max(1, options.rows // 8),
        )
        found.append(on_points(estimator, options.reciprocal_points))
    if latent_dim <= _QUADRATURE_DIMS and options.quadrature_points:
        estimator = likelihoods.quadrature(model, latent_dim=latent_dim)
        found.append(on_points(estimator, options.quadrature_points))
    if options.temperatures:
        path = _tuned_path(opened, options, folder, identity)
        for num_temperatures, num_points in options.temperatures:
            # Enough rows for a matrix product; fewer where a batch takes minutes.
            rows = options.rows if num_temperatures <= 2000 else options.rows // 4
            batch_size = max(1, rows // options.chains)
            chains: dict[str, Any] = {
                "num_temperatures": num_temperatures,
                "num_chains": options.chains,
                "batch_size": batch_size,
            }
            if options.simulated and not num_points:
                estimator = likelihoods.sandwich(
                    model,
                    path,
                    num_samples=5000,
                    chunk_size=opened.config.eval.chunk_size,
                    **chains,
                )
                found.append(simulated(estimator, options.simulated))
            found.append(
                on_points(likelihoods.annealed(model, path, **chains), num_points)
            )
    return found


def _tuned_path(
    opened: runner.Opened,
    options: argparse.Namespace,
    folder: Path,
    identity: dict[str, Any],
) -> AnnealingPath:
    path = AnnealingPath(options.start, options.schedule, options.leapfrog_steps)
    parts = records.Parts(
        folder / "points" / "step_sizes.jsonl", {**identity, **path._asdict()}
    )
    found = parts.get("step_sizes")
    if found is None:
        print("step sizes for annealed importance sampling ...", flush=True)
        key = jax.random.fold_in(jax.random.key(FIXED_SEED), 6)
        x = jnp.zeros(opened.program.test.shape[1])
        tuned = likelihoods.step_sizes(
            opened.program.model, opened.params, key, x, path
        )
        found = [list(tuned.levels), list(tuned.log_step_sizes)]
        parts.put("step_sizes", found)
    levels, log_step_sizes = map(tuple, found)
    return path._replace(levels=levels, log_step_sizes=log_step_sizes)


def _progress(name: str, done: int, total: int, mean: float, seconds: float) -> None:
    """One line, written over."""
    print(
        f"  {name}: {done:,}/{total:,} points, mean so far {mean:.2f} nats, "
        f"{duration(seconds)} left   ",
        end="\n" if done == total else "\r",
        flush=True,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(cli.USAGE, f"error: {message} (see --help)\n")


def _sizes(text: str) -> list[tuple[int, int]]:
    """Reads "100,1e3,10000:200" as [(100, 0), (1000, 0), (10000, 200)]."""
    found = []
    for item in text.split(",") if text not in ("", "0") else []:
        size, _, points = item.partition(":")
        numbers = [float(number) for number in (size, points or "0")]
        if not all(n.is_integer() for n in numbers) or numbers[0] < 1 or numbers[1] < 0:
            raise ValueError(text)
        found.append((int(numbers[0]), int(numbers[1])))
    return sorted(found)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m experiments.marginal_likelihood",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="the trained run's folder")
    add("--out", type=Path, help="where to write (WORKDIR/marginal_likelihood)")
    add("--step", default="last", help="the checkpoint: last, best, or a number (last)")
    add(
        "--num-points",
        type=_count,
        default=200,
        help="test points, evenly spaced; 0 is all (200)",
    )
    add(
        "--importance-samples",
        type=_sizes,
        default="5000",
        metavar="K[:POINTS],...",
        help="numbers of samples, each on that many of the points (5000)",
    )
    add(
        "--temperatures",
        type=_sizes,
        default="100,1000",
        metavar="T[:POINTS],...",
        help="of annealed importance sampling; 0 leaves it out (100,1000)",
    )
    add("--chains", type=_positive, default=4, help="of AIS, for each point (4)")
    add(
        "--leapfrog-steps",
        type=_positive,
        default=10,
        help="of each HMC transition (10)",
    )
    add(
        "--start",
        choices=("encoder", "prior"),
        default="encoder",
        help="where AIS starts (encoder)",
    )
    add(
        "--schedule",
        choices=("sigmoid", "linear"),
        default="sigmoid",
        help="of the temperatures (sigmoid)",
    )
    add(
        "--simulated",
        type=_count,
        default=100,
        help="simulated points for BDMC, at every T that has no POINTS (100)",
    )
    add(
        "--gap-points",
        type=_count,
        default=100,
        help="points to optimise a posterior for, for the inference gap (100)",
    )
    add(
        "--gap-steps",
        type=_positive,
        default=1000,
        help="of that optimisation (1000)",
    )
    add(
        "--reciprocal-points",
        type=_count,
        default=100,
        help=f"points for Appendix D, with up to {_RECIPROCAL_DIMS} latents (100)",
    )
    add(
        "--posterior-draws",
        type=_positive,
        default=1000,
        help="of each of Appendix D's 8 chains, after half as many of burn-in (1000)",
    )
    add(
        "--quadrature-points",
        type=_count,
        default=20,
        help=f"points for the truth, with up to {_QUADRATURE_DIMS} latents (20)",
    )
    add("--seed", type=_count, default=0, help="other draws for the same points (0)")
    add(
        "--rows",
        type=_positive,
        default=256,
        help="chains at a time on each device, over points: memory and speed (256)",
    )
    add(
        "--devices",
        type=_count,
        default=1,
        help="devices that share the points; 0 is all of this machine (1)",
    )
    options = parser.parse_args(argv)
    if not options.workdir.is_dir():
        parser.error(f"{options.workdir} is not a directory")
    if options.step not in ("last", "best") and not options.step.isdigit():
        parser.error(f"--step={options.step}: expected last, best or a number")
    if any(size < 2 for size, _ in options.temperatures):
        parser.error("--temperatures: expected at least 2, for 0 and 1")
    return options


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    folder = options.out or options.workdir / "marginal_likelihood"
    step = {"last": None, "best": "best"}.get(options.step, options.step)
    opened = runner.load_run(
        options.workdir, step=int(step) if step and step.isdigit() else step
    )
    with lock.locked(folder), StopRequest() as stop:
        found = measure_all(opened, options, folder, stop)
        _report(opened, options, folder, found)


def _report(
    opened: runner.Opened,
    options: argparse.Namespace,
    folder: Path,
    found: Sequence[Measured],
) -> None:
    from experiments.likelihood_report import write_likelihood_report

    config = opened.config
    write_likelihood_report(
        found,
        folder,
        title=f"log p(x) of {opened.dataset.name}, {config.latent_dim} latent dims",
        config=config.to_dict(),
        num_dims=opened.program.test.shape[1],
        levels=config.data.scale if config.likelihood == "gaussian" else 1,
        options={
            name: value
            for name, value in vars(options).items()
            if not isinstance(value, Path | None)
        }
        | {"step": opened.step},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, writes the report and returns the exit code."""
    options = _parse(argv)
    return cli.exit_codes(partial(_run, options))


if __name__ == "__main__":
    raise SystemExit(main())
