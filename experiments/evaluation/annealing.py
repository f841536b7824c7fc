"""Annealed importance sampling of a trained model, and the sandwich of both bounds."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.evaluation.kinds import Estimator, Kind
from experiments.keys import Stream, stream_key
from experiments.storage.parts import Parts

__all__ = [
    "ANNEALED",
    "SANDWICH",
    "AnnealingPath",
    "annealed",
    "find_step_sizes",
    "prior_of",
    "sandwich",
]

# Step sizes are found at this many temperatures and interpolated to any other number.
_TUNED_TEMPERATURES = 300
_TUNED_POINTS = 16

ANNEALED = Kind(
    name="annealed",
    label=lambda settings: (
        f"AIS from the {settings['start']}, "
        f"{settings['num_temperatures']:,} temperatures"
    ),
    stream=Stream.ANNEALED,
    meaning="lower",
    tightness=1,
    size="num_temperatures",
    remedy="AIS is below where the chains do not keep up with the schedule, and noisy "
    "with few of them: more temperatures or chains.",
)
SANDWICH = Kind(
    name="sandwich",
    label=lambda settings: f"BDMC, {settings['num_temperatures']:,} temperatures",
    stream=Stream.SANDWICH,
    size="num_temperatures",
    simulated=True,
)


class AnnealingPath(NamedTuple):
    """What annealed importance sampling walks along, whatever its length.

    Attributes:
      start: "encoder" or "prior".
      schedule: "sigmoid" or "linear".
      num_leapfrog_steps: of each transition.
      levels: `[T]` temperatures at which step sizes were found.
      log_step_sizes: `[T]` their logarithms.
    """

    start: str
    schedule: str
    num_leapfrog_steps: int
    levels: tuple[float, ...] = ()
    log_step_sizes: tuple[float, ...] = ()

    def temperatures(self, num_temperatures: int) -> jax.Array:
        """`[num_temperatures]` from 0 to 1."""
        schedules = {
            "sigmoid": aevb.sigmoid_temperatures,
            "linear": aevb.linear_temperatures,
        }
        return schedules[self.schedule](num_temperatures)

    def step_sizes(self, num_temperatures: int) -> jax.Array:
        """`[num_temperatures - 2]`, one a transition."""
        levels = self.temperatures(num_temperatures)[1:-1]
        known, values = np.array(self.levels), np.array(self.log_step_sizes)
        return jnp.exp(jnp.interp(levels, known, values))

    def encode(self, model: aevb.Model, params: Any) -> Callable[[jax.Array], Any]:
        """x `[D]` -> the distribution at temperature 0."""
        if self.start == "encoder":
            return partial(model.encode, params)
        return lambda x: prior_of(model, params, x)


def prior_of(model: aevb.Model, params: Any, x: jax.Array) -> Any:
    """p(z) with z of the shape that the encoder gives; to sample from."""
    key = jax.random.key(0)  # of a shape: nothing is drawn
    z = jax.eval_shape(lambda: model.encode(params, x).sample(key))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), z)
    return aevb.prior_or_normal(model.prior(params), zeros)


def find_step_sizes(
    model: aevb.Model, params: Any, x: jax.Array, path: AnnealingPath, parts: Parts
) -> AnnealingPath:
    """Finds the step sizes of a path once, on datapoints that the model makes.

    They depend on no test point and on no chain that counts, so that E[w] = p(x) holds
    exactly. The geometric mean over 16 simulated datapoints is taken.

    Args:
      model: the model.
      params: its parameters.
      x: `[D]` of any values: the shape of a datapoint.
      path: without step sizes.
      parts: where they are kept, of an identity that has the path.

    Returns:
      The path with step sizes.
    """
    found = parts.get("step_sizes")
    if found is None:
        print("step sizes for annealed importance sampling ...", flush=True)
        temperatures = path.temperatures(_TUNED_TEMPERATURES)
        tuned = _tuned(model, params, x, path, temperatures)
        found = [np.asarray(temperatures[1:-1]).tolist(), np.asarray(tuned).tolist()]
        parts.put("step_sizes", found)
    levels, log_step_sizes = map(tuple, found)
    return path._replace(levels=levels, log_step_sizes=log_step_sizes)


def _tuned(
    model: aevb.Model,
    params: Any,
    x: jax.Array,
    path: AnnealingPath,
    temperatures: jax.Array,
) -> jax.Array:
    def one(params: Any, key: jax.Array) -> jax.Array:
        z_key, x_key, tune_key = jax.random.split(key, 3)
        z = prior_of(model, params, x).sample(z_key)
        likelihood: Any = model.decode(params, z)
        return aevb.annealing_step_sizes(
            path.encode(model, params),
            partial(model.decode, params),
            tune_key,
            likelihood.sample(x_key).astype(x.dtype),
            prior=model.prior(params),
            temperatures=temperatures,
            num_leapfrog_steps=path.num_leapfrog_steps,
        )

    keys = jax.random.split(stream_key(Stream.STEP_SIZES), _TUNED_POINTS)
    found = jax.jit(jax.vmap(one, (None, 0)))(params, keys)
    return jnp.mean(jnp.log(found), axis=0)


def annealed(
    model: aevb.Model,
    path: AnnealingPath,
    *,
    num_temperatures: int,
    num_chains: int,
    batch_size: int,
) -> Estimator:
    """Annealed importance sampling along `path`, with several chains a point."""

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        estimate = aevb.annealed_log_likelihood(
            path.encode(model, params),
            partial(model.decode, params),
            key,
            x,
            prior=model.prior(params),
            temperatures=path.temperatures(num_temperatures),
            num_chains=num_chains,
            num_leapfrog_steps=path.num_leapfrog_steps,
            step_size=path.step_sizes(num_temperatures),
        )
        values = estimate._asdict()
        del values["zs"]  # many numbers, of no table
        return values

    settings = {
        "num_temperatures": num_temperatures,
        "num_chains": num_chains,
        **path._asdict(),
    }
    return Estimator(ANNEALED, settings, function, batch_size)


def sandwich(
    model: aevb.Model,
    path: AnnealingPath,
    *,
    num_temperatures: int,
    num_chains: int,
    num_samples: int,
    chunk_size: int,
    batch_size: int,
) -> Estimator:
    """Bidirectional Monte Carlo on a datapoint that the model makes from the key.

    Importance sampling of the same datapoint stands beside: there the upper bound tells
    its bias, too.
    """

    def function(params: Any, key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        both_key, importance_key = jax.random.split(key)
        decode: Any = partial(model.decode, params)
        both = aevb.bdmc(
            path.encode(model, params),
            decode,
            both_key,
            prior=prior_of(model, params, x),
            temperatures=path.temperatures(num_temperatures),
            num_chains=num_chains,
            num_leapfrog_steps=path.num_leapfrog_steps,
            step_size=path.step_sizes(num_temperatures),
        )
        sampled = aevb.importance_log_likelihood(
            partial(model.encode, params),
            decode,
            importance_key,
            both.x,
            prior=model.prior(params),
            num_samples=num_samples,
            chunk_size=chunk_size,
        )
        return {
            "log_likelihood": both.lower.log_likelihood,
            "upper": both.upper.log_likelihood,
            "acceptance": both.lower.acceptance,
            "importance": sampled.log_likelihood,
        }

    settings = {
        "num_temperatures": num_temperatures,
        "num_chains": num_chains,
        "num_samples": num_samples,
        "chunk_size": chunk_size,
        **path._asdict(),
    }
    return Estimator(SANDWICH, settings, function, batch_size)
