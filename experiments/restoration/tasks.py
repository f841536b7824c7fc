"""Tasks: what is done to an image, and with which known channel it is undone."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.data.pictures import read_mask
from experiments.errors import ConfigError

__all__ = ["TASKS", "Seen", "Task", "make_tasks"]

TASKS = ("inpaint", "denoise", "superresolve")

# Of measurements of grey pixels by blocks, whose noise must not be zero.
_POOLING_NOISE = 0.01


class Seen(NamedTuple):
    """The channel of one datapoint.

    Attributes:
      observe: the channel.
      target: `[D]` bool, the dimensions that are asked for.
    """

    observe: Any
    target: jax.Array


class Task(NamedTuple):
    """What is done to images.

    Attributes:
      name: of files: "inpaint-half".
      label: for a person: "lower half missing".
      kind: of the channel; tasks of one kind have one program, and arrays of one shape.
      channel: `channel(key, arrays) -> Seen`, of one datapoint.
      arrays: what tells tasks of a kind apart; may be traced.
    """

    name: str
    label: str
    kind: str
    channel: Callable[[jax.Array, Any], Seen]
    arrays: Any


def make_tasks(
    names: Sequence[str],
    *,
    image_shape: tuple[int, ...],
    binary: bool,
    masks: Sequence[str],
    rates: Sequence[float],
    noises: Sequence[float],
    factors: Sequence[int],
) -> list[Task]:
    """The tasks that a command line asks for.

    Args:
      names: of `TASKS`.
      image_shape: (H, W), or (H, W, C).
      binary: whether the likelihood is of binary pixels.
      masks: of inpainting: half, quadrant, quadrants, random:SHARE, or a file.
      rates: of flipped pixels, for binary ones.
      noises: standard deviations, for grey ones.
      factors: of super-resolution.

    Raises:
      ConfigError: one of them cannot be.
      DataError: a mask's file cannot be used.
    """
    made: list[Task] = []
    for name in names:
        if name == "inpaint":
            made += [_masked(image_shape, mask) for mask in masks]
        elif name == "denoise" and binary:
            made += [_flipped(image_shape, rate) for rate in rates]
        elif name == "denoise":
            made += [_noisy(image_shape, noise) for noise in noises]
        elif name == "superresolve":
            make = _subsampled if binary else _pooled
            made += [make(image_shape, factor) for factor in factors]
        else:
            raise ConfigError(
                f"--task={name}: expected some of {', '.join(TASKS)}, with commas"
            )
    names = [task.name for task in made]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two tasks have the name {name}, expected one: give the mask's file "
                "another name, or leave one out"
            )
    return made


def _masked(image_shape: tuple[int, ...], mask: str) -> Task:
    height, width = image_shape[:2]
    seen, share = np.ones((height, width), bool), 0.0
    if mask == "half":
        seen[height // 2 :] = False
        label = "lower half missing"
    elif mask == "quadrant":
        seen[height // 2 :, width // 2 :] = False
        label = "lower right quadrant missing"
    elif mask == "quadrants":
        seen[height // 2 :] = seen[:, width // 2 :] = False
        label = "three quadrants missing"
    elif mask.startswith("random:"):
        share = _number("--mask", mask, mask.removeprefix("random:"), 1.0)
        label = f"{100 * share:g} % of the pixels missing"
    else:
        seen = read_mask(Path(mask), (height, width))
        label = f"missing where {Path(mask).name} is black"
        mask = Path(mask).stem
    name = mask.replace(":", "-")
    return _mask_task(f"inpaint-{name}", label, image_shape, seen, share)


def _subsampled(image_shape: tuple[int, ...], factor: int) -> Task:
    height, width = image_shape[:2]
    _check_factor(image_shape, factor)
    rows = np.arange(height) % factor == factor // 2
    columns = np.arange(width) % factor == factor // 2
    return _mask_task(
        f"superresolve-{factor}",
        f"one pixel of {factor} x {factor} seen",
        image_shape,
        rows[:, None] & columns,
        0.0,
    )


def _mask_task(
    name: str, label: str, image_shape: tuple[int, ...], seen: np.ndarray, share: float
) -> Task:
    colours = image_shape[2] if len(image_shape) == 3 else 1
    if not seen.any() and share == 0:
        raise ConfigError(f"{name} leaves nothing to be seen: choose another mask")
    arrays = {"seen": jnp.asarray(seen.ravel()), "share": jnp.float32(share)}
    return Task(name, label, "masked", partial(_see, colours), arrays)


def _see(colours: int, key: jax.Array, arrays: Any) -> Seen:
    seen = arrays["seen"]
    seen &= jax.random.uniform(key, seen.shape) >= arrays["share"]
    seen = jnp.repeat(seen, colours)
    return Seen(aevb.masked(seen), ~seen)


def _flipped(image_shape: tuple[int, ...], rate: float) -> Task:
    def channel(key: jax.Array, arrays: Any) -> Seen:
        return Seen(aevb.flipped(arrays), jnp.ones(np.prod(image_shape), bool))

    name, label = f"denoise-{rate:g}", f"{100 * rate:g} % of the pixels flipped"
    return Task(name, label, "flipped", channel, jnp.float32(rate))


def _noisy(image_shape: tuple[int, ...], scale: float) -> Task:
    def channel(key: jax.Array, arrays: Any) -> Seen:
        return Seen(aevb.noisy(arrays), jnp.ones(np.prod(image_shape), bool))

    name, label = f"denoise-{scale:g}", f"Gaussian noise of {scale:g} of the range"
    return Task(name, label, "noisy", channel, jnp.float32(scale))


def _pooled(image_shape: tuple[int, ...], factor: int) -> Task:
    _check_factor(image_shape, factor)
    height, width = image_shape[:2]
    index = np.arange(np.prod(image_shape)).reshape(height, width, -1)
    matrix = []
    for top in range(0, height, factor):
        for left in range(0, width, factor):
            block = index[top : top + factor, left : left + factor]
            for pixels in block.reshape(-1, block.shape[-1]).T:
                row = np.zeros(index.size, np.float32)
                row[pixels] = 1 / len(pixels)
                matrix.append(row)

    def channel(key: jax.Array, arrays: Any) -> Seen:
        observe = aevb.Pooled(arrays, _POOLING_NOISE, rows_apart=True)
        return Seen(observe, jnp.ones(index.size, bool))

    label = f"means of {factor} x {factor} blocks seen"
    # As many measurements as blocks: each factor has a program of its own.
    kind = f"pooled-{factor}"
    return Task(f"superresolve-{factor}", label, kind, channel, jnp.asarray(matrix))


def _check_factor(image_shape: tuple[int, ...], factor: int) -> None:
    if not 2 <= factor <= min(image_shape[:2]):
        raise ConfigError(
            f"--factor={factor}: expected from 2 to {min(image_shape[:2])}, the "
            "shorter side of the images"
        )


def _number(flag: str, given: str, text: str, below: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < below:
        raise ConfigError(f"{flag}={given}: {text!r} is not between 0 and {below:g}")
    return value
