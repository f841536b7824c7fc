"""Curves side by side, as the panels of a paper's figure."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.reports.charts import Curve, draw_curves
from experiments.reports.style import DPI, legend_below, save_png, style_axes

__all__ = ["CurvePanel", "curve_panels"]

_WIDTH, _HEIGHT = 3.1, 2.7  # of a panel, inches


class CurvePanel(NamedTuple):
    """One of the panels.

    Attributes:
      title: above it.
      curves: in colour; the same number in the same order in every panel.
      reference: grey, behind.
    """

    title: str
    curves: Sequence[Curve]
    reference: Sequence[Curve]


def curve_panels(
    path: str | os.PathLike[str],
    rows: Sequence[Sequence[CurvePanel]],
    *,
    xlabel: str,
    ylabel: str,
) -> Path:
    """Draws rows of panels with axes of their own and one legend.

    Args:
      path: the PNG file to write.
      rows: of panels; those that have fewer leave the rest of their row empty.
      xlabel: of every panel in the last row.
      ylabel: of every row.

    Returns:
      The path written.

    Raises:
      ValueError: a panel has no finite point, or there is no panel.
    """
    columns = max(map(len, rows), default=0)
    if not columns:
        raise ValueError("there is no panel to draw")
    size = (columns * _WIDTH, len(rows) * _HEIGHT + 0.6)
    figure = Figure(size, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    most: Axes | None = None
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            style_axes(axes, panel.title)
            axes.title.set_fontsize(10)
            draw_curves(axes, panel.curves, panel.reference, log_x=True)
            axes.tick_params(which="both", labelsize=8)
            if not j:
                axes.set_ylabel(ylabel)
            if i == len(rows) - 1:
                axes.set_xlabel(xlabel)
            lines = len(axes.get_lines())
            if most is None or lines > len(most.get_lines()):
                most, num_last = axes, len(panel.reference)
    if most is not None:
        legend_below(figure, most, num_last=num_last)
    return save_png(figure, path)
