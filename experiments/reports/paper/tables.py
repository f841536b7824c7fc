"""The tables of the page about the paper's figures."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

import aevb
from experiments.reports.paper.verdicts import (
    order_table,
    paper_points,
    speed_table,
    verdict_table,
    verdicts,
)
from experiments.reports.tables import Table
from experiments.reproduction.outcome import Outcome, value_at
from experiments.reproduction.protocol import LABELS

__all__ = ["tables_of"]


def tables_of(outcomes: Sequence[Outcome]) -> list[Table]:
    """The tables of what is there, in the order of the page."""
    made = [
        verdict_table(verdicts(outcomes)),
        speed_table(outcomes),
        order_table(outcomes),
        _seed_table(outcomes),
        _frey_table(outcomes),
        _marginal_table(outcomes),
        _readings_table(outcomes),
        _beyond_table(outcomes),
        _step_size_table(outcomes),
        _minutes_table(outcomes),
    ]
    return [table for table in made if table.rows]


def _seed_table(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for extra in outcomes:
        main = [one for one in outcomes if one.panel.name == extra.panel.drawn_in]
        for method in extra.panel.methods if main else ():
            runs = [
                curve
                for outcome in (*main, extra)
                for curve in outcome.curves
                if (curve.method, curve.status) == (method, "done")
            ]
            length = min((curve.samples for curve in runs), default=0)
            at = [value_at(curve.points("test/bound"), length) for curve in runs]
            ends = [value for value in at if value is not None]
            if len(ends) > 1:
                spread = f"{np.mean(ends):.2f} ± {np.std(ends, ddof=1):.2f}"
                shown = ", ".join(f"{end:.2f}" for end in ends)
                title = main[0].panel.title
                rows.append((title, LABELS[method], f"{length:.2g}", shown, spread))
    return Table(
        "Seeds: test bound, nats, where the shortest run ends; ± is the standard "
        "deviation over seeds",
        ("panel", "method", "samples", "each seed", "mean"),
        rows,
    )


def _frey_table(outcomes: Sequence[Outcome]) -> Table:
    def bits(nats: float) -> float:
        return float(aevb.bits_per_dim(jnp.asarray(nats), num_dims=560, levels=256))

    rows = [
        (
            outcome.panel.title,
            LABELS[one.method],
            f"{one.bound:.1f}",
            f"{bits(one.bound):.3f}",
            f"{one.kl:.2f}",
            f"{one.constant_train:.1f} / {one.constant_test:.1f}",
            f"{100 * one.at_floor:.2g} %",
            f"{one.unfloored - one.bound:+.2f}",
        )
        for outcome in outcomes
        for one in outcome.frey_face
    ]
    return Table(
        "Frey Face at the end: a constant Gaussian of every pixel, and the floor of "
        "the variance",
        (
            "panel",
            "method",
            "test bound, nats",
            "bits per dimension",
            "KL, nats",
            "constant, train / test",
            "pixels at the floor",
            "without the floor",
        ),
        rows,
    )


def _marginal_table(outcomes: Sequence[Outcome]) -> Table:
    rows = [
        (
            outcome.panel.title,
            LABELS[one.method],
            one.split,
            f"{one.samples:.2g}",
            f"{one.value:.2f} ± {one.std_error:.2f}",
            f"{one.num_failed}",
            f"{one.importance:.2f}",
            None
            if one.truth is None
            else f"{one.truth:.2f} ± {one.truth_std_error:.2f}",
            f"{one.acceptance:.2f}",
            f"{one.r_hat:.2f}",
        )
        for outcome in outcomes
        for one in outcome.marginals
    ]
    how = [outcome.panel.likelihoods for outcome in outcomes if outcome.marginals]
    num_points = " or ".join(sorted({f"{one.num_points}" for one in how if one}))
    at = " or ".join(sorted({f"{one.num_quadrature}" for one in how if one}))
    return Table(
        f"Figure 3: log p(x) of the first {num_points} points, nats; the first ± is "
        f"over datapoints, the second that of quadrature at {at} of the same "
        "points; failed estimates of Appendix D are 20 nats or more from importance "
        "sampling around the same chains, and are left out",
        (
            "panel",
            "method",
            "split",
            "samples",
            "Appendix D",
            "failed",
            "importance sampling",
            "quadrature",
            "acceptance",
            "R-hat, 95 %",
        ),
        rows,
    )


def _readings_table(outcomes: Sequence[Outcome]) -> Table:
    """Each reading beside what was run, after as many samples."""
    own = [one for one in outcomes if one.panel.section == "readings"]
    main = [one for one in outcomes if one.panel.name == "mnist-20"]
    lengths = sorted({one.panel.config.train_samples for one in own})
    rows = []
    for outcome in [*main, *own]:
        for method in outcome.panel.methods:
            curve = outcome.curve(method)
            reference = next((one.curve(method) for one in main), None)
            if curve is None:
                continue
            paper = paper_points(outcome).get((method, "test"), [])
            for samples in lengths:
                ours = value_at(curve.points("test/bound"), samples)
                base = reference and value_at(reference.points("test/bound"), samples)
                theirs = value_at(paper, samples)
                if ours is None:
                    continue
                rows.append(
                    (
                        "as run" if outcome in main else outcome.panel.title,
                        LABELS[method],
                        f"{curve.step_size:g}",
                        f"{samples:.2g}",
                        f"{ours:.1f}",
                        None if not base else f"{ours - base:+.1f}",
                        None if theirs is None else f"{theirs:.1f}",
                    )
                )
    return Table(
        "What the paper leaves open, MNIST, N_z = 20: test bound, nats",
        ("reading", "method", "step size", "samples", "ours", "to as run", "paper"),
        rows,
    )


def _beyond_table(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for outcome in outcomes:
        for curve in outcome.curves:
            if outcome.panel.section != "beyond":
                continue
            test, train = curve.points("test/bound"), curve.points("train/bound")
            done = curve.status == "done" and test and train
            rows.append(
                (
                    outcome.panel.title,
                    LABELS[curve.method],
                    f"{curve.step_size:g}",
                    f"{curve.samples:.2g}",
                    f"{train[-1][1]:.2f}" if done else None,
                    f"{test[-1][1]:.2f}" if done else None,
                    curve.status,
                )
            )
    return Table(
        "Beyond the paper: other pixels, optimizers and first weights",
        (
            "runs",
            "method",
            "step size",
            "samples",
            "train bound, nats",
            "test bound, nats",
            "status",
        ),
        rows,
    )


def _step_size_table(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for outcome in outcomes:
        if outcome.panel.trial or len(outcome.panel.step_sizes) == 1:
            continue
        for method, found in outcome.step_sizes.items():
            scores = ", ".join(
                f"{size:g}: " + ("diverged" if score is None else f"{score:.1f}")
                for size, score in found.scores.items()
            )
            rows.append(
                (
                    outcome.panel.title,
                    LABELS[method],
                    f"{found.samples:,}",
                    scores,
                    f"{found.chosen:g}",
                )
            )
    return Table(
        "Step sizes: bound on the training data in the last epoch of a short trial, "
        "nats (of MCEM: its objective)",
        ("panel", "method", "samples", "step size: score", "chosen"),
        rows,
    )


def _minutes_table(outcomes: Sequence[Outcome]) -> Table:
    rows: list[tuple[str, str, str | None]] = []
    total = 0.0
    for outcome in outcomes:
        trained = sum(curve.seconds for curve in outcome.curves)
        estimated = sum(one.seconds for one in outcome.marginals)
        if trained or estimated:
            total += trained + estimated
            title = outcome.panel.title
            rows.append((title, f"{trained / 60:.1f}", f"{estimated / 60:.1f}"))
    if rows:
        rows.append(("all", f"{total / 60:.1f}", None))
    return Table(
        "Minutes in epochs and in estimates of log p(x), without compilation",
        ("panel", "training", "log p(x)"),
        rows,
    )
