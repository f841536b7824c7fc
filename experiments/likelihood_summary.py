"""What the estimates of log p(x) of a run say together: numbers and a verdict.

Estimates are compared on the points that they share, point by point: the spread between
points, many times the error of an estimate, is not in a difference.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

import aevb
from experiments.measuring import Measured

__all__ = [
    "UNRELIABLE_K",
    "agreement",
    "best_of",
    "difference",
    "inference_gap",
    "label",
    "of_kind",
    "sandwiches",
    "summarise",
    "verdict",
]

# Where importance weights have no finite variance to speak of (Vehtari et al. 2024).
UNRELIABLE_K = 0.7
_AGREEMENT = 0.1


def summarise(measured: Measured) -> dict[str, Any]:
    """Means, both standard errors, and percentiles of the diagnostics.

    `std_error` is over datapoints: how far the mean over other points might be.
    `draws_std_error` is what the estimators themselves state: how far other draws for
    these points would move the mean. All in nats.
    """
    values = measured.values
    log_likelihood = values["log_likelihood"]
    mean = aevb.summarize(jnp.asarray(log_likelihood))
    found: dict[str, Any] = {
        "name": measured.name,
        "num_points": len(measured.indices),
        "log_likelihood": float(log_likelihood.mean()),
        "std_error": float(mean.std_error),
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
                f"{percent}%": float(np.percentile(values[name], percent))
                for percent in (5, 50, 95)
            } | {"mean": float(values[name].mean())}
    if "pareto_k" in values:
        found["num_unreliable"] = int(np.sum(values["pareto_k"] > UNRELIABLE_K))
    if "curve" in values:
        sizes = aevb.curve_sizes(measured.settings["num_samples"])
        means = values["curve"].mean(axis=0)
        found["curve"] = dict(zip(map(str, sizes), means.tolist(), strict=True))
    return found


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
        "std_error": float(gaps.std(ddof=1) / np.sqrt(len(gaps))),
        "largest": float(np.abs(gaps).max()),
        "num_points": len(shared),
    }


def of_kind(found: Sequence[Measured], kind: str) -> list[Measured]:
    """The estimates of one kind: "importance", "annealed", ..."""
    return [m for m in found if m.name.partition("-")[0] == kind]


def best_of(found: Sequence[Measured]) -> Measured | None:
    """The lower bound to quote: on the most points, AIS before IS, then the longest."""
    candidates = of_kind(found, "importance") + of_kind(found, "annealed")
    return max(
        candidates,
        key=lambda m: (
            len(m.indices),
            m.name.startswith("annealed"),
            m.settings.get("num_temperatures", m.settings.get("num_samples")),
        ),
        default=None,
    )


def sandwiches(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Both bounds on simulated points, and how far importance sampling is below."""
    rows = []
    for measured in of_kind(found, "sandwich"):
        lower, upper = measured.values["log_likelihood"], measured.values["upper"]
        gaps = upper - lower
        rows.append(
            {
                "num_temperatures": measured.settings["num_temperatures"],
                "num_points": len(gaps),
                "lower": float(lower.mean()),
                "upper": float(upper.mean()),
                "gap": float(gaps.mean()),
                "gap_std_error": float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
                if len(gaps) > 1
                else float("nan"),
                "importance_samples": measured.settings["num_samples"],
                "importance_gap": float((upper - measured.values["importance"]).mean()),
                "seconds": measured.seconds,
            }
        )
    return rows


def inference_gap(found: Sequence[Measured]) -> dict[str, float] | None:
    """The gap split in two, on the points that also have the best log p(x)."""
    gaps, best = of_kind(found, "inference_gap"), best_of(found)
    if not gaps or best is None:
        return None
    _, mine, theirs = np.intersect1d(gaps[0].indices, best.indices, return_indices=True)
    if len(mine) < 2:
        return None
    bound = gaps[0].values["bound"][mine]
    local = gaps[0].values["local_bound"][mine]
    log_likelihood = best.values["log_likelihood"][theirs]
    split = aevb.inference_gap(*map(jnp.asarray, (log_likelihood, local, bound)))
    root = np.sqrt(len(mine))
    return {
        "num_points": len(mine),
        "log_likelihood": float(log_likelihood.mean()),
        "local_bound": float(local.mean()),
        "bound": float(bound.mean()),
        "approximation": float(np.mean(split.approximation)),
        "approximation_std_error": float(np.std(split.approximation, ddof=1) / root),
        "amortization": float(np.mean(split.amortization)),
        "amortization_std_error": float(np.std(split.amortization, ddof=1) / root),
    }


def agreement(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every estimate against the truth by quadrature, where there is one."""
    rows: list[dict[str, Any]] = []
    for truth in of_kind(found, "quadrature"):
        for measured in found:
            names = {"log_likelihood": measured.name}
            if measured.name == "reciprocal":
                names["kernel_density"] = "reciprocal, kernel density"
            if measured is truth or "log_likelihood" not in measured.values:
                continue
            if measured.name.startswith("sandwich"):  # of simulated points
                continue
            for field, name in names.items():
                gap = difference(measured, truth, field)
                if gap:
                    rows.append({"name": name, **gap})
    return rows


def verdict(found: Sequence[Measured]) -> list[str]:
    """Between which values log p(x) lies, and why, in sentences."""
    best = best_of(found)
    if best is None:
        return []
    numbers = summarise(best)
    value, points = numbers["log_likelihood"], numbers["num_points"]
    sentences = [
        f"The mean log p(x) of these {points:,} test points is at least {value:.2f} "
        f"nats ({label(best)}; other draws would move it by "
        f"{numbers['draws_std_error']:.2f}). Its expectation is a lower bound, and it "
        "exceeds log p(x) of a point by b nats with a probability below exp(−b)."
    ]
    truths = of_kind(found, "quadrature")
    simulated = [
        row
        for row in sandwiches(found)
        if row["num_temperatures"] == best.settings.get("num_temperatures")
    ]
    if truths:
        rows = agreement(found)
        apart = [row for row in rows if abs(row["mean"]) > _AGREEMENT]
        truth = summarise(truths[0])
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
                + _reasons(apart)
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
        m
        for m in of_kind(found, "annealed")
        if m.settings["num_temperatures"] > best.settings.get("num_temperatures", 0)
    ]
    for measured in longer:
        gained = difference(measured, best)
        if gained:
            sentences.append(
                f"{label(measured)} changes {gained['num_points']:,} of them by "
                f"{gained['mean']:+.3f} ± {gained['std_error']:.3f} nats on "
                "average: what is still to gain on real data by annealing longer."
            )
    for measured in of_kind(found, "importance"):
        found_here = summarise(measured)
        text = (
            f"{label(measured)}: k-hat is above {UNRELIABLE_K} at "
            f"{found_here['num_unreliable']:,} of {found_here['num_points']:,} points"
        )
        if best is not measured and (d := difference(best, measured)):
            text += (
                f", and {label(best)} is {d['mean']:+.2f} ± {d['std_error']:.2f} nats "
                "above it"
            )
        sentences.append(text + ".")
    sentences.append(
        f"Another {points:,} test points would have another mean: ± "
        f"{numbers['std_error']:.2f} nats, which no estimator takes away."
    )
    return sentences


def _reasons(apart: Sequence[dict[str, Any]]) -> str:
    kinds = {row["name"].partition("-")[0].partition(",")[0] for row in apart}
    reasons = {
        "importance": "Importance sampling is below where the encoder misses mass of "
        "the posterior (see k-hat).",
        "annealed": "AIS is below where the chains do not keep up with the schedule, "
        "and noisy with few of them: more temperatures or chains.",
        "reciprocal": "Appendix D is above where its density has heavier tails than "
        "the posterior, and on either side where the chain has not mixed (see R-hat).",
    }
    return " ".join(reasons[kind] for kind in sorted(kinds & set(reasons)))


def label(measured: Measured) -> str:
    """What a person calls an estimate."""
    settings = measured.settings
    return {
        "importance": lambda: f"importance sampling, K = {settings['num_samples']:,}",
        "annealed": lambda: (
            f"AIS from the {settings['start']}, "
            f"{settings['num_temperatures']:,} temperatures"
        ),
        "reciprocal": lambda: "Appendix D, fitted Gaussian",
        "quadrature": lambda: "quadrature",
    }[measured.name.partition("-")[0]]()
