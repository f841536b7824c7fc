"""The page of the estimates of log p(x): tables, pictures, the verdict, as HTML.

The same tables and the verdict go to the terminal, and the numbers to results.json.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import aevb
from experiments.evaluation.annealing import ANNEALED
from experiments.evaluation.points import Measured
from experiments.evaluation.verdict import (
    UNRELIABLE_K,
    agreement,
    best_of,
    describe,
    difference,
    estimates,
    of_kind,
    sandwich_gaps,
    split_gap,
    std_error,
    verdict,
)
from experiments.reports.charts import Curve, learning_curve, scatter
from experiments.reports.page import Picture, write_report
from experiments.reports.tables import Table, format_table
from experiments.storage.atomic import write_json

__all__ = ["write_likelihood_report"]


def _estimator_table(found: Sequence[Measured], num_dims: int, levels: int) -> Table:
    columns = [
        "estimator", "is", "points", "log p(x), nats", "± points", "± draws",
        "ESS 5% / 50%", "k-hat 50% / 95%", "k-hat > 0.7", "acceptance 5% / 50%", "s",
    ]  # fmt: skip
    if levels > 1:
        columns.insert(4, "bits/dim")
    rows = []
    for measured in estimates(found):
        s = describe(measured)

        def spread(name: str, *percents: str, s: Any = s) -> str | None:
            if name not in s:
                return None
            return " / ".join(f"{s[name][percent]:.2f}" for percent in percents)

        row = [
            measured.label,
            measured.kind.meaning,
            f"{s['num_points']:,}",
            f"{s['log_likelihood']:.3f}",
            f"{s['std_error']:.3f}",
            f"{s['draws_std_error']:.3f}" if "draws_std_error" in s else None,
            spread("ess", "5%", "50%"),
            spread("pareto_k", "50%", "95%"),
            f"{s['num_unreliable']:,}" if "num_unreliable" in s else None,
            spread("acceptance", "5%", "50%"),
            f"{s['seconds']:,.0f}",
        ]
        if levels > 1:
            bits = aevb.bits_per_dim(
                jnp.asarray(s["log_likelihood"]), num_dims=num_dims, levels=levels
            )
            row.insert(4, f"{float(bits):.3f}")
        rows.append(row)
        for name, label in measured.kind.variants.items():
            other = [label, measured.kind.meaning, row[2]]
            values = measured.values[name]
            other += [f"{values.mean():.3f}"]
            other += [""] * (levels > 1)
            other += [f"{std_error(values):.3f}"]
            if (stated := measured.values.get(f"{name}_std_error")) is not None:
                draws = np.sqrt(np.sum(stated**2)) / len(values)
                other += [f"{draws:.3f}"]
            rows.append(other + [None] * (len(columns) - len(other)))
    return Table("log p(x) of test points", columns, rows)


def _tables(found: Sequence[Measured], num_dims: int, levels: int) -> list[Table]:
    tables = [_estimator_table(found, num_dims, levels)]
    best = best_of(found)
    rows = []
    for measured in estimates(found, "lower"):
        if best is None or measured is best:
            continue
        if gap := difference(measured, best):
            rows.append(
                [
                    measured.label,
                    f"{gap['num_points']:,}",
                    f"{gap['mean']:+.3f}",
                    f"{gap['std_error']:.3f}",
                    f"{gap['largest']:.2f}",
                ]
            )
    if rows and best is not None:
        tables.append(
            Table(
                f"Difference to {best.label}, on the points of both, nats",
                ("estimator", "points", "mean", "±", "largest"),
                rows,
            )
        )
    if simulated := sandwich_gaps(found):
        tables.append(
            Table(
                "Simulated data: log p(x) from both sides (BDMC), nats",
                (
                    "temperatures", "points", "lower", "upper", "gap", "±",
                    "upper − importance sampling", "s",
                ),
                [
                    [
                        f"{row['num_temperatures']:,}",
                        f"{row['num_points']:,}",
                        f"{row['lower']:.3f}",
                        f"{row['upper']:.3f}",
                        f"{row['gap']:.3f}",
                        f"{row['gap_std_error']:.3f}",
                        f"{row['importance_gap']:.3f} "
                        f"(K = {row['importance_samples']:,})",
                        f"{row['seconds']:,.0f}",
                    ]
                    for row in simulated
                ],
            )
        )  # fmt: skip
    if split := split_gap(found):
        tables.append(
            Table(
                f"Inference gap of {split['num_points']:,} test points, nats",
                ("quantity", "mean", "±"),
                [
                    ["log p(x)", f"{split['log_likelihood']:.3f}", None],
                    ["bound of the best Gaussian", f"{split['local_bound']:.3f}", None],
                    ["bound of the encoder", f"{split['bound']:.3f}", None],
                    [
                        "approximation gap: what a Gaussian cannot do",
                        f"{split['approximation']:.3f}",
                        f"{split['approximation_std_error']:.3f}",
                    ],
                    [
                        "amortisation gap: what the encoder does not do",
                        f"{split['amortization']:.3f}",
                        f"{split['amortization_std_error']:.3f}",
                    ],
                ],
            )
        )
    if compared := agreement(found):
        tables.append(
            Table(
                "Difference to the truth by quadrature, nats",
                ("estimator", "points", "mean", "±", "largest"),
                [
                    [
                        row["name"],
                        f"{row['num_points']:,}",
                        f"{row['mean']:+.4f}",
                        f"{row['std_error']:.4f}",
                        f"{row['largest']:.3f}",
                    ]
                    for row in compared
                ],
            )
        )
    return tables


def _pictures(found: Sequence[Measured], folder: Path) -> list[Picture]:
    pictures, best = [], best_of(found)
    on_points = estimates(found)
    if sampled := [m for m in on_points if "curve" in m.values]:
        path = folder / "importance_curve.png"
        pictures.append(_importance_curve(sampled, best, path))
    kinds = {m.kind.name: m.kind for m in on_points if "curve" not in m.values}
    for kind in kinds.values():
        if kind.size and len(sizes := of_kind(on_points, kind)) > 1:
            simulated = sandwich_gaps(found) if kind is ANNEALED else []
            path = folder / f"{kind.name}_curve.png"
            pictures.append(_convergence_curve(sizes, simulated, path))
    judged = [m for m in on_points if "pareto_k" in m.values]
    if judged and best is not None and best not in judged:
        pictures.append(_differences(judged[-1], best, folder / "differences.png"))
    return pictures


def _importance_curve(
    importance: Sequence[Measured], best: Measured | None, path: Path
) -> Picture:
    curves = [
        Curve(
            f"{len(measured.indices):,} points, K = {sizes[-1]:,}",
            np.array(sizes),
            measured.values["curve"].mean(axis=0),
            False,
        )
        for measured in importance
        for sizes in [aevb.curve_sizes(measured.settings["num_samples"])]
    ]
    reference = []
    if best is not None and best not in importance:
        largest = max(measured.settings["num_samples"] for measured in importance)
        level = np.full(2, best.values["log_likelihood"].mean())
        reference = [Curve(best.label, np.array([1, largest]), level, True)]
    learning_curve(
        path,
        curves,
        reference=reference,
        xlabel="importance samples K",
        ylabel="mean estimate of log p(x), nats",
        title="Importance sampling",
    )
    return Picture(
        path,
        "From the first K of the same draws. Still rising at its end, the estimate is "
        "biased.",
    )


def _convergence_curve(
    sizes: Sequence[Measured], simulated: Sequence[dict[str, Any]], path: Path
) -> Picture:
    # On the points that all sizes have, so that differences are those of the sizes.
    shared = list(set.intersection(*[set(m.indices.tolist()) for m in sizes]))
    means = {
        m.size: float(m.values[m.kind.estimates][np.isin(m.indices, shared)].mean())
        for m in sizes
    }
    curves = [
        Curve(
            f"{sizes[0].kind.name}, {len(shared):,} test points",
            np.array(list(means)),
            np.array(list(means.values())),
            False,
        )
    ]
    if simulated:
        places = [row["num_temperatures"] for row in simulated]
        tops = [means[row["num_temperatures"]] + row["gap"] for row in simulated]
        name = "plus the gap on simulated data"
        curves.append(Curve(name, np.array(places), np.array(tops), True))
    word = sizes[0].kind.size.removeprefix("num_")
    learning_curve(
        path,
        curves,
        xlabel=word,
        ylabel="mean estimate of log p(x), nats",
        title=f"{sizes[0].kind.name.capitalize()} estimate",
    )
    return Picture(
        path, f"Against the number of {word}, on the points that all of them have."
    )


def _differences(importance: Measured, best: Measured, path: Path) -> Picture:
    _, mine, theirs = np.intersect1d(
        importance.indices, best.indices, return_indices=True
    )
    gaps = best.values["log_likelihood"][theirs]
    scatter(
        path,
        importance.values["pareto_k"][mine],
        gaps - importance.values["log_likelihood"][mine],
        xlabel="k-hat of the importance weights",
        ylabel=f"{best.kind.name} − {importance.kind.name} estimate, nats",
        title=f"Each test point, {importance.label}",
        mark_x=UNRELIABLE_K,
    )
    return Picture(
        path,
        "Where importance sampling misses the most, and whether k-hat says so "
        f"(dashed: {UNRELIABLE_K}).",
    )


def write_likelihood_report(
    found: Sequence[Measured],
    folder: Path,
    *,
    title: str,
    config: dict[str, Any],
    num_dims: int,
    levels: int,
    options: dict[str, Any],
) -> Path:
    """Prints the tables and the verdict; writes results.json, figures and the page.

    Args:
      found: every estimate.
      folder: where to write.
      title: of the page.
      config: of the run.
      num_dims: D, of a datapoint.
      levels: of a pixel, for bits per dimension; 1 for binary pixels leaves them out.
      options: of the command.

    Returns:
      The path of the page.
    """
    tables = _tables(found, num_dims, levels)
    sentences = verdict(found)
    write_json(
        folder / "results.json",
        {
            "estimates": [describe(measured) for measured in estimates(found)],
            "simulated": sandwich_gaps(found),
            "inference_gap": split_gap(found),
            "differences_to_quadrature": agreement(found),
            "verdict": sentences,
            "options": options,
        },
    )
    pictures = _pictures(found, folder / "figures")
    for table in tables:
        print(f"\n{table.title}\n{format_table(table.columns, table.rows)}")
    print("\n" + "\n".join(sentences))
    best, gap = best_of(found), split_gap(found)
    summary = []
    if best is not None:
        numbers = describe(best)
        summary.append(
            (
                "log p(x), nats",
                f"{numbers['log_likelihood']:.2f} ± {numbers['std_error']:.2f}",
                f"{best.label}, {numbers['num_points']:,} test points",
            )
        )
    for row in sandwich_gaps(found)[-1:]:
        summary.append(
            (
                "gap of both bounds",
                f"{row['gap']:.2f} ± {row['gap_std_error']:.2f}",
                f"simulated data, {row['num_temperatures']:,} temperatures",
            )
        )
    if gap:
        summary += [
            ("approximation gap", f"{gap['approximation']:.2f}", "of a Gaussian q"),
            ("amortisation gap", f"{gap['amortization']:.2f}", "of the encoder"),
        ]
    page = write_report(
        folder / "report.html",
        title=title,
        summary=summary,
        tables=tables,
        figures=pictures,
        config={"run": config, "options": options},
        notes=sentences,
    )
    print(f"report {page}")
    return page
