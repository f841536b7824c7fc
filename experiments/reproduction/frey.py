"""Frey Face: what a constant decoder scores, and what the floor of the variance costs.

A Gaussian likelihood grows without bound as a variance goes to 0, so its nats mean
something only beside the floor that kept it from doing so. And a decoder that ignores z
is the best constant Gaussian of every pixel: a method that stands at its score has
learned nothing else.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.evaluation.bounds import bound_evaluator
from experiments.program import build, load_dataset
from experiments.reproduction.protocol import Panel
from experiments.reproduction.training import Curve
from experiments.storage.atomic import read_json, write_json
from experiments.storage.workdir import same_work
from experiments.training.opened import load_run

__all__ = ["FreyFace", "constant_gaussian", "find_frey_face", "look_at"]


class FreyFace(NamedTuple):
    """What a finished run on Frey Face is, beside its curve.

    Attributes:
      method: one of `protocol.LABELS`.
      bound: on the test frames, nats per frame.
      unfloored: the same parameters without the floor of the variance.
      at_floor: the share of the test frames' pixels that have the least variance.
      kl: KL(q(z|x) ‖ p(z)), nats: near 0 where the decoder ignores z.
      constant_train: log density of the training frames under the best constant
        Gaussian of every pixel, with the floor; nats per frame.
      constant_test: of the test frames, under that of the training frames.
    """

    method: str
    bound: float
    unfloored: float
    at_floor: float
    kl: float
    constant_train: float
    constant_test: float


def constant_gaussian(
    dataset: Dataset, *, scale: int, min_scale: float
) -> tuple[float, float]:
    """The mean log density under the best Gaussian of every pixel, nats per image.

    Args:
      dataset: of bytes; the Gaussian is that of the training images.
      scale: a pixel is byte / scale.
      min_scale: the least standard deviation.

    Returns:
      Of the training and of the test images.
    """
    train, test = (
        np.asarray(split.images, np.float64) / scale
        for split in (dataset.train, dataset.test)
    )
    mean, std = train.mean(axis=0), np.maximum(train.std(axis=0), min_scale or 1e-12)

    def score(images: np.ndarray) -> float:
        log_density = -0.5 * ((images - mean) / std) ** 2 - np.log(std)
        log_density -= 0.5 * np.log(2 * np.pi)
        return float(log_density.sum(axis=1).mean())

    return score(train), score(test)


def look_at(panel: Panel, curves: list[Curve], workdir: Path) -> None:
    """Looks at the finished runs of a panel on Frey Face, once."""
    if not curves or find_frey_face(panel, workdir):
        return
    config = panel.config
    constant = constant_gaussian(
        load_dataset(config), scale=config.data.scale, min_scale=config.min_scale
    )
    found = [
        _look(curve, config.data.path, constant)._asdict()
        for curve in curves
        if curve.status == "done"
    ]
    kept = {"of": same_work(config.to_dict()), "runs": found}
    write_json(_file(panel, workdir), kept)


def find_frey_face(panel: Panel, workdir: Path) -> list[FreyFace]:
    """What `look_at` found, or []."""
    path = _file(panel, workdir)
    kept = read_json(path) if path.exists() else {}
    if kept.get("of") != same_work(panel.config.to_dict()):
        return []
    return [FreyFace(**one) for one in kept["runs"]]


def _file(panel: Panel, workdir: Path) -> Path:
    return workdir / "frey_face" / f"{panel.name}.json"


def _look(curve: Curve, path: str, constant: tuple[float, float]) -> FreyFace:
    opened = load_run(curve.folder, data_path=path)
    config, dataset, params = opened.config, opened.dataset, opened.params
    free = ConfigDict(config.to_dict())
    free.min_scale = 0.0
    bounds = {}
    for name, own in (("floored", config), ("free", free)):
        program = build(own, dataset)
        bounds[name] = jax.jit(bound_evaluator(program))(params, program.test)
    least = np.log(config.min_scale) if config.min_scale else -np.inf

    def share(params: Any, means: jax.Array) -> jax.Array:
        decode: Any = partial(opened.program.model.decode, params)
        scales = jax.vmap(lambda z: decode(z).log_scale)(means)
        return jnp.mean(scales <= least + 1e-6)

    return FreyFace(
        curve.method,
        float(bounds["floored"].bound),
        float(bounds["free"].bound),
        float(jax.jit(share)(params, bounds["floored"].means)),
        float(bounds["floored"].kl),
        *constant,
    )
