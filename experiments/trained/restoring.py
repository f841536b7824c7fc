"""What was x, given what is seen of it: the samplers of `experiments.restoration`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import ConfigError
from experiments.evaluation.annealing import prior_of
from experiments.restoration.measures import average_pixels
from experiments.restoration.methods import METHODS
from experiments.restoration.problem import Budget, Problem
from experiments.trained.arrays import Restored
from experiments.trained.batches import Batched
from experiments.training.opened import Opened

__all__ = ["RESTORERS", "restore"]

RESTORERS = tuple(name for name in METHODS if name not in ("mean", "nearest", "ais"))
"""Methods of `TrainedRun.impute`: those that use the model, and no step sizes that were
found beforehand."""

_LEAPFROG_STEPS = 4


def restore(
    opened: Opened,
    batched: Batched,
    ys: np.ndarray,
    observe: Any,
    key: jax.Array,
    method: str,
    num_chains: int,
    num_steps: int,
) -> Restored:
    """p(x|y) of n images.

    Args:
      opened: the run.
      batched: keeps the compiled programs.
      ys: `[n, D]`, what is seen.
      observe: a channel from images to images, with a leading axis of images.
      key: image i has `fold_in(key, i)`.
      method: of `RESTORERS`.
      num_chains: of Markov chains, or of what is resampled.
      num_steps: of each, a power of two.

    Returns:
      `Restored`, with images `[D]`.

    Raises:
      ValueError: the method or a number cannot be.
      ConfigError: the run has a posterior over its weights.
    """
    config, program = opened.config, opened.program
    if method not in RESTORERS:
        raise ValueError(
            f"method is {method!r}, expected one of {', '.join(RESTORERS)}"
        )
    if config.weights != "point":
        raise ConfigError(
            "this run has a posterior over its weights (config.weights is "
            f"{config.weights}), and the methods are for one decoder: train with "
            "--config.weights=point"
        )
    if num_chains < 4 or num_steps < 8 or num_steps & (num_steps - 1):
        raise ValueError(
            f"num_chains is {num_chains} and num_steps {num_steps}, expected at least "
            "4, and a power of two from 8 on"
        )
    model = program.likelihood_model
    # Static pixels were drawn once: the training images are 0 and 1.
    scale = 1 if config.data.binarization == "static" else config.data.scale
    budget = Budget(num_chains, num_steps, _LEAPFROG_STEPS, num_temperatures=3)

    def one(shared: Any, index: jax.Array, y: jax.Array, observe: Any) -> Restored:
        params, average, key = shared
        problem = Problem(
            encode=partial(model.encode, params),
            decode=partial(model.decode, params),
            prior=prior_of(model, params, y),
            observe=observe,
            y=y,
            average=average,
            train=jnp.zeros((1, len(y)), jnp.uint8),  # of a baseline
            scale=scale,
            step_sizes=jnp.zeros(1),  # of annealing
        )
        own = jax.random.fold_in(key, index)
        found = METHODS[method].answer(problem, own, y, budget)
        return Restored(found.mean, found.draws, dict(found.diagnostics))

    binary = config.likelihood == "bernoulli"
    average = average_pixels(program.train, scale, binary=binary)
    found = batched(
        ("restore", jax.tree.structure(observe), method, budget),
        one,
        (opened.params, average, key),
        np.arange(len(ys)),
        ys,
        observe,
        batch_size=8,
    )
    # A mean of numbers that weights of rounding sum to, a probability all the same.
    return found._replace(mean=np.clip(found.mean, 0, 1)) if binary else found
