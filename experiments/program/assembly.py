"""From a configuration to the pure functions of a run.

Nothing here touches a file or the clock: `build` returns what `experiments.training`
jits, and what a sweep puts under `jax.vmap`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import aevb
from experiments.data import Dataset, load
from experiments.errors import ConfigError
from experiments.keys import Stream, initial_key, stream_key
from experiments.program.algorithms import ALGORITHMS, Hyperparameters, sixteen_bits
from experiments.program.models import build_model, draw_weights, likelihood_model
from experiments.program.posteriors import family_of

__all__ = [
    "Program",
    "binarize",
    "build",
    "drawn_once",
    "hyperparameters",
    "initial_state",
    "load_dataset",
    "remembering_loader",
]

# Training images of more are streamed, with config.data.stream=auto.
STREAM_BYTES = 2**31


class Program(NamedTuple):
    """The pure functions of a run.

    Attributes:
      model: encoder, decoder and prior, with the products of `config.precision`.
      likelihood_model: the same with those of `config.eval.precision`, and a latent of
        real numbers: what log p(x) is estimated with. The parameters are the same.
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
      has_encoder: whether the model has a q(z|x), and so a bound: not with MCEM.
      draw_weights: `draw_weights(key, params) -> params`, what one datapoint's bound is
        evaluated with: a draw, where the weights have a posterior; else as they are.
      latent_scale: the standard deviation of a dimension of the prior.
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
    has_encoder: bool
    draw_weights: Callable[[jax.Array, Any], Any]
    latent_scale: float


def build(config: ConfigDict, dataset: Dataset) -> Program:
    """Builds a run's functions from a validated configuration and its data.

    Args:
      config: validated.
      dataset: its data.

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

    model = build_model(config, dataset, config.precision)
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
        likelihood_model=likelihood_model(
            config, build_model(config, dataset, config.eval.precision), example
        ),
        init=lambda key: model.init(key, example),
        algorithm=partial(
            ALGORITHMS[config.algorithm],
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
        has_encoder=config.algorithm != "mcem",
        draw_weights=partial(draw_weights, config),
        latent_scale=family_of(config).scale,
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


def drawn_once(
    config: ConfigDict, program: Program, index: jax.Array, image: jax.Array
) -> jax.Array:
    """A training image as the model sees it; pixels of dynamic ones are drawn once.

    Args:
      config: of the run.
      program: of the run.
      index: of the image among the training images.
      image: `[D]` of `program.train`.

    Returns:
      x `[D]`.
    """
    if config.data.binarization == "dynamic":
        key = jax.random.fold_in(stream_key(Stream.TRAIN_PIXELS), index)
        image = binarize(key, image, config.data.scale)
    return program.to_input(image)


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
    bits = sixteen_bits(key, x.size).astype(jnp.uint16)
    return (bits < x.astype(jnp.uint16) * (65536 // scale)).astype(jnp.uint8)
