"""The checks of a configuration: every value, and every pair that must fit."""

import inspect
import math
from typing import Any

import optax
from ml_collections import ConfigDict

from experiments.config import fields
from experiments.config.fields import base, flatten, get_field, optimizer_arguments
from experiments.errors import ConfigError

__all__ = ["validate"]

# Families whose prior has a shape of its own.
_SHAPED = ("student_t", "gamma", "weibull", "beta", "kumaraswamy", "dirichlet")


def validate(config: ConfigDict) -> None:
    """Checks every value of a configuration, before anything is compiled.

    Raises:
      ConfigError: one line that names the field, what it is and what it may be.
    """
    for name, value in flatten(config.to_dict()).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _error(name, value, "a finite number")
    _check_choices(config)
    _check_ranges(config)
    _check_training(config)
    _check_likelihood(config)
    _check_posterior(config)
    _check_weights(config)
    _check_algorithm(config)
    _check_optimizer(config)


def _check_choices(config: ConfigDict) -> None:
    _choices(config, "data.binarization", fields.BINARIZATIONS)
    _choices(config, "data.scale", (255, 256))
    _choices(config, "data.stream", fields.STREAMS)
    _choices(config, "activation", fields.ACTIVATIONS)
    _choices(config, "init", fields.INITIALIZERS)
    _choices(config, "posterior", fields.POSTERIORS)
    _choices(config, "likelihood", fields.LIKELIHOODS)
    _choices(config, "precision", (*fields.PRECISIONS, "auto"))
    _choices(config, "eval.precision", fields.PRECISIONS)
    _choices(config, "algorithm", fields.ALGORITHMS)
    _choices(config, "estimator", fields.ESTIMATORS)
    _choices(config, "weight_prior_on", fields.WEIGHT_PRIORS)
    _choices(config, "weights", fields.WEIGHTS)
    _choices(config, "weight_noise", fields.WEIGHT_NOISES)
    _choices(config, "schedule", fields.SCHEDULES)
    _choices(config, "eval.curve", fields.CURVES)


def _check_ranges(config: ConfigDict) -> None:
    for name in ("latent_dim", "num_samples", "batch_size", "eval.every"):
        _at_least(config, name, 1)
    for name in ("checkpoint.every", "checkpoint.keep"):
        _at_least(config, name, 1)
    for name in ("eval.chunk_size", "eval.batch_size"):
        _at_least(config, name, 1)
    for name in ("seed", "epochs", "train_samples", "data.num_train", "data.num_valid"):
        _at_least(config, name, 0)
    for name in (
        "eval.num_samples",
        "eval.num_points",
        "eval.probe_points",
        "bias_init_scale",
    ):
        _at_least(config, name, 0)
    for name in ("eval.proxy_samples", "eval.std_error"):
        _at_least(config, name, 0)
    for name in ("hold", "min_scale", "log_variance_init_scale", "prior_shape"):
        _at_least(config, name, 0)
    if not 0 <= config.dream_clip < 0.5:
        raise _error("dream_clip", config.dream_clip, "a probability, 0 or more, < 0.5")
    for name in ("mcem.leapfrog_steps", "mcem.weight_updates"):
        _at_least(config, name, 1)
    _at_least(config, "mcem.chunk_size", 0)
    if not 0 < config.mcem.acceptance < 1:
        raise _error("mcem.acceptance", config.mcem.acceptance, "between 0 and 1")
    for name in ("weight_prior", "beta"):
        _at_least(config, name, 0)
    for name in ("learning_rate", "init_scale", "weight_init_scale"):
        if not get_field(config, name) > 0:
            raise _error(name, get_field(config, name), "greater than 0")
    if not 0 <= config.warmup < 1:
        raise _error("warmup", config.warmup, "a share of training, 0 <= warmup < 1")
    if config.seed >= 2**32:
        raise _error("seed", config.seed, "below 2**32")
    if not config.data.name:
        raise _error("data.name", config.data.name, "a data set's name, such as mnist")
    if not all(type(epoch) is int and epoch >= 1 for epoch in config.checkpoint.at):
        raise _error("checkpoint.at", config.checkpoint.at, "epochs, such as (10, 100)")
    widths = config.hidden_dims
    if not all(type(width) is int and width >= 1 for width in widths):
        raise _error("hidden_dims", widths, "widths of at least 1, such as (500, 500)")


def _check_training(config: ConfigDict) -> None:
    if bool(config.epochs) == bool(config.train_samples):
        raise ConfigError(
            f"config.epochs is {config.epochs} and config.train_samples is "
            f"{config.train_samples}: expected exactly one of them to be positive; set "
            "the other to 0"
        )
    if config.schedule == "burda" and config.warmup:
        raise _error("warmup", config.warmup, "0 with schedule=burda")
    if config.eval.curve == "valid" and not config.data.num_valid:
        raise ConfigError(
            "config.eval.curve is valid and config.data.num_valid is 0: set "
            "config.eval.curve=test or keep validation points"
        )


def _check_likelihood(config: ConfigDict) -> None:
    if config.likelihood == "gaussian" and config.data.binarization != "grey":
        raise ConfigError(
            f"config.likelihood is gaussian and config.data.binarization is "
            f"{config.data.binarization}: a Gaussian likelihood is for real values; "
            "set config.data.binarization=grey"
        )
    if config.likelihood == "gaussian" and config.output_bias_from_data:
        raise ConfigError(
            "config.output_bias_from_data is for likelihood=bernoulli: set it to False"
        )
    for name in ("min_scale", "log_variance_init_scale"):
        if get_field(config, name) and config.likelihood != "gaussian":
            raise _error(name, get_field(config, name), "0 with likelihood=bernoulli")


def _check_posterior(config: ConfigDict) -> None:
    posterior = config.posterior
    if posterior != "normal" and config.algorithm != "aevb":
        raise _error(
            "posterior", posterior, f"normal with algorithm={config.algorithm}"
        )
    if config.estimator == "sgvb_b" and posterior in fields.GENERIC_POSTERIORS:
        raise ConfigError(
            f"config.posterior is {posterior}, whose KL to its prior has no closed "
            "form, and config.estimator is sgvb_b, which needs one: set "
            "config.estimator=sgvb_a or stl"
        )
    if config.prior_shape and posterior not in _SHAPED:
        raise _error("prior_shape", config.prior_shape, f"0 with posterior={posterior}")
    if posterior == "student_t" and 0 < config.prior_shape <= 1:
        # Below, there is no mean.
        raise _error("prior_shape", config.prior_shape, "more than 1 with student_t")
    if posterior == "dirichlet" and config.latent_dim < 2:
        raise _error("latent_dim", config.latent_dim, "at least 2 with dirichlet")


def _check_weights(config: ConfigDict) -> None:
    if config.weights == "point":
        for name in ("weight_noise", "weight_init_scale"):
            if config[name] != base()[name]:
                raise _error(name, config[name], f"{base()[name]} with weights=point")
        return
    if config.algorithm != "aevb":
        raise _error("weights", config.weights, f"point with {config.algorithm}")
    if not config.weight_prior:
        raise ConfigError(
            f"config.weights is {config.weights} and config.weight_prior is 0, "
            "expected the standard deviation of p(theta): set config.weight_prior=1"
        )
    if config.weight_prior_on != base().weight_prior_on:
        raise _error(
            "weight_prior_on",
            config.weight_prior_on,
            f"{base().weight_prior_on} with weights={config.weights}: the prior is on "
            "all that have a posterior",
        )


def _check_algorithm(config: ConfigDict) -> None:
    if config.beta != 1 and config.estimator == "iwae":
        raise _error("beta", config.beta, "1 with estimator=iwae, which has no KL term")
    if config.algorithm != "aevb":
        for name in ("estimator", "num_samples", "beta"):
            if get_field(config, name) != get_field(base(), name):
                raise ConfigError(
                    f"config.{name} is {get_field(config, name)!r} and "
                    f"config.algorithm is {config.algorithm}, which has no such "
                    f"choice: set config.{name}={get_field(base(), name)}"
                )
    if config.dream_clip and (config.algorithm, config.likelihood) != (
        "wake_sleep",
        "bernoulli",
    ):
        raise _error(
            "dream_clip", config.dream_clip, "0 but with wake_sleep and bernoulli"
        )


def _check_optimizer(config: ConfigDict) -> None:
    arguments = optimizer_arguments(config.optimizer_args)
    build = getattr(optax, config.optimizer, None)
    parameters = inspect.signature(build).parameters if callable(build) else {}
    if "learning_rate" not in parameters:
        known = ", ".join(
            name
            for name in sorted(dir(optax))
            if name.islower()
            and callable(getattr(optax, name))
            and "learning_rate" in _parameters(getattr(optax, name))
        )
        raise _error("optimizer", config.optimizer, f"an optax optimizer: {known}")
    for name, value in arguments.items():
        if name not in parameters or name == "learning_rate":
            raise ConfigError(
                f"config.optimizer_args has {name}={value!r}, which optax."
                f"{config.optimizer} does not take: expected among "
                + ", ".join(key for key in parameters if key != "learning_rate")
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise _error("optimizer_args", config.optimizer_args, "finite numbers")


def _parameters(function: Any) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _choices(config: ConfigDict, name: str, choices: Any) -> None:
    if get_field(config, name) not in choices:
        raise _error(
            name, get_field(config, name), "one of " + ", ".join(map(str, choices))
        )


def _at_least(config: ConfigDict, name: str, least: int) -> None:
    if not get_field(config, name) >= least:
        raise _error(name, get_field(config, name), f"at least {least}")


def _error(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"config.{name} is {value!r}, expected {expected}")
