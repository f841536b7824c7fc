"""The chart of the latent space: where the encoder puts the datapoints."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from experiments.reports.style import (
    INK,
    LINES,
    class_colours,
    draw_points,
    new_axes,
    save_png,
)

__all__ = ["latent_space", "principal_axes"]


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
    colours = class_colours(len(names))

    one = means.shape[1] == 1
    figure, axes = new_axes(7.2, 4.4 if one else 6.2, title)
    if one and labels is None:
        axes.hist(means[:, 0], bins=60, color=LINES[0])
        axes.set_xlabel("posterior mean of z")
        axes.set_ylabel("datapoints")
    elif one:
        # The golden ratio spreads the points of a class evenly over its strip.
        jitter = (np.arange(len(means)) * 0.6180339887498949) % 1.0 - 0.5
        draw_points(axes, means[:, 0], classes + 0.7 * jitter, classes, colours)
        axes.set_yticks(range(len(names)), [str(name) for name in names])
        axes.grid(False, axis="y")
        axes.set_xlabel("posterior mean of z")
        axes.set_ylabel("class")
    else:
        points, axis_labels = _plane(means)
        draw_points(axes, points[:, 0], points[:, 1], classes, colours)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        if labels is not None:
            _name_classes(axes, points, classes, names, colours)
    return save_png(figure, path)


def principal_axes(points: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """The directions in which points vary most, and how much.

    >>> axes, variances = principal_axes([[0.0, -2.0], [0.0, 2.0]])
    >>> axes.tolist(), variances.tolist()
    ([[0.0, 1.0], [1.0, 0.0]], [4.0, 0.0])

    Args:
      points: [n, J].

    Returns:
      [J, J] an axis a row, of length 1, its largest entry positive: an axis has no sign
      of its own; and [J] the variance along each, in descending order.
    """
    centred = np.asarray(points, float)
    centred = centred - centred.mean(axis=0)
    axes, variances, _ = np.linalg.svd(centred.T @ centred / len(centred))
    largest = np.abs(axes).argmax(axis=0)
    signs = np.sign(axes[largest, np.arange(len(axes))])
    return (axes * signs).T, variances


def _plane(means: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, str]]:
    if means.shape[1] == 2:
        return means, ("posterior mean of z$_1$", "posterior mean of z$_2$")
    axes, variances = principal_axes(means)
    shares = 100 * variances / max(variances.sum(), np.finfo(float).tiny)
    first, second = (
        f"principal component {i + 1} of {means.shape[1]}, {shares[i]:.0f}% of variance"
        for i in range(2)
    )
    return (means - means.mean(axis=0)) @ axes[:2].T, (first, second)


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
            color=INK,
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
        labelcolor=INK,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        ncols=1 + (len(names) - 1) // 24,
    )
