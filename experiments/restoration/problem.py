"""What is asked about one image, and what is said of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import aevb

__all__ = [
    "NUM_DRAWS",
    "Answer",
    "Budget",
    "Found",
    "Problem",
    "curve_steps",
    "found_by_chains",
    "found_by_draws",
    "found_by_one",
]

NUM_DRAWS = 100
"""Draws of x that each method makes, for intervals and pictures."""


class Budget(NamedTuple):
    """How much work the samplers do for an image.

    Attributes:
      num_chains: of Markov chains, and of what is annealed.
      num_steps: of each chain, the first half of which is burn-in: a power of two.
      num_leapfrog_steps: of each transition of HMC.
      num_temperatures: of annealed importance sampling.
    """

    num_chains: int
    num_steps: int
    num_leapfrog_steps: int
    num_temperatures: int


class Problem(NamedTuple):
    """What is asked about one image.

    Attributes:
      encode: x `[D]` -> q(z|x).
      decode: z -> p(x|z).
      prior: p(z), to sample from.
      observe: the channel.
      y: what is seen.
      average: p(x) with independent pixels, from the training images.
      train: `[N, D]` uint8, the training images.
      scale: of their bytes.
      step_sizes: `[T - 2]` of annealing from `guesses` to p(z|y).
    """

    encode: Callable[[jax.Array], Any]
    decode: Callable[[Any], Any]
    prior: Any
    observe: Any
    y: jax.Array
    average: Any
    train: jax.Array
    scale: int
    step_sizes: jax.Array

    def filled(self) -> jax.Array:
        """y with the training mean for what is not known. `[D]`"""
        return self.observe.restore(self.average, self.y).mean

    def starts(self, key: jax.Array, num: int) -> jax.Array:
        """y with draws of independent pixels for what is not known. `[num, D]`"""
        keys = jax.random.split(key, num)
        return jax.vmap(self.observe.restore(self.average, self.y).sample)(keys)

    def decode_y(self, z: Any) -> Any:
        """p(y|z)."""
        return self.observe(self.decode(z))


class Found(NamedTuple):
    """What a method says of one image.

    Attributes:
      mean: `[D]` its expectation of x.
      log_prob: `[]` the log density that it gives the truth, in nats; NaN if none.
      draws: `[NUM_DRAWS, D]` of x.
      curve: `[T, D]` the mean that its chains had after `curve_steps`, of the second
        half of the steps; `[0, D]` where there are no chains.
      diagnostics: scalars: "acceptance", "ess", ...: those there are.
    """

    mean: jax.Array
    log_prob: jax.Array
    draws: jax.Array
    curve: jax.Array
    diagnostics: Mapping[str, jax.Array]


Answer = Callable[[Problem, jax.Array, jax.Array, Budget], Found]
"""`answer(problem, key, x, budget)`: x is the truth, to be scored alone."""


def curve_steps(num_steps: int) -> list[int]:
    """The numbers of steps at which the error of chains is told.

    >>> curve_steps(8)
    [1, 2, 4, 8]
    """
    return [2**power for power in range(num_steps.bit_length())]


def found_by_one(
    problem: Problem, likelihood: Any, key: jax.Array, x: jax.Array, *, scored: bool
) -> Found:
    """The answer of one distribution of x."""
    p = problem.observe.restore(likelihood, problem.y)
    log_prob = p.log_prob(x) if scored else jnp.float32(jnp.nan)
    draws = jax.vmap(p.sample)(jax.random.split(key, NUM_DRAWS))
    return Found(p.mean, log_prob, draws, jnp.zeros((0, *p.mean.shape)), {})


def found_by_draws(
    problem: Problem,
    key: jax.Array,
    x: jax.Array,
    zs: jax.Array,
    log_weights: jax.Array | None = None,
) -> Found:
    """The answer of draws of z, weighted or not."""
    model = (problem.decode, problem.observe)
    mean = aevb.posterior_mean(*model, problem.y, zs, log_weights=log_weights)
    log_prob = aevb.predictive_log_prob(
        *model, problem.y, zs, x, log_weights=log_weights
    )
    pick_key, draw_key = jax.random.split(key)
    if log_weights is None:
        log_weights = jnp.zeros(len(zs))
    shown = aevb.resample(pick_key, zs, log_weights, num_samples=NUM_DRAWS)
    draws = aevb.restored_draws(*model, draw_key, problem.y, shown)
    return Found(mean, log_prob, draws, jnp.zeros((0, *mean.shape)), {})


def found_by_chains(
    problem: Problem,
    key: jax.Array,
    x: jax.Array,
    zs: jax.Array,
    acceptance: jax.Array,
) -> Found:
    """The answer of the second half of the chains' steps, `[C, L, J]`."""
    num_steps = zs.shape[1]

    def look(zs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean over the chains of a step, and the log density that it gives."""

        def one(z: jax.Array) -> tuple[jax.Array, jax.Array]:
            p = problem.observe.restore(problem.decode(z), problem.y)
            return p.mean, p.log_prob(x)

        means, scores = jax.vmap(one)(zs)
        return jnp.mean(means, axis=0), jax.nn.logsumexp(scores) - jnp.log(len(zs))

    by_step = jnp.swapaxes(zs, 0, 1)
    means, scores = jax.lax.map(look, by_step)
    half = scores[num_steps // 2 :]
    # After t steps: the mean of the steps from t/2 on.
    segments = [means[end // 2 : end] for end in curve_steps(num_steps)]
    curve = jnp.stack([jnp.mean(segment, axis=0) for segment in segments])
    log_prob = jax.nn.logsumexp(half) - jnp.log(len(half))
    kept = zs[:, num_steps // 2 :]
    last = by_step[num_steps // 2 :].reshape(-1, *zs.shape[2:])
    evenly = jnp.arange(NUM_DRAWS) * len(last) // NUM_DRAWS
    draws = aevb.restored_draws(
        problem.decode, problem.observe, key, problem.y, last[evenly]
    )
    diagnostics = {
        "acceptance": jnp.mean(acceptance),
        "ess": jnp.min(aevb.effective_sample_size(kept)),
        "r_hat": jnp.max(aevb.split_r_hat(kept)),
    }
    return Found(curve[-1], log_prob, draws, curve, diagnostics)
