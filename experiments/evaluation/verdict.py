"""What the estimates of log p(x) of a run say together: numbers and a verdict.

Estimates are compared on the points that they share, point by point: a difference
cancels the spread between points, which is many times the error of an estimate.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

import aevb
from experiments.evaluation.annealing import ANNEALED, SANDWICH
from experiments.evaluation.estimators import INFERENCE_GAP
from experiments.evaluation.kinds import Kind
from experiments.evaluation.points import Measured

__all__ = [
    "UNRELIABLE_K",
    "agreement",
    "best_of",
    "describe",
    "difference",
    "estimates",
    "of_kind",
    "sandwich_gaps",
    "split_gap",
    "std_error",
    "verdict",
]

# Where importance weights have no finite variance to speak of (Vehtari et al. 2024).
UNRELIABLE_K = 0.7
_AGREEMENT = 0.1
_MEANINGS = ("lower", "upper", "truth")


def describe(measured: Measured) -> dict[str, Any]:
    """Means, both standard errors, and percentiles of the diagnostics.

    `std_error` is over datapoints: how far the mean over other points might be.
    `draws_std_error` is what the estimators themselves state: how far other draws for
    these points would move the mean. All in nats.
    """
    values = measured.values
    log_likelihood = values["log_likelihood"]
    found: dict[str, Any] = {
        "name": measured.name,
        "num_points": len(measured.indices),
        "log_likelihood": float(log_likelihood.mean()),
        "std_error": std_error(log_likelihood),
        "seconds": measured.seconds,
        "settings": {
            name: value
            for name, value in measured.settings.items()
            if name not in ("levels", "log_step_sizes")
        },
    }
    if "std_error" in values:
        squares = np.sum(values["std_error"] ** 2)
        found["draws_std_error"] = float(np.sqrt(squares) / len(measured.indices))
    for name in ("ess", "pareto_k", "acceptance", "energy_error", "r_hat"):
        if name in values:
            found[name] = {
                f"{percent}%": _percentile(values[name], percent)
                for percent in (5, 50, 95)
            } | {"mean": float(values[name].mean())}
    if "pareto_k" in values:
        found["num_unreliable"] = int(np.sum(values["pareto_k"] > UNRELIABLE_K))
    if "curve" in values:
        sizes = aevb.curve_sizes(measured.settings["num_samples"])
        means = values["curve"].mean(axis=0)
        found["curve"] = dict(zip(map(str, sizes), means.tolist(), strict=True))
    return found


def _percentile(values: np.ndarray, percent: int) -> float:
    # k-hat is infinite where there are few draws: nothing lies between infinities.
    if np.isfinite(values).all():
        return float(np.percentile(values, percent))
    return float(np.percentile(values, percent, method="lower"))


def std_error(values: np.ndarray) -> float:
    """Of the mean over datapoints; NaN for one.

    >>> std_error(np.array([1.0, 3.0]))
    1.0
    """
    if len(values) < 2:
        return float("nan")
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def difference(one: Measured, other: Measured, name: str = "log_likelihood") -> Any:
    """Mean of one − other over the points that both have, and its standard error."""
    shared, mine, theirs = np.intersect1d(
        one.indices, other.indices, return_indices=True
    )
    if len(shared) < 2:
        return None
    gaps = one.values[name][mine] - other.values["log_likelihood"][theirs]
    return {
        "mean": float(gaps.mean()),
        "std_error": std_error(gaps),
        "largest": float(np.abs(gaps).max()),
        "num_points": len(shared),
    }


def of_kind(found: Sequence[Measured], kind: Kind) -> list[Measured]:
    """The estimates of one kind."""
    return [measured for measured in found if measured.kind is kind]


def estimates(found: Sequence[Measured], *meanings: str) -> list[Measured]:
    """The estimates of log p(x) of given points with a meaning, or with any."""
    return [
        measured
        for measured in found
        if measured.kind.meaning and measured.kind.meaning in (meanings or _MEANINGS)
    ]


def best_of(found: Sequence[Measured]) -> Measured | None:
    """The lower bound to quote: on the most points, the tightest kind, the longest."""
    return max(
        estimates(found, "lower"),
        key=lambda m: (len(m.indices), m.kind.tightness, m.size or 0),
        default=None,
    )


def sandwich_gaps(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Both bounds on simulated points, and how far importance sampling is below."""
    rows = []
    for measured in of_kind(found, SANDWICH):
        lower, upper = measured.values["log_likelihood"], measured.values["upper"]
        gaps = upper - lower
        rows.append(
            {
                "num_temperatures": measured.settings["num_temperatures"],
                "num_points": len(gaps),
                "lower": float(lower.mean()),
                "upper": float(upper.mean()),
                "gap": float(gaps.mean()),
                "gap_std_error": std_error(gaps),
                "importance_samples": measured.settings["num_samples"],
                "importance_gap": float((upper - measured.values["importance"]).mean()),
                "seconds": measured.seconds,
            }
        )
    return rows


def split_gap(found: Sequence[Measured]) -> dict[str, float] | None:
    """The gap split in two, on the points that also have the best log p(x)."""
    gaps, best = of_kind(found, INFERENCE_GAP), best_of(found)
    if not gaps or best is None:
        return None
    _, mine, theirs = np.intersect1d(gaps[0].indices, best.indices, return_indices=True)
    if len(mine) < 2:
        return None
    bound = gaps[0].values["bound"][mine]
    local = gaps[0].values["local_bound"][mine]
    log_likelihood = best.values["log_likelihood"][theirs]
    split = aevb.inference_gap(*map(jnp.asarray, (log_likelihood, local, bound)))
    return {
        "num_points": len(mine),
        "log_likelihood": float(log_likelihood.mean()),
        "local_bound": float(local.mean()),
        "bound": float(bound.mean()),
        "approximation": float(np.mean(split.approximation)),
        "approximation_std_error": std_error(np.asarray(split.approximation)),
        "amortization": float(np.mean(split.amortization)),
        "amortization_std_error": std_error(np.asarray(split.amortization)),
    }


def agreement(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every estimate against the truth by quadrature, where there is one."""
    rows: list[dict[str, Any]] = []
    for truth in estimates(found, "truth"):
        for measured in estimates(found, "lower", "upper"):
            for value in (measured.kind.estimates, *measured.kind.variants):
                name = measured.name
                if value in measured.kind.variants:
                    name = f"{name}, {value.replace('_', ' ')}"
                if gap := difference(measured, truth, value):
                    remedy = measured.kind.remedy
                    rows.append({"name": name, "remedy": remedy, **gap})
    return rows


def verdict(found: Sequence[Measured]) -> list[str]:
    """Between which values log p(x) lies, and why, in sentences."""
    best = best_of(found)
    if best is None:
        return []
    numbers = describe(best)
    value, points = numbers["log_likelihood"], numbers["num_points"]
    sentences = [
        f"The mean log p(x) of these {points:,} test points is at least {value:.2f} "
        f"nats ({best.label}; other draws would move it by "
        f"{numbers['draws_std_error']:.2f}). Its expectation is a lower bound, and it "
        "exceeds log p(x) of a point by b nats with a probability below exp(−b)."
    ]
    truths = estimates(found, "truth")
    simulated = [
        row
        for row in sandwich_gaps(found)
        if best.kind is ANNEALED and row["num_temperatures"] == best.size
    ]
    if truths:
        rows = agreement(found)
        apart = [row for row in rows if abs(row["mean"]) > _AGREEMENT]
        truth = describe(truths[0])
        sentences.append(
            f"On {truth['num_points']:,} of them quadrature gives the truth, "
            f"{truth['log_likelihood']:.3f}. "
            + (
                f"All estimates agree with it to {_AGREEMENT} nat in the mean."
                if not apart
                else "Apart from it by more than "
                f"{_AGREEMENT} nat: "
                + "; ".join(
                    f"{row['name']} by {row['mean']:+.2f} ± {row['std_error']:.2f}, at "
                    f"the worst point by {row['largest']:.2f}"
                    for row in apart
                )
                + ". "
                + " ".join(dict.fromkeys(row["remedy"] for row in apart))
            )
        )
    if simulated:
        gap, error = simulated[0]["gap"], simulated[0]["gap_std_error"]
        top = value + max(gap, 0) + 2 * error
        sentences.append(
            f"On {simulated[0]['num_points']:,} points simulated from the model the "
            f"same estimator and its reverse are {gap:.2f} ± {error:.2f} nats apart, "
            "with log p(x) between them. Where test points are no harder than "
            f"simulated ones, their log p(x) lies between {value:.2f} and {top:.2f} "
            "nats; there is no upper bound on real data without that."
        )
    longer = [
        measured
        for measured in of_kind(found, ANNEALED)
        if best.kind is not ANNEALED or (measured.size or 0) > (best.size or 0)
    ]
    for measured in longer:
        if gained := difference(measured, best):
            sentences.append(
                f"{measured.label} changes {gained['num_points']:,} of them by "
                f"{gained['mean']:+.3f} ± {gained['std_error']:.3f} nats on "
                "average: what is still to gain on real data by annealing longer."
            )
    for measured in (m for m in estimates(found) if "pareto_k" in m.values):
        found_here = describe(measured)
        text = (
            f"{measured.label}: k-hat is above {UNRELIABLE_K} at "
            f"{found_here['num_unreliable']:,} of {found_here['num_points']:,} points"
        )
        if best is not measured and (d := difference(best, measured)):
            text += (
                f", and {best.label} is {d['mean']:+.2f} ± {d['std_error']:.2f} nats "
                "above it"
            )
        sentences.append(text + ".")
    sentences.append(
        f"Another {points:,} test points would have another mean: ± "
        f"{numbers['std_error']:.2f} nats, which no estimator takes away."
    )
    return sentences
