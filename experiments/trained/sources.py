"""Images to be encoded, from a run's own splits or a user's file, read as needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data import read_rows
from experiments.data.pictures import read_pictures
from experiments.errors import ConfigError
from experiments.program import drawn_once
from experiments.storage.digests import digests
from experiments.trained.batches import Batched
from experiments.training.opened import Opened

__all__ = ["SPLITS", "WHITE", "Source", "read_sources"]

SPLITS = ("train", "valid", "test")
WHITE = 128
"""Of a binary image of a user's own, a byte of at least so much is 1."""


class Source(NamedTuple):
    """Images of one kind.

    Attributes:
      name: of a split, or of a file.
      num: how many there are.
      inputs: `inputs(first, last) -> [last - first, D]` float32 in [0, 1], as the model
        sees them.
      labels: `[num]` int32, or None.
      identity: JSON; what the inputs depend on beside the run's own data.
    """

    name: str
    num: int
    inputs: Callable[[int, int], np.ndarray]
    labels: np.ndarray | None
    identity: Any


def read_sources(opened: Opened, names: Sequence[str]) -> list[Source]:
    """The sources that a command line names.

    Args:
      opened: the run.
      names: of `SPLITS`, or one file (PNG, NPY or IDX).

    Raises:
      ConfigError: splits that are not there, or that are named twice.
      DataError: a file cannot be used.
    """
    if len(names) == 1 and names[0] not in SPLITS:
        return [_of_file(opened, Path(names[0]))]
    wrong = [name for name in names if name not in SPLITS]
    if wrong or len(set(names)) < len(names):
        raise ConfigError(
            f"--input={','.join(names)}: expected all, some of {', '.join(SPLITS)} "
            "with commas, each once, or one file"
        )
    found = [_of_split(opened, name) for name in names]
    if not sum(source.num for source in found):
        raise ConfigError(
            f"--input={','.join(names)}: there are no such images, the run has a "
            "config.data.num_valid of 0: choose other splits"
        )
    return [source for source in found if source.num]


def _of_split(opened: Opened, name: str) -> Source:
    program = opened.program
    images = getattr(program, name)
    batched, to_input = Batched(), program.to_input

    def one(_: None, index: jax.Array, image: jax.Array) -> jax.Array:
        if name == "train":
            return drawn_once(opened.config, program, index, image)
        return to_input(image)

    def inputs(first: int, last: int) -> np.ndarray:
        indices = np.arange(first, last)
        return batched(name, one, None, indices, read_rows(images, indices))

    labels = getattr(opened.dataset, name).labels
    return Source(name, len(images), inputs, labels, name)


def _of_file(opened: Opened, file: Path) -> Source:
    images = read_pictures(file, opened.dataset.image_shape)
    data = opened.config.data

    def inputs(first: int, last: int) -> np.ndarray:
        chosen = images[first:last]
        if data.binarization == "grey":
            return (chosen / data.scale).astype(np.float32)
        return (chosen >= WHITE).astype(np.float32)

    identity = digests({"images": images})
    return Source(file.name, len(images), inputs, None, identity)
