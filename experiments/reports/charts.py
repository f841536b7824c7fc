"""Charts of numbers: curves, bars and points; each function writes one PNG file.

The clouds of `latent_space` are in `latent.py`, pictures of images in `images.py`, and
what all of them share in `style.py`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from experiments.reports.style import (
    GREYS,
    LINES,
    PALE,
    draw_points,
    legend_below,
    new_axes,
    save_png,
)

__all__ = [
    "Curve",
    "draw_curves",
    "kl_per_dimension",
    "learning_curve",
    "scatter",
    "sweep_field",
]


class Curve(NamedTuple):
    """A line of a chart.

    label:  its name in the legend.
    x:      [n] positions, such as training samples or epochs.
    y:      [n] values, nats; one that is not finite leaves a gap.
    dashed: drawn with dashes (the paper: the test set). A dashed curve right after a
      solid one takes its colour, so that train and test of one run read as a pair.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    dashed: bool = False


def learning_curve(
    path: str | os.PathLike[str],
    curves: Sequence[Curve],
    *,
    reference: Sequence[Curve] = (),
    xlabel: str,
    ylabel: str,
    log_x: bool = True,
    title: str = "Learning curve",
) -> Path:
    """Draws quantities against training time.

    The vertical axis shows where the curves spend their time: a bad start, such as a
    bound of -500 nats at the first step, is cut off, and a line below says so.

    Args:
      path: the PNG file to write.
      curves: the run's curves, in colour.
      reference: curves to compare with (the paper's), thin and grey, behind.
      xlabel: the horizontal axis, such as "training samples".
      ylabel: the vertical axis, with its unit: "bound (nats per datapoint)".
      log_x: logarithmic horizontal axis; points at x <= 0 are then left out.
      title: above the axes.

    Returns:
      The path written.

    Raises:
      ValueError: x and y of a curve differ in shape or are not vectors, or no curve has
        a finite point.
    """
    figure, axes = new_axes(7.2, 4.8, title)
    notes = draw_curves(axes, curves, reference, log_x=log_x)
    axes.set_xlabel(xlabel + notes)
    axes.set_ylabel(ylabel)
    legend_below(figure, axes, num_last=len(reference))
    return save_png(figure, path)


def draw_curves(
    axes: Axes, curves: Sequence[Curve], reference: Sequence[Curve], *, log_x: bool
) -> str:
    """Draws curves over a reference, and scales the axes as `learning_curve` says.

    Args:
      axes: where.
      curves: in colour.
      reference: grey, behind.
      log_x: logarithmic horizontal axis.

    Returns:
      What lies beyond the axes, for the horizontal axis' label; "" if nothing does.

    Raises:
      ValueError: as in `learning_curve`.
    """
    drawn = [_finite_points(curve, log_x) for curve in (*reference, *curves)]
    finite = [(x, y) for x, y in drawn if np.isfinite(y).any()]
    if not finite:
        raise ValueError("no curve has a finite point to draw")

    styles = [*_line_styles(reference, GREYS, 1.1), *_line_styles(curves, LINES, 1.8)]
    for i, (curve, style) in enumerate(zip((*reference, *curves), styles, strict=True)):
        few = i >= len(reference) and np.isfinite(drawn[i][1]).sum() <= 12
        marker = "o" if few else ""
        axes.plot(*drawn[i], label=curve.label, marker=marker, markersize=4, **style)

    limits = [_readable_limits(x, y, log_x) for x, y in finite]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    margin = 0.04 * (high - low) or 0.02 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    values = np.concatenate([y[np.isfinite(y)] for _, y in drawn])
    cut = [
        f"{word} value {value:.4g}, beyond the axis"
        for word, value, outside in (
            ("lowest", values.min(), values.min() < low - margin),
            ("highest", values.max(), values.max() > high + margin),
        )
        if outside
    ]
    _scale_x(axes, np.concatenate([x for x, _ in finite]), log_x)
    # The minus of the ticks, which is not the hyphen.
    return "".join(f"   ({note})" for note in cut).replace("-", "\N{MINUS SIGN}")


def kl_per_dimension(
    path: str | os.PathLike[str], kl: ArrayLike, *, threshold: float
) -> Path:
    """Draws how many nats each latent dimension carries, largest first.

    Args:
      path: the PNG file to write.
      kl: [J] KL(q(z_j|x) || p(z_j)) of each dimension, averaged over datapoints, nats.
      threshold: dimensions above it are coloured apart and counted, nats.

    Returns:
      The path written.

    Raises:
      ValueError: `kl` is not a vector of finite numbers, or is empty.
    """
    kl = np.asarray(kl, float)
    if kl.ndim != 1 or kl.size == 0 or not np.isfinite(kl).all():
        raise ValueError(
            "kl must be a non-empty vector of finite numbers, one a latent dimension; "
            f"got shape {kl.shape} with {np.count_nonzero(~np.isfinite(kl))} not finite"
        )
    order = np.argsort(-kl, kind="stable")
    kl, num_above = kl[order], int((kl > threshold).sum())
    figure, axes = new_axes(
        7.2,
        4.2,
        f"KL per latent dimension: {num_above} of {kl.size} above {threshold:g} nats, "
        f"{kl.sum():.4g} nats in all",
    )
    rank = np.arange(1, kl.size + 1)
    if num_above:
        axes.bar(
            rank[:num_above],
            kl[:num_above],
            width=0.85,
            color=LINES[0],
            label=f"above {threshold:g} nats",
        )
    if num_above < kl.size:
        # Their bars are too low to see: the band behind shows how many they are.
        axes.axvspan(num_above + 0.5, kl.size + 0.5, color="#eceff2", label="below")
        axes.bar(rank[num_above:], kl[num_above:], width=0.85, color=GREYS[0])
    side = max(0.7, (10 - kl.size) / 2)  # two bars are not as wide as the page
    axes.set_xlim(1 - side, kl.size + side)
    axes.set_ylim(min(0.0, kl[-1]), 1.05 * kl[0] if kl[0] > 0 else 1.0)
    axes.grid(False, axis="x")
    if kl.size <= 32:
        axes.set_xticks(rank, [str(j + 1) for j in order])
        axes.set_xlabel("latent dimension j, largest KL first")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("latent dimensions, largest KL first")
    axes.set_ylabel("KL(q(z$_j$|x) || p(z$_j$))  (nats)")
    legend_below(figure, axes, num_last=int(0 < num_above < kl.size))
    return save_png(figure, path)


def scatter(
    path: str | os.PathLike[str],
    x: ArrayLike,
    y: ArrayLike,
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    mark_x: float | None = None,
) -> Path:
    """Draws one quantity of each datapoint against another; points overlap visibly.

    Args:
      path: the PNG file to write.
      x: `[N]` values.
      y: `[N]` values.
      xlabel: the horizontal axis, with its unit.
      ylabel: the vertical axis, with its unit.
      title: above the axes.
      mark_x: a vertical line, such as a threshold.

    Returns:
      The path written.

    Raises:
      ValueError: x and y are not vectors of one length.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"x and y must be vectors of one length, got shapes {x.shape} and {y.shape}"
        )
    figure, axes = new_axes(6.4, 4.2, title)
    axes.axhline(0, color=PALE, linewidth=1)
    if mark_x is not None:
        axes.axvline(mark_x, color=GREYS[0], linewidth=1, linestyle="--")
    draw_points(axes, x, y, np.zeros(len(x), int), [LINES[0]])
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return save_png(figure, path)


def sweep_field(
    path: str | os.PathLike[str],
    values: Sequence[Any],
    results: ArrayLike,
    *,
    xlabel: str,
    ylabel: str,
) -> Path:
    """Draws a result of many runs against one swept field, with the mean at each value.

    Positive numbers that span a factor of ten or more get a logarithmic axis; anything
    but numbers stands in the order of its first appearance.

    Args:
      path: the PNG file to write.
      values: of the field, one a run: numbers or strings.
      results: `[N]` one a run.
      xlabel: the field.
      ylabel: the result, with its unit.

    Returns:
      The path written.
    """
    results = np.asarray(results, float)
    figure, axes = new_axes(6.4, 4.2, f"By {xlabel}")
    names: list[str] = []
    if all(isinstance(value, int | float) for value in values):
        x = np.asarray(values, float)
        if x.min() > 0 and x.max() >= 10 * x.min():
            axes.set_xscale("log")
    else:
        names = list(dict.fromkeys(map(str, values)))
        x = np.array([names.index(str(value)) for value in values], float)
        axes.set_xticks(range(len(names)), names)
    draw_points(axes, x, results, np.zeros(len(x), int), [LINES[0]])
    places = np.unique(x)
    means = [results[x == place].mean() for place in places]
    axes.plot(places, means, color=LINES[1], linewidth=1.5, marker="_", markersize=14)
    if not names and len(places) <= 8:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return save_png(figure, path)


def _finite_points(curve: Curve, log_x: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"curve {curve.label!r}: x and y must be vectors of one length, got shapes "
            f"{x.shape} and {y.shape}"
        )
    keep = np.isfinite(x) & ((x > 0) | (not log_x))
    return x[keep], np.where(np.isfinite(y), y, np.nan)[keep]


def _line_styles(
    curves: Sequence[Curve], colours: Sequence[str], width: float
) -> list[dict[str, Any]]:
    styles: list[dict[str, Any]] = []
    used = 0
    for i, curve in enumerate(curves):
        if i and curve.dashed and not curves[i - 1].dashed:
            colour = styles[-1]["color"]
        else:
            colour = colours[used % len(colours)]
            used += 1
        dashes = (0, (4, 1.6)) if curve.dashed else "solid"
        styles.append({"color": colour, "linestyle": dashes, "linewidth": width})
    return styles


def _readable_limits(
    x: NDArray[Any], y: NDArray[Any], log_x: bool
) -> tuple[float, float]:
    # Half of the axis, as it is drawn, is spent between the median and the best value.
    # Three times that is shown; what lies farther off is a bad start or a spike.
    keep = np.isfinite(y)
    place, y = (np.log(x) if log_x else x)[keep], y[keep]
    order = np.argsort(place, kind="stable")
    even = np.linspace(place.min(), place.max(), 401)
    low, middle, high = np.quantile(
        np.interp(even, place[order], y[order]), (0.02, 0.5, 0.98)
    )
    least = 0.02 * abs(middle)  # a converged curve is not zoomed into its noise
    return (
        max(y.min(), high - 3 * max(high - middle, least)),
        min(y.max(), low + 3 * max(middle - low, least)),
    )


def _scale_x(axes: Axes, x: NDArray[Any], log_x: bool) -> None:
    if x.min() == x.max():  # one epoch: an axis around it has nothing else to name
        axes.set_xticks(x[:1])
    elif log_x:
        axes.set_xscale("log")
        decades = np.log10(x.max() / x.min())
        subs = (
            (1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 1 else range(1, 10)
        )
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if x.max() >= 1e4 or log_x:
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
