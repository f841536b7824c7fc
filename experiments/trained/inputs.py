"""What goes into a trained run: arrays of a user's, checked."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["as_bytes", "as_codes", "as_indices", "as_inputs", "as_observed"]


def as_inputs(xs: ArrayLike, image_shape: tuple[int, ...], scale: int) -> np.ndarray:
    """Checks images and flattens them.

    Args:
      xs: `[n, D]` or `[n, *image_shape]`: numbers in [0, 1], bools, or uint8 from 0 to
        255.
      image_shape: of the run's data.
      scale: what a byte is divided by.

    Returns:
      `[n, D]` float32 in [0, 1].

    Raises:
      ValueError: they are something else.
    """
    xs = np.asarray(xs)
    size = int(np.prod(image_shape))
    if xs.shape[1:] not in ((size,), image_shape) or not len(xs):
        raise ValueError(
            f"xs has shape {xs.shape}, expected [n, {size}] or "
            f"[n, {', '.join(map(str, image_shape))}] with n > 0: give one image x as "
            "x[None]"
        )
    if xs.dtype == np.uint8:
        if xs.max() == 1:
            raise ValueError(
                "xs is uint8 from 0 to 1, expected grey levels from 0 to 255: give "
                "binary pixels as xs.astype(bool)"
            )
        xs = xs.astype(np.float32) / scale
    elif xs.dtype.kind not in "bf":
        raise ValueError(
            f"xs is {xs.dtype}, expected numbers in [0, 1], bools, or uint8 from 0 to "
            "255"
        )
    xs = xs.astype(np.float32)
    if not (xs.min() >= 0 and xs.max() <= 1):  # NaN is neither
        raise ValueError(
            f"xs has numbers from {xs.min():g} to {xs.max():g}, expected 0 to 1, and "
            "no NaN: divide grey levels by 255; where a pixel is not known, use impute"
        )
    return xs.reshape(len(xs), size)


def as_codes(zs: ArrayLike, latent_dim: int) -> np.ndarray:
    """Checks codes. `[n, J]` float32

    Raises:
      ValueError: they are not `[n, latent_dim]` finite numbers.
    """
    zs = np.asarray(zs)
    if zs.ndim != 2 or zs.shape[1] != latent_dim or not len(zs):
        raise ValueError(
            f"zs has shape {zs.shape}, expected [n, {latent_dim}] with n > 0: give one "
            "code z as z[None]"
        )
    zs = zs.astype(np.float32)
    if not np.isfinite(zs).all():
        raise ValueError("zs has numbers that are not finite, expected codes of z")
    return zs


def as_observed(
    observed: ArrayLike, num_images: int, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Checks a mask. `[n, D]` bool, True where a pixel is seen.

    Args:
      observed: `[*image_shape]` for all images, or `[n, *image_shape]`; also flat.
      num_images: n.
      image_shape: of the run's data.

    Raises:
      ValueError: it is something else, or an image has nothing that is not seen.
    """
    observed = np.asarray(observed)
    size = int(np.prod(image_shape))
    shapes = [(size,), image_shape, (num_images, size), (num_images, *image_shape)]
    if observed.dtype != bool or observed.shape not in shapes:
        raise ValueError(
            f"observed is {observed.dtype} of shape {observed.shape}, expected bools, "
            f"True where a pixel is seen, of shape {image_shape} or "
            f"{(num_images, *image_shape)}"
        )
    flat = np.broadcast_to(observed.reshape(-1, size), (num_images, size))
    if flat.all(axis=1).any():
        raise ValueError(
            "observed is True everywhere for an image, expected pixels that are "
            "missing: leave that image out"
        )
    return flat


def as_bytes(images: ArrayLike, image_shape: tuple[int, ...]) -> np.ndarray:
    """Checks grey levels. `[n, D]` uint8

    Raises:
      ValueError: they are not uint8 images of the shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"images is {images.dtype}, expected uint8 from 0 to 255: the grey levels "
            "of the pixels"
        )
    as_inputs(images, image_shape, 255)
    return images.reshape(len(images), -1)


def as_indices(indices: ArrayLike | None, count: int) -> np.ndarray:
    """Checks the indices of `count` rows; None are 0, 1, ... `[n]` integers

    Raises:
      ValueError: they are not as many whole numbers of 0 or more.
    """
    if indices is None:
        return np.arange(count)
    found = np.asarray(indices)
    if found.shape != (count,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise ValueError(
            f"indices is {found.dtype} of shape {found.shape}, expected {count} whole "
            "numbers of 0 or more, one for each image"
        )
    return found
