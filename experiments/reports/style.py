"""How charts look: colours, axes, legend, and how a figure becomes a PNG file.

The files hold no time and no version: the same arrays give the same bytes. Matplotlib
is imported in `experiments.reports` only and without pyplot, so that drawing needs no
display and changes no global setting; Pillow writes the files.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from experiments.storage.atomic import write_atomically

__all__ = [
    "DPI",
    "GREYS",
    "INK",
    "LINES",
    "PALE",
    "class_colours",
    "draw_points",
    "legend_below",
    "new_axes",
    "save_png",
    "style_axes",
]

DPI = 150
INK = "#24292f"
PALE = "#c3c9d0"
# Okabe and Ito (2008), for lines: told apart by readers with any colour vision.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GREYS = ("#6b747d", "#a9b1b9", "#8b6f5a")
# Petroff (2021), ten colours for points, chosen by the same measure of distance.
_CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def new_axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Makes a figure with one pair of axes in the style of all charts.

    Args:
      width: of the figure, inches of `DPI` pixels.
      height: of the figure, inches.
      title: above the axes, on the left.

    Returns:
      The figure and its axes.
    """
    figure = Figure((width, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title)
    return figure, axes


def style_axes(axes: Axes, title: str) -> None:
    """Gives axes the style of all charts, and a title above, on the left."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(which="both", color=PALE, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)


def save_png(
    figure: Figure, path: str | os.PathLike[str], *, palette: bool = True
) -> Path:
    """Writes a figure as a PNG file, and replaces an old file as a whole.

    Args:
      figure: what to write.
      path: the file; its folder is made if it is not there.
      palette: reduce to 256 colours, as suits a chart; False keeps all of an image's.

    Returns:
      The path written.
    """
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


def legend_below(figure: Figure, axes: Axes, num_last: int = 0) -> None:
    """Puts the legend below the axes, where it hides no part of a curve.

    Args:
      figure: gets the legend.
      axes: whose labelled curves are named.
      num_last: so many of the first entries, drawn first to lie behind, come last.
    """
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[num_last:] + handles[:num_last],
        labels[num_last:] + labels[:num_last],
        loc="outside lower center",
        # A legend wider than the figure would be cut off.
        ncols=min(2 if len(labels) in (2, 4) else 3, 90 // max(map(len, labels))),
        frameon=False,
        fontsize=9,
        handlelength=2.8,
        labelcolor=INK,
    )


def class_colours(num_classes: int) -> list[str]:
    """Chooses a colour for each class.

    >>> class_colours(2)
    ['#3f90da', '#ffa90e']

    Args:
      num_classes: at least 1; above ten the colours are steps of one scale.

    Returns:
      One colour a class, as `#rrggbb`.
    """
    if num_classes == 1:
        return [LINES[0]]
    if num_classes <= len(_CLASSES):
        return list(_CLASSES[:num_classes])
    return [to_hex(c) for c in colormaps["viridis"](np.linspace(0, 1, num_classes))]


def draw_points(
    axes: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    classes: NDArray[Any],
    colours: Sequence[str],
) -> None:
    """Draws a cloud of points; the more there are, the smaller each is.

    Args:
      axes: where.
      x: [n] positions.
      y: [n] positions.
      classes: [n] the index into `colours` of each point.
      colours: one a class.
    """
    # In the order of the data: class by class, the last would lie on top of the others.
    size = float(np.clip(12_000 / len(x), 3, 25))
    colour = [colours[c] for c in classes]
    axes.scatter(x, y, s=size, c=colour, alpha=0.6, linewidths=0)
