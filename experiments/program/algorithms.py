"""How a model is trained: a configuration's algorithm, optimizer and step sizes.

`ALGORITHMS` has a function for each `config.algorithm`; everything in it may be traced.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import aevb
from aevb import baselines
from experiments.config import optimizer_arguments
from experiments.program.models import reparameterization

__all__ = [
    "ALGORITHMS",
    "Hyperparameters",
    "aevb_algorithm",
    "mcem_algorithm",
    "sixteen_bits",
    "wake_sleep_algorithm",
]

# Burda et al.: 3^i passes at 1e-3 * 10^(-i/7), i = 0 .. 7; 3280 passes in all.
_BURDA_PASSES = [3**i for i in range(8)]


class Hyperparameters(NamedTuple):
    """What may differ between lanes of one compiled program; all may be traced.

    Attributes:
      learning_rate: `[]` the (peak) step size.
      weight_prior: `[]` the standard deviation of N(0, s² I) on the weights; ignored
        by a program that was built without a weight prior.
      beta: `[]` the weight of the KL term in the objective (Higgins et al. 2017; 1 is
        the bound); the importance-weighted bound has no such term.
      optimizer_args: `{name: []}` arguments of the optimizer that take the place of
        those in `config.optimizer_args`.
    """

    learning_rate: jax.Array | float
    weight_prior: jax.Array | float
    beta: jax.Array | float = 1.0
    optimizer_args: Mapping[str, jax.Array | float] = {}


def _bound(config: ConfigDict, model: aevb.Model, beta: jax.Array | float) -> Callable:
    """`bound(params, key, x) -> (value, metrics)` of the configured estimator.

    The value is what is maximised, with beta; metrics["bound"] is the bound, without.
    """
    estimators: dict[str, Callable[..., Any]] = {
        "sgvb_a": aevb.elbo_generic,
        "sgvb_b": aevb.elbo,
        "stl": partial(aevb.elbo_generic, stop_score=True),
        "iwae": aevb.iwae,
    }
    estimator = estimators[config.estimator]

    def bound(params: Any, key: jax.Array, x: jax.Array) -> tuple[jax.Array, dict]:
        value = estimator(
            partial(model.encode, params),
            partial(model.decode, params),
            key,
            x,
            prior=model.prior(params),
            num_samples=config.num_samples,
        )
        if isinstance(value, aevb.Elbo):
            return value.reconstruction - beta * value.kl, {
                "bound": value.value,
                "reconstruction": value.reconstruction,
                "kl": value.kl,
            }
        return value, {"bound": value}

    return bound


def aevb_algorithm(
    config: ConfigDict,
    model: aevb.Model,
    num_train: int,
    num_steps: int,
    hyperparameters: Hyperparameters,
    *,
    axis_name: str | None = None,
) -> aevb.Algorithm:
    """Algorithm 1, stochastic gradient ascent on the configured bound.

    Args:
      config: validated.
      model: what is trained.
      num_train: N, the number of training datapoints.
      num_steps: of the whole run; step sizes may depend on it.
      hyperparameters: may be traced.
      axis_name: of devices that share a minibatch.
    """
    bound = _bound(config, model, hyperparameters.beta)
    if config.weights == "point":
        objective = aevb.map_objective(
            bound,
            num_datapoints=num_train,
            log_prior=_log_prior(config, hyperparameters),
            axis_name=axis_name,
        )
    else:
        objective = _full_bayes(config, bound, num_train, hyperparameters, axis_name)
    optimizer = _optimizer(config, num_steps, hyperparameters)
    return aevb.gradient_algorithm(objective, optimizer, axis_name=axis_name)


def _full_bayes(
    config: ConfigDict,
    bound: Callable[..., Any],
    num_train: int,
    hyperparameters: Hyperparameters,
    axis_name: str | None,
) -> aevb.Objective:
    """Appendix F.1: the bound under q(theta), less KL(q(theta) | p(theta)) / N."""
    is_local = config.weight_noise == "local"
    under_posterior = partial(
        aevb.full_bayes_objective,
        num_datapoints=num_train,
        prior=partial(aevb.weight_prior, scale=hyperparameters.weight_prior),
        reparameterization=reparameterization(config),
    )
    over_batch = partial(
        aevb.map_objective, num_datapoints=num_train, axis_name=axis_name
    )
    objective = (
        over_batch(under_posterior(bound))
        if is_local
        else under_posterior(over_batch(bound))
    )

    def with_metrics(params: Any, key: jax.Array, batch: jax.Array) -> Any:
        value, found = objective(params, key, batch)
        return value, found.aux | {"weights_kl": found.weights_kl}

    return with_metrics


def wake_sleep_algorithm(
    config: ConfigDict,
    model: aevb.Model,
    num_train: int,
    num_steps: int,
    hyperparameters: Hyperparameters,
    *,
    axis_name: str | None = None,
) -> aevb.Algorithm:
    """Wake-sleep; the arguments are those of `aevb_algorithm`."""
    return baselines.wake_sleep(
        model,
        _optimizer(config, num_steps, hyperparameters),
        num_datapoints=num_train,
        log_prior=_log_prior(config, hyperparameters),
        dream=partial(_dream, config.dream_clip),
        axis_name=axis_name,
    )


def _dream(clip: float, key: jax.Array, likelihood: Any) -> jax.Array:
    """x ~ p(x|z); of a Bernoulli with P(1) kept from 0 and 1, to within 2**-16."""
    if not isinstance(likelihood, aevb.Bernoulli):
        return baselines.sample_dream(key, likelihood)
    mean = clip + (1 - 2 * clip) * likelihood.mean
    bits = sixteen_bits(key, mean.size)
    return (bits.astype(mean.dtype) < 65536 * mean).astype(mean.dtype)


def sixteen_bits(key: jax.Array, num_pixels: int) -> jax.Array:
    """Random bits to draw binary pixels with; `[num_pixels]` uint32 below 2**16.

    A random word has two pixels' bits: a hash of each pixel's own costs twice.
    """
    words = jax.random.bits(key, ((num_pixels + 1) // 2,), jnp.uint32)
    return jnp.concatenate([words >> 16, words & 0xFFFF])[:num_pixels]


def mcem_algorithm(
    config: ConfigDict,
    model: aevb.Model,
    num_train: int,
    num_steps: int,
    hyperparameters: Hyperparameters,
    *,
    axis_name: str | None = None,
) -> aevb.Algorithm:
    """Monte Carlo EM; the arguments are those of `aevb_algorithm`.

    All chains start at the mode of the prior, 0.
    """
    # The schedule counts updates of the weights.
    num_steps *= config.mcem.weight_updates
    return baselines.mcem(
        model.decode,
        _optimizer(config, num_steps, hyperparameters),
        jnp.zeros((num_train, config.latent_dim)),
        prior=model.prior,
        log_prior=_log_prior(config, hyperparameters),
        num_leapfrog_steps=config.mcem.leapfrog_steps,
        num_weight_updates=config.mcem.weight_updates,
        target_acceptance=config.mcem.acceptance,
        chunk_size=config.mcem.chunk_size or None,
        axis_name=axis_name,
    )


ALGORITHMS: dict[str, Callable[..., aevb.Algorithm]] = {
    "aevb": aevb_algorithm,
    "wake_sleep": wake_sleep_algorithm,
    "mcem": mcem_algorithm,
}


def _log_prior(
    config: ConfigDict, hyperparameters: Hyperparameters
) -> Callable[[Any], jax.Array] | None:
    """log p(theta, phi) of the configured weights, or None where there is no prior."""
    if not config.weight_prior:
        return None
    scale = hyperparameters.weight_prior

    def log_prior(params: Any) -> jax.Array:
        if config.weight_prior_on == "all":
            return aevb.log_weight_prior(params, scale=scale, only_matrices=False)
        if config.weight_prior_on == "matrices" or "encoder" not in params:
            return aevb.log_weight_prior(params, scale=scale)
        rest = {name: value for name, value in params.items() if name != "encoder"}
        return aevb.log_weight_prior(rest, scale=scale) + aevb.log_weight_prior(
            params["encoder"], scale=scale, only_matrices=False
        )

    return log_prior


def _optimizer(
    config: ConfigDict, num_steps: int, hyperparameters: Hyperparameters
) -> optax.GradientTransformation:
    # The paper's Adagrad starts its sum of squares at 0 (optax: 0.1).
    defaults = (
        {"initial_accumulator_value": 0.0} if config.optimizer == "adagrad" else {}
    )
    return getattr(optax, config.optimizer)(
        _schedule(config, hyperparameters.learning_rate, num_steps),
        **(
            defaults
            | optimizer_arguments(config.optimizer_args)
            | dict(hyperparameters.optimizer_args)
        ),
    )


def _schedule(
    config: ConfigDict, learning_rate: jax.Array | float, num_steps: int
) -> optax.ScalarOrSchedule:
    """The step size as a function of the step; `learning_rate` may be traced."""
    warmup_steps = round(config.warmup * num_steps)

    def cosine(step: jax.Array) -> jax.Array:
        share = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
        return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1)))

    def burda(step: jax.Array) -> jax.Array:
        ends = np.cumsum(_BURDA_PASSES) / sum(_BURDA_PASSES) * num_steps
        stage = jnp.searchsorted(jnp.asarray(ends[:-1]), step, side="right")
        return 10.0 ** (-stage / 7)

    def constant(step: jax.Array) -> jax.Array:
        return jnp.ones(())

    decay = {"constant": constant, "cosine": cosine, "burda": burda}[config.schedule]

    def schedule(step: jax.Array) -> jax.Array:
        rise = jnp.minimum((step + 1) / max(warmup_steps, 1), 1.0)
        size = learning_rate * rise * decay(step)
        return jnp.where(step < config.hold, 0.0, size) if config.hold else size

    return schedule
