"""Images and masks of the user's own: PNG, NPY or IDX files, checked."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.data.idx import read_images as read_idx_images
from experiments.data.source import cause
from experiments.errors import DataError

__all__ = ["read_mask", "read_pictures"]


def read_pictures(file: Path, image_shape: tuple[int, ...]) -> np.ndarray:
    """Reads images of the user's own as bytes.

    Args:
      file: a PNG; an NPY of one image or of several, bytes or numbers in [0, 1]; or an
        IDX file (plain or .gz) of images.
      image_shape: (H, W), or (H, W, C): what the run was trained on.

    Returns:
      `[n, D]` uint8, from 0 to 255.

    Raises:
      DataError: the file cannot be read, or is not of such images.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist, or is no file: give a PNG, NPY or IDX")
    if file.suffix == ".png":
        images = _read_png(file, len(image_shape) == 3)[None]
    elif file.suffix == ".npy":
        images = _read_npy(file)
        if images.shape == image_shape:
            images = images[None]
    else:
        images = read_idx_images(file)
    if images.shape[1:] != image_shape or not len(images):
        shape = " x ".join(map(str, images.shape[1:] or images.shape))
        raise DataError(
            f"{file} has images of {shape} pixels, expected "
            f"{' x '.join(map(str, image_shape))}, those of the run: resize them"
        )
    return images.reshape(len(images), -1)


def read_mask(file: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Reads which pixels are seen.

    Args:
      file: a PNG, white where the image is seen and black where it is missing; or an
        NPY of bools or numbers, which is seen where it is not zero.
      image_size: (H, W).

    Returns:
      `[H, W]` bool, True where a pixel is seen.

    Raises:
      DataError: the file cannot be read, or is no such mask.
    """
    if not file.is_file():
        raise DataError(
            f"--mask={file}: expected half, quadrant, quadrants, random:SHARE, or a "
            "PNG or NPY file that exists"
        )
    if file.suffix == ".npy":
        values = _load_npy(file)
        seen = values != 0
    else:
        values = _read_png(file, colour=False)
        if not np.isin(values, (0, 255)).all():
            raise DataError(
                f"{file} has grey pixels, expected a mask of black (0, missing) and "
                "white (255, seen) alone: threshold it"
            )
        seen = values == 255
    if seen.shape != image_size:
        raise DataError(
            f"{file} is a mask of {' x '.join(map(str, seen.shape))} pixels, expected "
            f"{' x '.join(map(str, image_size))}, those of the run's images"
        )
    if seen.all() or not seen.any():
        word = "nothing" if seen.all() else "everything"
        raise DataError(f"{file} says that {word} is missing: it must leave some")
    return seen


def _read_png(file: Path, colour: bool) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB" if colour else "L"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as a picture ({cause(error)}): write it as a PNG"
        ) from error


def _load_npy(file: Path) -> np.ndarray:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{file} cannot be read as an NPY file ({cause(error)}): write it with "
            "numpy.save"
        ) from error
    if values.dtype.kind not in "buif":
        raise DataError(
            f"{file} holds {values.dtype}, expected bytes or numbers: convert it"
        )
    return values


def _read_npy(file: Path) -> np.ndarray:
    values = _load_npy(file)
    if values.dtype == np.uint8:
        return values
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise DataError(
            f"{file} has {values.dtype} from {values.min():g} to {values.max():g}, "
            "expected bytes (uint8), or numbers from 0 to 1: divide by the largest"
        )
    return np.round(255 * values.astype(np.float64)).astype(np.uint8)
