"""From a configuration to the pure functions of a run.

Nothing here touches a file or the clock: `build` returns what `experiments.training`
jits, and what a sweep puts under `jax.vmap`.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

import aevb
from aevb import nets
from experiments.config import ACTIVATIONS, INITIALIZERS, optimizer_arguments
from experiments.data import Dataset, load
from experiments.errors import ConfigError
from experiments.keys import Stream, initial_key, stream_key

__all__ = [
    "Hyperparameters",
    "Program",
    "aevb_algorithm",
    "binarize",
    "build",
    "hyperparameters",
    "initial_state",
    "load_dataset",
    "remembering_loader",
]

# Training images of more are streamed, with config.data.stream=auto.
STREAM_BYTES = 2**31
_PRODUCTS = {
    "float32": nets.float32_dot_general,
    "tensorfloat32": nets.tensorfloat32_dot_general,
    "bfloat16": nets.bfloat16_dot_general,
}

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


class Program(NamedTuple):
    """The pure functions of a run.

    Attributes:
      model: encoder, decoder and prior, with the products of `config.precision`.
      likelihood_model: the same with those of `config.eval.precision`: what log p(x) is
        estimated with. Both have the same parameters.
      init: `init(key) -> params`.
      algorithm: `algorithm(hyperparameters, axis_name=None) -> aevb.Algorithm`; with a
        mapped axis' name, of a minibatch that is split over it.
      transform: `transform(key, x) -> x`: bytes `[D]` to a training input in [0, 1].
      to_input: `to_input(x) -> x`: bytes `[D]` of a *prepared* evaluation split to an
        input.
      train: `[N, D]` uint8, what `transform` is applied to.
      valid: `[N, D]` uint8, prepared: binarised once, unless grey.
      test: `[N, D]` uint8, prepared.
      num_epochs: epochs of the run.
      steps_per_epoch: updates of an epoch.
      is_likelihood: whether log p(x|z) is one: not for grey pixels under a Bernoulli.
      is_streamed: whether `train` is read from the disk while training.
    """

    model: aevb.Model
    likelihood_model: aevb.Model
    init: Callable[[jax.Array], Any]
    algorithm: Callable[..., aevb.Algorithm]
    transform: Callable[[jax.Array, jax.Array], jax.Array]
    to_input: Callable[[jax.Array], jax.Array]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    num_epochs: int
    steps_per_epoch: int
    is_likelihood: bool
    is_streamed: bool


def build(
    config: ConfigDict,
    dataset: Dataset,
    *,
    algorithm: Callable[..., aevb.Algorithm] | None = None,
) -> Program:
    """Builds a run's functions from a validated configuration and its data.

    Args:
      config: validated.
      dataset: its data.
      algorithm: how the model is trained, called as `aevb_algorithm` is, which is the
        default.

    Raises:
      ConfigError: the configuration does not fit the data.
    """
    num_train = len(dataset.train.images)
    if config.precision == "auto":
        raise ConfigError(
            "config.precision is auto, expected the one that was chosen: see "
            "experiments.training.precision.settle, or set float32 or bfloat16"
        )
    if config.batch_size > num_train:
        raise ConfigError(
            f"config.batch_size is {config.batch_size}, expected at most the "
            f"{num_train} training images of {dataset.name}"
        )
    steps_per_epoch = num_train // config.batch_size
    samples_per_epoch = steps_per_epoch * config.batch_size
    num_epochs = config.epochs or math.ceil(config.train_samples / samples_per_epoch)

    model = _model(config, dataset, config.precision)
    binarization, scale = config.data.binarization, config.data.scale
    draw = jax.jit(jax.vmap(partial(binarize, scale=scale)))

    def prepare(images: np.ndarray, stream: Stream) -> np.ndarray:
        if binarization == "grey" or not len(images):
            return images
        key = stream_key(stream)
        return np.asarray(draw(jax.random.split(key, len(images)), images))

    def to_input(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        return x / scale if binarization == "grey" else x

    def transform(key: jax.Array, x: jax.Array) -> jax.Array:
        return to_input(binarize(key, x, scale) if binarization == "dynamic" else x)

    train = dataset.train.images
    is_streamed = config.data.stream == "always" or (
        config.data.stream == "auto" and train.nbytes > STREAM_BYTES
    )
    if is_streamed and binarization == "static":
        raise ConfigError(
            "config.data.binarization is static, whose pixels are drawn once, in "
            f"memory, and the training images ({train.nbytes / 2**20:,.0f} MiB) are "
            "streamed: set config.data.binarization=dynamic or config.data.stream=never"
        )
    example = jnp.zeros(train.shape[1])
    return Program(
        model=model,
        likelihood_model=_model(config, dataset, config.eval.precision),
        init=lambda key: model.init(key, example),
        algorithm=partial(
            algorithm or aevb_algorithm,
            config,
            model,
            num_train,
            num_epochs * steps_per_epoch,
        ),
        transform=transform,
        to_input=to_input,
        train=prepare(train, Stream.TRAIN_PIXELS)
        if binarization == "static"
        else train,
        valid=prepare(dataset.valid.images, Stream.VALID_PIXELS),
        test=prepare(dataset.test.images, Stream.TEST_PIXELS),
        num_epochs=num_epochs,
        steps_per_epoch=steps_per_epoch,
        is_likelihood=config.likelihood == "gaussian" or binarization != "grey",
        is_streamed=is_streamed,
    )


def load_dataset(config: ConfigDict) -> Dataset:
    """The data that a configuration names, split as it says.

    Raises:
      DataError: they cannot be read.
    """
    return load(
        config.data.name,
        config.data.path,
        num_valid=config.data.num_valid,
        num_train=config.data.num_train,
    )


def remembering_loader() -> Callable[[ConfigDict], Dataset]:
    """`load_dataset` that keeps the last data set: runs side by side mostly share one.

    Returns:
      `load(config) -> Dataset`.
    """
    last: dict[tuple, Dataset] = {}

    def remembered(config: ConfigDict) -> Dataset:
        fields = config.data
        key = (fields.name, fields.path, fields.num_valid, fields.num_train)
        if key not in last:
            last.clear()
            last[key] = load_dataset(config)
        return last[key]

    return remembered


def hyperparameters(config: ConfigDict) -> Hyperparameters:
    """A configuration's own."""
    return Hyperparameters(config.learning_rate, config.weight_prior, config.beta)


def initial_state(
    program: Program, seed: jax.Array | int, hyperparameters: Hyperparameters
) -> aevb.State:
    """The state before the first step; everything may be traced."""
    params = program.init(initial_key(seed))
    return program.algorithm(hyperparameters).init(params)


def binarize(key: jax.Array, x: jax.Array, scale: int = 255) -> jax.Array:
    """Draws binary pixels with P(1) = x / scale, by comparing integers.

    Args:
      key: consumed.
      x: `[D]` uint8 pixels.
      scale: 255, or 256 as in the author's code. Sixteen random bits a pixel keep the
        probability within 2**-16; eight could not make P = 1 for a byte of 255, which
        costs about half a nat an image.

    Returns:
      `[D]` uint8, 0 or 1.
    """
    # A random word has two pixels' bits: a hash of each pixel's own costs twice.
    words = jax.random.bits(key, ((x.size + 1) // 2,), jnp.uint32)
    bits = jnp.concatenate([words >> 16, words & 0xFFFF])[: x.size].astype(jnp.uint16)
    return (bits < x.astype(jnp.uint16) * (65536 // scale)).astype(jnp.uint8)


def _model(config: ConfigDict, dataset: Dataset, precision: str) -> aevb.Model:
    data_dim = dataset.train.images.shape[1]
    shared: dict[str, Any] = {
        "activation": ACTIVATIONS[config.activation],
        "kernel_init": INITIALIZERS[config.init](config.init_scale),
        "bias_init": nn.initializers.normal(config.bias_init_scale),
        "dot_general": _PRODUCTS[precision],
    }
    widths = tuple(config.hidden_dims)
    encoder = nets.GaussianMLP(config.latent_dim, widths, **shared)
    if config.likelihood == "gaussian":
        decoder: nn.Module = nets.GaussianMLP(
            data_dim, widths[::-1], mean_activation=nn.sigmoid, **shared
        )
        return nets.linen_model(encoder, decoder)

    output_bias_init = None
    if config.output_bias_from_data:
        # Clipped as in Burda et al.'s code: some pixels are 0 in every image.
        mean = dataset.train.images.mean(axis=0) / config.data.scale
        mean = np.clip(mean, 1e-3, 1 - 1e-3)
        logit = jnp.asarray(np.log(mean) - np.log1p(-mean), jnp.float32)
        output_bias_init = nn.initializers.constant(logit)
    decoder = nets.BernoulliMLP(
        data_dim, widths[::-1], output_bias_init=output_bias_init, **shared
    )
    return nets.linen_model(encoder, decoder)


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
    log_prior = None
    if config.weight_prior:
        log_prior = partial(aevb.log_weight_prior, scale=hyperparameters.weight_prior)
    objective = aevb.map_objective(
        _bound(config, model, hyperparameters.beta),
        num_datapoints=num_train,
        log_prior=log_prior,
        axis_name=axis_name,
    )
    # The paper's Adagrad starts its sum of squares at 0 (optax: 0.1).
    defaults = (
        {"initial_accumulator_value": 0.0} if config.optimizer == "adagrad" else {}
    )
    optimizer = getattr(optax, config.optimizer)(
        _schedule(config, hyperparameters.learning_rate, num_steps),
        **(
            defaults
            | optimizer_arguments(config.optimizer_args)
            | dict(hyperparameters.optimizer_args)
        ),
    )
    return aevb.gradient_algorithm(objective, optimizer, axis_name=axis_name)


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
        return learning_rate * rise * decay(step)

    return schedule
