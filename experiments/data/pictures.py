"""Images and masks of the user's own: PNG, NPY or IDX files, checked."""

import tokenize
from pathlib import Path

import numpy as np
from PIL import Image

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
    suffix = file.suffix.lower()
    if suffix == ".png":
        images = _read_png(file, len(image_shape) == 3)
    elif suffix == ".npy":
        images = _read_npy(file)
    elif suffix in _OTHERS:
        raise DataError(
            f"{file} is of no kind that is read here, expected a PNG, NPY or IDX file: "
            "convert it"
        )
    else:
        images = read_idx_images(file)
    if images.shape == image_shape:
        images = images[None]
    if images.shape[1:] != image_shape:
        raise DataError(
            f"{file} holds {_shape(images.shape)}, expected one image of "
            f"{_shape(image_shape)}, as those of the run, or several: resize them"
        )
    if not len(images):
        raise DataError(f"{file} has no images, expected 1 or more: add some")
    if images.max() == 1:
        raise DataError(
            f"{file} has pixels from 0 to 1, expected grey levels from 0 to 255: "
            "multiply binary pixels by 255"
        )
    return images.reshape(len(images), -1)


# Pictures of other kinds, which are no IDX.
_OTHERS = (".bmp", ".gif", ".jpeg", ".jpg", ".npz", ".tif", ".tiff", ".webp")


def _shape(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} pixels" if shape else "a single number"


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
    if file.suffix.lower() == ".npy":
        values = _load_npy(file)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise DataError(
                f"{file} has NaN, expected numbers: write 0 where a pixel is missing"
            )
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
            f"{file} is a mask of {_shape(seen.shape)}, expected "
            f"{_shape(image_size)}, those of the run's images: resize it"
        )
    if seen.all() or not seen.any():
        word = "nothing" if seen.all() else "everything"
        raise DataError(
            f"{file} says that {word} is missing, expected some pixels of either kind: "
            "make those black that are missing, and the others white"
        )
    return seen


def _read_png(file: Path, colour: bool) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                levels = np.round(np.asarray(image, np.float64) / 257).astype(np.uint8)
                return np.stack([levels] * 3, axis=-1) if colour else levels
            return np.asarray(image.convert("RGB" if colour else "L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} cannot be read as a picture ({cause(error)}): write it as a PNG"
        ) from error


def _load_npy(file: Path) -> np.ndarray:
    try:
        with file.open("rb") as opened:
            values = np.lib.format.read_array(opened, allow_pickle=False)
    except (OSError, ValueError, EOFError, tokenize.TokenError) as error:
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
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise DataError(
            f"{file} has {values.dtype} from {values.min():g} to {values.max():g}, "
            "expected bytes (uint8), or numbers from 0 to 1: convert it, with no NaN "
            "in it"
        )
    return np.round(255 * values.astype(np.float64)).astype(np.uint8)
