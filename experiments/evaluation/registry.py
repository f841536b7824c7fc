"""The registry of estimators: what `experiments.marginal_likelihood` measures, and how.

Each estimator has one row: its flags, and what they ask for. The command's options, the
tables, the pictures and the verdict follow from the rows and their kinds: a new
estimator of log p(x) is a function, its `Kind`, and a row here.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import aevb
from experiments.arguments import count, positive
from experiments.evaluation.annealing import AnnealingPath, annealed, sandwich
from experiments.evaluation.estimators import (
    importance,
    inference_gap,
    quadrature,
    reciprocal,
)
from experiments.evaluation.kinds import Estimator

__all__ = ["ROWS", "Row", "Setup", "Work"]

# Appendix D is of use in a few dimensions (the paper: below five).
_RECIPROCAL_DIMS = 4
_QUADRATURE_DIMS = 3


class Setup(NamedTuple):
    """What a row's `plan` may use.

    Attributes:
      model: encoder, decoder and prior, with the products of the evaluation.
      latent_dim: J, of what the model's z is.
      is_normal: whether q(z|x) is a Gaussian.
      chunk_size: importance samples of a datapoint at a time.
      batch_size: datapoints at a time for importance sampling.
      path: `path()`, the annealing path with its step sizes, found when first needed.
    """

    model: aevb.Model
    latent_dim: int
    is_normal: bool
    chunk_size: int
    batch_size: int
    path: Callable[[], AnnealingPath]


class Work(NamedTuple):
    """An estimator, and on how many points: 0 are all that the command is asked for."""

    estimator: Estimator
    num_points: int


class Row(NamedTuple):
    """An estimator as a part of the command.

    Attributes:
      flags: `{flag: keyword arguments of argparse's add_argument}`.
      plan: `plan(setup, options)`, what the flags ask for.
    """

    flags: dict[str, dict[str, Any]]
    plan: Callable[[Setup, argparse.Namespace], list[Work]]


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


def _temperatures(text: str) -> list[tuple[int, int]]:
    found = _sizes(text)
    if any(size < 2 for size, _ in found):
        raise argparse.ArgumentTypeError(f"{text}: expected at least 2, for 0 and 1")
    return found


def _importance(setup: Setup, options: argparse.Namespace) -> list[Work]:
    return [
        Work(
            importance(
                setup.model,
                num_samples=num_samples,
                chunk_size=setup.chunk_size,
                batch_size=setup.batch_size,
            ),
            num_points,
        )
        for num_samples, num_points in options.importance_samples
    ]


def _inference_gap(setup: Setup, options: argparse.Namespace) -> list[Work]:
    if not options.gap_points or not setup.is_normal:
        return []
    estimator = inference_gap(
        setup.model,
        num_steps=options.gap_steps,
        num_samples=1000,
        batch_size=max(1, options.rows // 8),
    )
    return [Work(estimator, options.gap_points)]


def _reciprocal(setup: Setup, options: argparse.Namespace) -> list[Work]:
    if setup.latent_dim > _RECIPROCAL_DIMS or not options.reciprocal_points:
        return []
    estimator = reciprocal(
        setup.model,
        num_chains=8,
        num_samples=options.posterior_draws,
        num_burn_in=options.posterior_draws // 2,
        num_leapfrog_steps=options.leapfrog_steps,
        batch_size=max(1, options.rows // 8),
    )
    return [Work(estimator, options.reciprocal_points)]


def _quadrature(setup: Setup, options: argparse.Namespace) -> list[Work]:
    if setup.latent_dim > _QUADRATURE_DIMS or not options.quadrature_points:
        return []
    estimator = quadrature(setup.model, latent_dim=setup.latent_dim)
    return [Work(estimator, options.quadrature_points)]


def _chains(options: argparse.Namespace, num_temperatures: int) -> dict[str, Any]:
    # Enough rows for a matrix product; fewer where a batch takes minutes.
    rows = options.rows if num_temperatures <= 2000 else options.rows // 4
    return {
        "num_temperatures": num_temperatures,
        "num_chains": options.chains,
        "batch_size": max(1, rows // options.chains),
    }


def _sandwich(setup: Setup, options: argparse.Namespace) -> list[Work]:
    return [
        Work(
            sandwich(
                setup.model,
                setup.path(),
                num_samples=5000,
                chunk_size=setup.chunk_size,
                **_chains(options, num_temperatures),
            ),
            options.simulated,
        )
        for num_temperatures, num_points in options.temperatures
        if options.simulated and not num_points
    ]


def _annealed(setup: Setup, options: argparse.Namespace) -> list[Work]:
    return [
        Work(
            annealed(setup.model, setup.path(), **_chains(options, num_temperatures)),
            num_points,
        )
        for num_temperatures, num_points in options.temperatures
    ]


ROWS = (
    Row(
        {
            "--importance-samples": {
                "type": _sizes,
                "default": "5000",
                "metavar": "K[:POINTS],...",
                "help": "numbers of samples, each on that many of the points (5000)",
            }
        },
        _importance,
    ),
    Row(
        {
            "--gap-points": {
                "type": count,
                "default": 100,
                "help": "points to optimise a posterior for, for the inference gap "
                "(100); of a Gaussian q(z|x)",
            },
            "--gap-steps": {
                "type": positive,
                "default": 1000,
                "help": "of that optimisation (1000)",
            },
        },
        _inference_gap,
    ),
    Row(
        {
            "--reciprocal-points": {
                "type": count,
                "default": 100,
                "help": f"points for Appendix D, with up to {_RECIPROCAL_DIMS} latents "
                "(100)",
            },
            "--posterior-draws": {
                "type": positive,
                "default": 1000,
                "help": "of each of Appendix D's 8 chains, after half as many of "
                "burn-in (1000)",
            },
        },
        _reciprocal,
    ),
    Row(
        {
            "--quadrature-points": {
                "type": count,
                "default": 20,
                "help": f"points for the truth, with up to {_QUADRATURE_DIMS} latents "
                "(20)",
            }
        },
        _quadrature,
    ),
    Row(
        {
            "--simulated": {
                "type": count,
                "default": 100,
                "help": "simulated points for BDMC, at every T that has no POINTS "
                "(100)",
            }
        },
        _sandwich,
    ),
    Row(
        {
            "--temperatures": {
                "type": _temperatures,
                "default": "100,1000",
                "metavar": "T[:POINTS],...",
                "help": "of annealed importance sampling; 0 leaves it out (100,1000)",
            },
            "--chains": {
                "type": positive,
                "default": 4,
                "help": "of AIS, for each point (4)",
            },
            "--start": {
                "choices": ("encoder", "prior"),
                "default": "encoder",
                "help": "where AIS starts (encoder)",
            },
            "--schedule": {
                "choices": ("sigmoid", "linear"),
                "default": "sigmoid",
                "help": "of the temperatures (sigmoid)",
            },
        },
        _annealed,
    ),
)
