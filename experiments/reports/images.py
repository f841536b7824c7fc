"""Images in rows: samples, reconstructions, the manifold."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from experiments.reports.style import DPI, INK, save_png

__all__ = ["image_grid", "image_rows", "manifold_points", "reconstructions"]


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
    if np.shape(originals) != np.shape(reconstructions):
        raise ValueError(
            "originals and reconstructions must have one shape; got "
            f"{np.shape(originals)} and {np.shape(reconstructions)}"
        )
    rows = {"original": originals, "reconstruction": reconstructions}
    return image_rows(path, rows, title=title)


def image_rows(
    path: str | os.PathLike[str], rows: Mapping[str, ArrayLike], *, title: str
) -> Path:
    """Draws rows of images below one another, each with its name.

    Args:
      path: the PNG file to write.
      rows: by name, `[n, H, W]` or `[n, H, W, C]` with C 1 or 3, in [0, 1], all of one
        shape.
      title: above the images.

    Returns:
      The path written.

    Raises:
      ValueError: the shapes differ or are not of images, or a value is outside [0, 1].
    """
    shapes = {name: np.shape(images) for name, images in rows.items()}
    pixels = [_pixels(images, name) for name, images in rows.items()]
    if len(set(shapes.values())) > 1:
        raise ValueError(f"rows must have one shape; got {shapes}")
    canvas = _tile(np.concatenate(pixels), columns=len(pixels[0]), gap=2)
    return save_png(_picture(canvas, title, list(rows)), path, palette=False)


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
    return save_png(_picture(canvas, title), path, palette=False)


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
    figure = Figure((full[0] / DPI, full[1] / DPI), dpi=DPI, facecolor="white")
    figure.figimage(canvas, left, pad, origin="upper")
    figure.text(
        pad / full[0], 1 - 24 / full[1], title, va="top", fontsize=11, color=INK
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
            color=INK,
        )
    return figure
