"""Pictures of a run.

Every picture is a function of arrays that writes one PNG file and returns its path. The
files hold no time or version: the same arrays give the same bytes. Matplotlib is
imported here and nowhere else, without pyplot: there is no display, no global state.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.special import ndtri

from experiments.files import write_atomically
from experiments.paper_curves import Curve

__all__ = [
    "image_grid",
    "kl_per_dimension",
    "latent_space",
    "learning_curve",
    "manifold_points",
    "reconstructions",
    "scatter",
    "sweep_field",
]

_DPI = 150
_INK = "#24292f"
_PALE = "#c3c9d0"
# Okabe and Ito (2008), for lines: told apart by readers with any colour vision.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_GREYS = ("#6b747d", "#a9b1b9", "#8b6f5a")
# Petroff (2021), ten colours for points, chosen by the same measure of distance.
_CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def manifold_points(num_side: int) -> NDArray[np.float32]:
    """Places latent codes for the paper's Figure 4, the manifold of a 2-D latent space.

    Midpoints of a square grid on the unit square, u = (i + ½)/n, each coordinate mapped
    through the inverse Gaussian CDF, so that every cell has the same prior mass.

    >>> [[round(z, 2) for z in point] for point in manifold_points(2).tolist()]
    [[-0.67, 0.67], [0.67, 0.67], [-0.67, -0.67], [0.67, -0.67]]

    Args:
      num_side: n, the number of codes a side.

    Returns:
      [n * n, 2] float32 codes in the reading order of `image_grid` with `columns=n`:
      z_1 grows to the right and z_2 upwards, the way `latent_space` draws its axes.

    Raises:
      ValueError: `num_side` is below 1.
    """
    if num_side < 1:
        raise ValueError(f"num_side must be at least 1, got {num_side}")
    z = ndtri((np.arange(num_side) + 0.5) / num_side)
    right, up = np.meshgrid(z, z[::-1])
    return np.stack([right.ravel(), up.ravel()], axis=-1).astype(np.float32)


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
    drawn = [_points(curve, log_x) for curve in (*reference, *curves)]
    finite = [(x, y) for x, y in drawn if np.isfinite(y).any()]
    if not finite:
        raise ValueError("no curve has a finite point to draw")

    figure, axes = _axes(7.2, 4.8, title)
    styles = [*_styles(reference, _GREYS, 1.1), *_styles(curves, _LINES, 1.8)]
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
    notes = "".join(f"   ({note})" for note in cut).replace("-", "\N{MINUS SIGN}")
    axes.set_xlabel(xlabel + notes)
    axes.set_ylabel(ylabel)
    _legend_below(figure, axes, num_last=len(reference))
    return _save(figure, path)


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
    figure, axes = _axes(
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
            color=_LINES[0],
            label=f"above {threshold:g} nats",
        )
    if num_above < kl.size:
        # Their bars are too low to see: the band behind shows how many they are.
        axes.axvspan(num_above + 0.5, kl.size + 0.5, color="#eceff2", label="below")
        axes.bar(rank[num_above:], kl[num_above:], width=0.85, color=_GREYS[0])
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
    _legend_below(figure, axes, num_last=int(0 < num_above < kl.size))
    return _save(figure, path)


def latent_space(
    path: str | os.PathLike[str],
    means: ArrayLike,
    labels: ArrayLike | None,
    *,
    title: str = "Latent space",
) -> Path:
    """Draws where the encoder puts datapoints, coloured by class.

    Two dimensions are drawn as they are. More are projected on their first two
    principal components, and the axes say what share of the variance each holds. One
    dimension is a strip of points for each class, or a histogram without labels.

    Args:
      path: the PNG file to write.
      means: [n, J] posterior means of n datapoints.
      labels: [n] class of each datapoint, or None where there are none.
      title: above the axes.

    Returns:
      The path written.

    Raises:
      ValueError: `means` is not a non-empty matrix of finite numbers, or `labels` is
        not as long.
    """
    means = np.asarray(means, float)
    if means.ndim != 2 or means.size == 0 or not np.isfinite(means).all():
        raise ValueError(
            "means must be a non-empty [n, J] array of finite numbers; got shape "
            f"{means.shape} with {np.count_nonzero(~np.isfinite(means))} not finite"
        )
    names, classes = np.array([""]), np.zeros(len(means), int)
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != means.shape[:1]:
            raise ValueError(
                f"labels must hold one class for each of the {len(means)} means; got "
                f"shape {labels.shape}"
            )
        names, classes = np.unique(labels, return_inverse=True)
    colours = _class_colours(len(names))

    one = means.shape[1] == 1
    figure, axes = _axes(7.2, 4.4 if one else 6.2, title)
    if one and labels is None:
        axes.hist(means[:, 0], bins=60, color=_LINES[0])
        axes.set_xlabel("posterior mean of z")
        axes.set_ylabel("datapoints")
    elif one:
        # The golden ratio spreads the points of a class evenly over its strip.
        jitter = (np.arange(len(means)) * 0.6180339887498949) % 1.0 - 0.5
        _scatter(axes, means[:, 0], classes + 0.7 * jitter, classes, colours)
        axes.set_yticks(range(len(names)), [str(name) for name in names])
        axes.grid(False, axis="y")
        axes.set_xlabel("posterior mean of z")
        axes.set_ylabel("class")
    else:
        points, axis_labels = _plane(means)
        _scatter(axes, points[:, 0], points[:, 1], classes, colours)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        if labels is not None:
            _name_classes(axes, points, classes, names, colours)
    return _save(figure, path)


def reconstructions(
    path: str | os.PathLike[str],
    originals: ArrayLike,
    reconstructions: ArrayLike,
    *,
    title: str = "Reconstructions",
) -> Path:
    """Draws a row of images above the row of their reconstructions.

    Args:
      path: the PNG file to write.
      originals: [n, H, W] or [n, H, W, C] with C 1 or 3, in [0, 1].
      reconstructions: the decoder's means for them, of the same shape.
      title: above the images.

    Returns:
      The path written.

    Raises:
      ValueError: the shapes differ or are not of images, or a value is outside [0, 1].
    """
    top = _pixels(originals, "originals")
    bottom = _pixels(reconstructions, "reconstructions")
    if top.shape != bottom.shape:
        raise ValueError(
            "originals and reconstructions must have one shape; got "
            f"{np.shape(originals)} and {np.shape(reconstructions)}"
        )
    canvas = _tile(np.concatenate([top, bottom]), columns=len(top), gap=2)
    rows = ("original", "reconstruction")
    return _save(_picture(canvas, title, rows), path, palette=False)


def image_grid(
    path: str | os.PathLike[str],
    images: ArrayLike,
    *,
    columns: int,
    title: str,
    gap: int = 1,
) -> Path:
    """Draws images in rows, such as samples from the prior.

    Args:
      path: the PNG file to write.
      images: [n, H, W] or [n, H, W, C] with C 1 or 3, in [0, 1], in reading order.
      columns: images a row; a last row that is not full ends in white.
      title: above the images.
      gap: white pixels between images, in pixels of the images; 0 for the manifold,
        whose neighbours blend.

    Returns:
      The path written.

    Raises:
      ValueError: the shape is not of images, a value is outside [0, 1], or `columns` is
        below 1 or `gap` below 0.
    """
    if columns < 1 or gap < 0:
        raise ValueError(f"need columns >= 1 and gap >= 0, got {columns} and {gap}")
    canvas = _tile(_pixels(images, "images"), columns, gap)
    return _save(_picture(canvas, title), path, palette=False)


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
    figure, axes = _axes(6.4, 4.2, title)
    axes.axhline(0, color=_PALE, linewidth=1)
    if mark_x is not None:
        axes.axvline(mark_x, color=_GREYS[0], linewidth=1, linestyle="--")
    _scatter(axes, x, y, np.zeros(len(x), int), [_LINES[0]])
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return _save(figure, path)


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
    figure, axes = _axes(6.4, 4.2, f"By {xlabel}")
    names: list[str] = []
    if all(isinstance(value, int | float) for value in values):
        x = np.asarray(values, float)
        if x.min() > 0 and x.max() >= 10 * x.min():
            axes.set_xscale("log")
    else:
        names = list(dict.fromkeys(map(str, values)))
        x = np.array([names.index(str(value)) for value in values], float)
        axes.set_xticks(range(len(names)), names)
    _scatter(axes, x, results, np.zeros(len(x), int), [_LINES[0]])
    places = np.unique(x)
    means = [results[x == place].mean() for place in places]
    axes.plot(places, means, color=_LINES[1], linewidth=1.5, marker="_", markersize=14)
    if not names and len(places) <= 8:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return _save(figure, path)


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure((width, height), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_PALE)
    axes.tick_params(which="both", color=_PALE, labelcolor=_INK, labelsize=9)
    axes.xaxis.label.set(color=_INK, fontsize=10)
    axes.yaxis.label.set(color=_INK, fontsize=10)
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _save(
    figure: Figure, path: str | os.PathLike[str], *, palette: bool = True
) -> Path:
    # Not figure.savefig, which writes Matplotlib's version into the file. A chart in a
    # palette of 256 colours looks the same and is a third of the size; of Pillow's
    # methods only the octree keeps the colours of the classes as they are.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    if palette:
        image = image.quantize(
            256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return write_atomically(path, buffer.getvalue())


def _points(curve: Curve, log_x: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"curve {curve.label!r}: x and y must be vectors of one length, got shapes "
            f"{x.shape} and {y.shape}"
        )
    keep = np.isfinite(x) & ((x > 0) | (not log_x))
    return x[keep], np.where(np.isfinite(y), y, np.nan)[keep]


def _styles(
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


def _legend_below(figure: Figure, axes: Axes, num_last: int = 0) -> None:
    # Not inside the axes, where it would hide a part of some curve. The first
    # `num_last` entries, drawn first to lie behind, are named last.
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[num_last:] + handles[:num_last],
        labels[num_last:] + labels[:num_last],
        loc="outside lower center",
        # What is wider than the figure would be cut off.
        ncols=min(2 if len(labels) in (2, 4) else 3, 90 // max(map(len, labels))),
        frameon=False,
        fontsize=9,
        handlelength=2.8,
        labelcolor=_INK,
    )


def _class_colours(num_classes: int) -> list[str]:
    if num_classes == 1:
        return [_LINES[0]]
    if num_classes <= len(_CLASSES):
        return list(_CLASSES[:num_classes])
    return [to_hex(c) for c in colormaps["viridis"](np.linspace(0, 1, num_classes))]


def _scatter(
    axes: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    classes: NDArray[Any],
    colours: Sequence[str],
) -> None:
    # In the order of the data: class by class, the last would lie on top of the others.
    size = float(np.clip(12_000 / len(x), 3, 25))
    colour = [colours[c] for c in classes]
    axes.scatter(x, y, s=size, c=colour, alpha=0.6, linewidths=0)


def _plane(means: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, str]]:
    if means.shape[1] == 2:
        return means, ("posterior mean of z$_1$", "posterior mean of z$_2$")
    centred = means - means.mean(axis=0)
    components, variances, _ = np.linalg.svd(centred.T @ centred)
    components = components[:, :2]
    # A component has no sign of its own: its largest entry is made positive.
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, [0, 1]])
    shares = 100 * variances / max(variances.sum(), np.finfo(float).tiny)
    first, second = (
        f"principal component {i + 1} of {means.shape[1]}, {shares[i]:.0f}% of variance"
        for i in range(2)
    )
    return centred @ components, (first, second)


def _name_classes(
    axes: Axes,
    points: NDArray[Any],
    classes: NDArray[Any],
    names: NDArray[Any],
    colours: Sequence[str],
) -> None:
    # The name on each cloud, besides the legend: no ten colours suit every eye.
    for c, name in enumerate(names):
        x, y = np.median(points[classes == c], axis=0)
        halo = patheffects.withStroke(linewidth=3, foreground="white")
        axes.annotate(
            str(name),
            (x, y),
            ha="center",
            va="center",
            fontsize=12,
            fontweight="bold",
            color=_INK,
            path_effects=[halo],
        )
    dots = [
        Line2D([], [], linestyle="", marker="o", markersize=6, color=colour)
        for colour in colours
    ]
    axes.legend(
        dots,
        [str(name) for name in names],
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        ncols=1 + (len(names) - 1) // 24,
    )


def _pixels(images: ArrayLike, name: str) -> NDArray[np.uint8]:
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.size == 0:
        raise ValueError(
            f"{name} must be [n, H, W] or [n, H, W, C] with C 1 or 3 and n at least 1; "
            f"got shape {images.shape}"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{name} must be in [0, 1], got values from {low:g} to {high:g}; divide "
            "bytes by 255"
        )
    colour = np.broadcast_to(images, (*images.shape[:-1], 3))
    return np.round(255 * colour.astype(np.float32)).astype(np.uint8)


def _tile(images: NDArray[np.uint8], columns: int, gap: int) -> NDArray[np.uint8]:
    num, height, width, _ = images.shape
    columns = min(columns, num)
    rows = -(-num // columns)
    canvas = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8
    )
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def _picture(canvas: NDArray[np.uint8], title: str, rows: Sequence[str] = ()) -> Figure:
    # Whole pixels, without axes: resampling would blur or thicken some of them.
    scale = int(np.clip(round(1000 / canvas.shape[1]), 1, 8))
    canvas = canvas.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, _ = canvas.shape
    pad, head = 24, 72
    left = pad + (13 * max(len(row) for row in rows) + 16 if rows else 0)
    full = (max(left + width + pad, 14 * len(title) + 2 * pad), height + head + pad)
    figure = Figure((full[0] / _DPI, full[1] / _DPI), dpi=_DPI, facecolor="white")
    figure.figimage(canvas, left, pad, origin="upper")
    figure.text(
        pad / full[0], 1 - 24 / full[1], title, va="top", fontsize=11, color=_INK
    )
    for i, row in enumerate(rows):
        middle = pad + height * (len(rows) - i - 0.5) / len(rows)
        figure.text(
            (left - 16) / full[0],
            middle / full[1],
            row,
            va="center",
            ha="right",
            fontsize=10,
            color=_INK,
        )
    return figure
