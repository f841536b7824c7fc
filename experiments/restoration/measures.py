"""How good an answer about an image is, and the evaluators that measure it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.evaluation.annealing import prior_of
from experiments.evaluation.kinds import Estimator, Kind
from experiments.keys import Stream, stream_key
from experiments.restoration.methods import Method, guesses
from experiments.restoration.problem import NUM_DRAWS, Budget, Found, Problem
from experiments.restoration.tasks import Seen, Task

__all__ = [
    "NUM_BINS",
    "PICTURES",
    "Bundle",
    "Model",
    "average_pixels",
    "find_restoring_steps",
    "measures",
    "method_estimator",
    "problem_of",
    "sandwich_estimator",
]

NUM_BINS = 10
"""Of the calibration of pixel probabilities."""

PICTURES = ("seen", "mean", "draws", "spread")
"""What is shown of an image's answer; too much to be kept of every image."""

_SHOWN_DRAWS = 3

# A probability of float32 that is 0 or 1 by rounding is not meant to be certain.
_CERTAIN = 1e-6


class Model(NamedTuple):
    """What of a run the methods need; static.

    Attributes:
      model: the networks.
      scale: of the training images' bytes.
      binary: whether x is of binary pixels.
      damaged: whether the images are what is seen, and there is no truth.
    """

    model: aevb.Model
    scale: int
    binary: bool
    damaged: bool = False


class Bundle(NamedTuple):
    """What the compiled programs take as arguments, beside images and keys.

    Attributes:
      params: of the model.
      arrays: of the task.
      average: p(x) with independent pixels, from the training images.
      train: `[N, D]` uint8.
      step_sizes: `[T - 2]` of annealing to p(z|y).
      whole_step_sizes: `[T - 2]` of annealing to p(z|x).
    """

    params: Any
    arrays: Any
    average: Any
    train: Any
    step_sizes: Any
    whole_step_sizes: Any


def average_pixels(train: np.ndarray, scale: int, *, binary: bool) -> Any:
    """p(x) with independent pixels, of the training images.

    Args:
      train: `[N, D]` bytes.
      scale: of the bytes.
      binary: whether pixels are binary.

    Returns:
      A `Bernoulli` or a `DiagNormal`, `[D]`.
    """
    mean = train.mean(axis=0, dtype=np.float64) / scale
    if binary:
        # Clipped as in Burda et al.'s code: some pixels are 0 in every image.
        mean = np.clip(mean, 1e-3, 1 - 1e-3)
        logits = np.log(mean) - np.log1p(-mean)
        return aevb.Bernoulli(jnp.asarray(logits, jnp.float32))
    spread = np.maximum(train.std(axis=0, dtype=np.float64) / scale, 0.01)
    return aevb.DiagNormal(
        jnp.asarray(mean, jnp.float32), jnp.asarray(np.log(spread), jnp.float32)
    )


def problem_of(
    model: Model, task: Task, bundle: Bundle, key: jax.Array, x: jax.Array
) -> tuple[Problem, Seen]:
    """Does to x what the task does, with the same noise for every method.

    Args:
      model: of the run.
      task: of the kind at least: what tells it from others is in the bundle.
      bundle: what may be traced.
      key: of the noise, the same for every method.
      x: `[D]`.
    """
    mask_key, noise_key = jax.random.split(key)
    seen = task.channel(mask_key, bundle.arrays)
    networks, params = model.model, bundle.params
    given = seen.observe.given(x)
    # Of a channel that changes the shape, what it leaves of a whole image.
    y = given.sample(noise_key)
    if model.damaged:
        y = x if y.shape == x.shape else given.mean
    problem = Problem(
        encode=partial(networks.encode, params),
        decode=partial(networks.decode, params),
        prior=prior_of(networks, params, x),
        observe=seen.observe,
        y=y,
        average=bundle.average,
        train=bundle.train,
        scale=model.scale,
        step_sizes=bundle.step_sizes,
    )
    return problem, seen


def method_estimator(
    model: Model, task: Task, method: Method, budget: Budget, batch_size: int
) -> Estimator:
    """The measures of a method and its `PICTURES`, for all tasks of this one's kind."""

    def function(bundle: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        task_key, method_key = jax.random.split(key)
        problem, seen = problem_of(model, task, bundle, task_key, x)
        found = method.answer(problem, method_key, x, budget)
        # Of a channel that changes the shape, what would be seen of a mean.
        y = problem.y if problem.y.shape == x.shape else problem.filled()
        grey = jnp.where(seen.target, jnp.nan, y)
        return {
            **measures(found, x, seen.target, binary=model.binary),
            "seen": grey if task.kind == "masked" else y,
            "mean": found.mean,
            "draws": found.draws[:: NUM_DRAWS // _SHOWN_DRAWS][:_SHOWN_DRAWS],
            "spread": _spread(found, model.binary),
        }

    kind = Kind(
        name=method.name,
        label=lambda _: method.label,
        stream=Stream.RESTORATION,
        estimates="log_loss" if model.binary else "squared_error",
    )
    return Estimator(kind, dict(budget._asdict()), function, batch_size)


def sandwich_estimator(
    model: Model, task: Task, budget: Budget, batch_size: int
) -> Estimator:
    """log p(x|y) from both sides, on an x and a y that the model makes from the key."""

    def function(bundle: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        task_key, both_key, guess_key = jax.random.split(key, 3)
        prior = prior_of(model.model, bundle.params, x)

        def start(y: jax.Array) -> Any:
            problem, _ = problem_of(model, task, bundle, task_key, x)
            return guesses(problem._replace(y=y), guess_key, budget)

        problem, seen = problem_of(model, task, bundle, task_key, x)
        both = aevb.conditional_bdmc(
            problem.encode,
            start,
            problem.decode,
            seen.observe,
            both_key,
            prior=prior,
            temperatures=aevb.sigmoid_temperatures(budget.num_temperatures),
            num_chains=budget.num_chains,
            num_leapfrog_steps=budget.num_leapfrog_steps,
            step_size=bundle.whole_step_sizes,
            step_size_y=bundle.step_sizes,
        )
        return {
            "log_likelihood": both.lower.log_likelihood,
            "upper": both.upper.log_likelihood,
        }

    kind = Kind(
        name="sandwich",
        label=lambda _: "BDMC",
        stream=Stream.RESTORATION_SANDWICH,
        simulated=True,
    )
    return Estimator(kind, dict(budget._asdict()), function, batch_size)


def find_restoring_steps(
    model: Model, task: Task, bundle: Bundle, budget: Budget, x: jax.Array
) -> jax.Array:
    """Step sizes of annealing to p(z|y), found on images that the model makes.

    They depend on no image that counts, so that E[w] = p(y) holds exactly. The
    geometric mean over 16 simulated images is taken.

    Args:
      model: of the run.
      task: with its own arrays in the bundle.
      bundle: whose step sizes are not looked at.
      budget: of the samplers.
      x: `[D]` of any values: the shape of an image.

    Returns:
      `[T - 2]`.
    """

    def one(bundle: Bundle, key: jax.Array) -> jax.Array:
        z_key, x_key, task_key, guess_key, tune_key = jax.random.split(key, 5)
        z = prior_of(model.model, bundle.params, x).sample(z_key)
        likelihood: Any = model.model.decode(bundle.params, z)
        made = likelihood.sample(x_key).astype(x.dtype)
        problem, _ = problem_of(
            model._replace(damaged=False), task, bundle, task_key, made
        )
        proposal = guesses(problem, guess_key, budget)
        return aevb.annealing_step_sizes(
            lambda _: proposal,
            problem.decode_y,
            tune_key,
            problem.y,
            prior=problem.prior,
            temperatures=aevb.sigmoid_temperatures(budget.num_temperatures),
            num_leapfrog_steps=budget.num_leapfrog_steps,
        )

    keys = jax.random.split(stream_key(Stream.RESTORATION_STEPS), 16)
    found = jax.jit(jax.vmap(one, (None, 0)))(bundle, keys)
    return jnp.exp(jnp.mean(jnp.log(found), axis=0))


def measures(
    found: Found, x: jax.Array, target: jax.Array, *, binary: bool
) -> dict[str, jax.Array]:
    """Sums over the dimensions that are asked for."""

    def total(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(target, values, 0), axis=-1)

    mean = found.mean
    values = {
        "log_prob": found.log_prob,
        "num": total(jnp.ones_like(x)),
        "squared_error": total((mean - x) ** 2),
        "curve": total((found.curve - x[None]) ** 2),
        **found.diagnostics,
    }
    if not binary:
        interval = aevb.credible_interval(found.draws, mass=0.9)
        inside = (interval.lower <= x) & (x <= interval.upper)
        return values | {
            "wrong": total(jnp.abs(interval.median - x)),
            "inside": total(inside.astype(x.dtype)),
        }
    p = jnp.clip(mean, _CERTAIN, 1 - _CERTAIN)
    mode = aevb.marginal_mode(mean)
    values["wrong"] = total(jnp.abs(mode - x))
    values["said_white"], values["both_white"] = total(mode), total(mode * x)
    values["white"] = total(x)
    values["log_loss"] = -total(x * jnp.log(p) + (1 - x) * jnp.log1p(-p))
    which = jnp.clip((mean * NUM_BINS).astype(jnp.int32), 0, NUM_BINS - 1)
    bins = (which[None] == jnp.arange(NUM_BINS)[:, None]).astype(x.dtype)
    return values | {
        "bin_count": total(bins),
        "bin_said": total(bins * mean[None]),
        "bin_true": total(bins * x[None]),
    }


def _spread(found: Found, binary: bool) -> jax.Array:
    """The standard deviation of each pixel, of which binary ones have at most 1/2."""
    if binary:
        return jnp.sqrt(found.mean * (1 - found.mean))
    return jnp.std(found.draws, axis=0)
