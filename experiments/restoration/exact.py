"""The truth about binary images of up to three latent dimensions, on one shared grid.

The decoder is called once at each point of a grid over z, for all images together;
log p(y|z) of all of them is then a product of matrices.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from aevb.products import matmul
from experiments.evaluation.annealing import prior_of
from experiments.restoration.measures import Bundle, Model, measures, problem_of
from experiments.restoration.problem import Found
from experiments.restoration.tasks import Task

__all__ = ["LARGEST", "exact_measures"]

LARGEST = 3
"""The most latent dimensions of a grid."""

# Points along an axis, and where each ends: p(|z_j| > 5.5) is 4e-8, and the spacing is
# below the standard deviations of the posteriors that are met.
_POINTS = {1: 2001, 2: 551, 3: 121}
_LIMIT = 5.5
_CHUNK = 1024


class _Sums(NamedTuple):
    peak: jax.Array
    mass: jax.Array
    ones: jax.Array


def exact_measures(
    model: Model,
    task: Task,
    bundle: Bundle,
    keys: jax.Array,
    xs: jax.Array,
) -> dict[str, np.ndarray]:
    """The measures of the exact posterior mean of each image, and its log p(x|y).

    Args:
      model: of binary pixels.
      task: masked or flipped.
      bundle: of the task.
      keys: `[n]` each image's, as the methods have it.
      xs: `[n, D]`.

    Returns:
      `{name: [n, ...]}`: what the methods have, "log_prob" being the truth.
    """

    def seen_of(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        problem, seen = problem_of(model, task, bundle, jax.random.split(key)[0], x)
        return problem.y, seen.target

    @jax.jit
    def run(bundle: Bundle, keys: jax.Array, xs: jax.Array) -> dict[str, jax.Array]:
        ys, targets = jax.vmap(seen_of)(keys, xs)
        sums, log_x, volume = _integrate(model, task, bundle, xs, ys, targets)
        mean = sums.ones / sums.mass[:, None]
        if task.kind == "masked":
            mean = jnp.where(targets, mean, ys)
        log_y = sums.peak + jnp.log(sums.mass) + volume
        log_x = jax.nn.logsumexp(log_x, axis=0) + volume
        given = jax.vmap(partial(_log_given, task, bundle))(keys, xs, ys)
        log_prob = log_x + given - log_y

        def measure(
            mean: jax.Array, x: jax.Array, target: jax.Array, log_prob: jax.Array
        ) -> dict[str, jax.Array]:
            nothing = jnp.zeros((0, *x.shape))
            found = Found(mean, log_prob, nothing, nothing, {})
            return measures(found, x, target, binary=True)

        return jax.vmap(measure)(mean, xs, targets, log_prob) | {"log_x": log_x}

    return jax.tree.map(np.asarray, run(bundle, keys, xs))


def _log_given(
    task: Task, bundle: Bundle, key: jax.Array, x: jax.Array, y: jax.Array
) -> jax.Array:
    mask_key, _ = jax.random.split(jax.random.split(key)[0])
    return task.channel(mask_key, bundle.arrays).observe.given(x).log_prob(y)


def _integrate(
    model: Model,
    task: Task,
    bundle: Bundle,
    xs: jax.Array,
    ys: jax.Array,
    targets: jax.Array,
) -> tuple[_Sums, jax.Array, jax.Array]:
    """Sums over the grid, relative to a peak: of p(y, z), and of its means of x.

    Also log p(x, z), summed by chunks, and the log volume of a cell.
    """
    example = prior_of(model.model, bundle.params, xs[0])
    latent_dim = example.mean.shape[0]
    axis = jnp.linspace(-_LIMIT, _LIMIT, _POINTS[latent_dim])
    num_points = len(axis) ** latent_dim
    flat = jnp.arange(-(-num_points // _CHUNK) * _CHUNK)
    shown = jnp.where(targets, 0.0, 1.0)  # where masked: 1 what is seen
    observe = task.channel(jax.random.key(0), bundle.arrays).observe

    def chunk(sums: _Sums, index: jax.Array) -> tuple[_Sums, jax.Array]:
        places = jnp.unravel_index(index, (len(axis),) * latent_dim)
        zs = jnp.stack([axis[place] for place in places], axis=-1)
        likelihoods: Any = jax.vmap(partial(model.model.decode, bundle.params))(zs)
        logits = likelihoods.logits
        log_prior = jax.vmap(example.log_prob)(zs)
        log_prior = jnp.where(index < num_points, log_prior, -jnp.inf)[:, None]
        softplus = jax.nn.softplus(logits)
        log_x = matmul(logits, xs.T) - jnp.sum(softplus, axis=1)[:, None] + log_prior
        if task.kind == "masked":
            log_y = matmul(logits, (shown * ys).T) - matmul(softplus, shown.T)
            ones = zeros = jax.nn.sigmoid(logits)
        else:
            of_y = observe(aevb.Bernoulli(logits))
            log_y = (
                matmul(of_y.logits, ys.T)
                - jnp.sum(jax.nn.softplus(of_y.logits), axis=1)[:, None]
            )
            of_x = aevb.Bernoulli(logits)
            ones = observe.restore(of_x, jnp.ones_like(logits)).mean
            zeros = observe.restore(of_x, jnp.zeros_like(logits)).mean
        log_y += log_prior
        peak = jnp.maximum(sums.peak, jnp.max(log_y, axis=0))
        old, new = jnp.exp(sums.peak - peak), jnp.exp(log_y - peak[None])
        if task.kind == "masked":
            found = matmul(new.T, ones)
        else:
            found = ys * matmul(new.T, ones) + (1 - ys) * matmul(new.T, zeros)
        sums = _Sums(
            peak,
            sums.mass * old + jnp.sum(new, axis=0),
            sums.ones * old[:, None] + found,
        )
        return sums, jax.nn.logsumexp(log_x, axis=0)

    # No peak is below this, and exp(−inf + inf) would be no number.
    lowest = jnp.full(len(xs), jnp.finfo(xs.dtype).min)
    start = _Sums(lowest, jnp.zeros(len(xs)), jnp.zeros_like(xs))
    sums, log_x = jax.lax.scan(chunk, start, flat.reshape(-1, _CHUNK))
    volume = latent_dim * jnp.log(axis[1] - axis[0])
    return sums, log_x, volume
