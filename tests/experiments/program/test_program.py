"""Binarisation, schedules and optimizers: what a configuration is turned into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data, program
from experiments.config import base
from experiments.program import algorithms

# optax.adagrad counts its steps in int32.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.load("mnist", num_valid=100, num_train=300, num_test=100)


@pytest.mark.parametrize("scale", [255, 256])
def test_binarize_draws_one_with_the_pixel_s_probability(scale):
    num_draws = 20_000
    pixels = jnp.arange(256, dtype=jnp.uint8)
    keys = jax.random.split(jax.random.key(0), num_draws)
    draws = jax.vmap(lambda key: program.binarize(key, pixels, scale))(keys)
    assert draws.dtype == jnp.uint8
    p = np.arange(256) / scale
    found = np.asarray(draws, np.float64).mean(axis=0)
    error = np.sqrt(np.maximum(p * (1 - p), 2.0**-16) / num_draws)
    assert np.all(np.abs(found - p) < 5.5 * error + 2.0**-16)
    assert found[0] == 0


def test_binarize_at_255_leaves_a_white_pixel_white():
    white = jnp.full(1_000_000, 255, jnp.uint8)
    drawn = program.binarize(jax.random.key(1), white)
    assert int(jnp.sum(drawn == 0)) < 60  # 2**-16 of them: 15 expected


@pytest.mark.parametrize("size", [1, 2, 9, 10])
def test_binarize_draws_pixels_independently(size):
    # Two pixels share a random word: each has half of its bits.
    num_draws = 20_000
    pixels = jnp.full(size, 100, jnp.uint8)
    keys = jax.random.split(jax.random.key(2), num_draws)
    draws = jax.vmap(lambda key: program.binarize(key, pixels))(keys)
    assert draws.shape == (num_draws, size)
    correlation = np.corrcoef(np.asarray(draws, np.float64), rowvar=False)
    apart = np.atleast_2d(correlation)[~np.eye(size, dtype=bool)]
    assert np.all(np.abs(apart) < 4.5 / num_draws**0.5)


def test_evaluation_splits_are_binarised_once_whatever_the_seed(dataset):
    config = base()
    config.hidden_dims = (4,)
    first = program.build(config, dataset)
    config.seed = 5
    second = program.build(config, dataset)
    np.testing.assert_array_equal(first.test, second.test)
    np.testing.assert_array_equal(first.valid, second.valid)
    assert set(np.unique(first.test)) == {0, 1}
    assert not np.array_equal(first.test, first.valid)
    np.testing.assert_array_equal(first.train, dataset.train.images)


def test_static_training_images_are_binary_and_grey_ones_are_untouched(dataset):
    config = base()
    config.hidden_dims = (4,)
    config.data.binarization = "static"
    static = program.build(config, dataset)
    assert set(np.unique(static.train)) == {0, 1}
    key = jax.random.key(0)
    x = static.transform(key, jnp.asarray(static.train[0]))
    np.testing.assert_array_equal(x, static.train[0].astype(np.float32))
    config.data.binarization = "grey"
    grey = program.build(config, dataset)
    assert not grey.is_likelihood
    x = grey.transform(key, jnp.asarray(grey.train[0]))
    np.testing.assert_allclose(x, dataset.train.images[0] / 255, rtol=1e-6)


def step_sizes(config, dataset, steps):
    """The step sizes as the updates show them, through sgd on a known gradient."""
    algorithm_schedule = algorithms._schedule(config, config.learning_rate, steps)
    return np.array([float(algorithm_schedule(jnp.array(t))) for t in range(steps)])


def test_cosine_falls_from_the_step_size_to_zero_after_its_warmup(dataset):
    config = base()
    config.schedule, config.warmup, config.learning_rate = "cosine", 0.1, 2.0
    sizes = step_sizes(config, dataset, 100)
    np.testing.assert_allclose(sizes[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-5)
    expected = 1 + np.cos(np.pi * np.arange(90) / 90)
    np.testing.assert_allclose(sizes[10:], expected, rtol=1e-4, atol=1e-6)


def test_burda_s_stages_are_the_paper_s_passes(dataset):
    config = base()
    config.schedule, config.warmup, config.learning_rate = "burda", 0.0, 1e-3
    sizes = step_sizes(config, dataset, 3280)
    found, counts = np.unique(np.round(sizes, 12), return_counts=True)
    np.testing.assert_array_equal(counts[::-1], 3 ** np.arange(8))
    np.testing.assert_allclose(found[::-1], 1e-3 * 10 ** (-np.arange(8) / 7), rtol=1e-4)


def test_adagrad_starts_its_sum_of_squares_at_zero(dataset):
    # Then the first step is the step size on every coordinate: g / sqrt(g^2).
    config = base()
    config.hidden_dims = (4,)
    config.optimizer, config.optimizer_args = "adagrad", "eps=1e-20"
    config.learning_rate, config.batch_size = 0.02, 100
    config.schedule, config.warmup = "constant", 0.0
    built = program.build(config, dataset)
    algorithm = built.algorithm(program.Hyperparameters(0.02, 0.0))
    params = jax.jit(built.init)(jax.random.key(0))
    batch = jax.vmap(built.to_input)(jnp.asarray(built.valid))
    state, _ = jax.jit(algorithm.update)(
        jax.random.key(1), algorithm.init(params), batch
    )
    moved = np.asarray(
        state.params["decoder"]["logits"]["bias"] - params["decoder"]["logits"]["bias"]
    )
    np.testing.assert_allclose(np.abs(moved), 0.02, rtol=1e-4)


def test_the_output_bias_starts_at_the_mean_image(dataset):
    config = base()
    config.hidden_dims = (4,)
    params = program.build(config, dataset).init(jax.random.key(0))
    mean = np.clip(dataset.train.images.mean(axis=0) / 255, 1e-3, 1 - 1e-3)
    bias = params["decoder"]["logits"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), mean, rtol=1e-4)


@pytest.mark.parametrize("estimator", ["sgvb_a", "sgvb_b", "stl"])
def test_beta_weighs_the_kl_in_the_objective_and_not_in_the_bound(dataset, estimator):
    config = base()
    config.hidden_dims, config.estimator = (4,), estimator
    built = program.build(config, dataset)
    batch = jax.vmap(built.to_input)(jnp.asarray(built.valid))
    params = jax.jit(built.init)(jax.random.key(0))

    @jax.jit
    def first_step(beta):
        algorithm = built.algorithm(program.Hyperparameters(1e-3, 0.0, beta))
        return algorithm.update(jax.random.key(1), algorithm.init(params), batch)[1]

    plain, weighed = first_step(1.0), first_step(3.0)
    np.testing.assert_allclose(plain.objective, plain.aux["bound"], rtol=1e-6)
    for name in ("bound", "reconstruction", "kl"):
        np.testing.assert_array_equal(weighed.aux[name], plain.aux[name])
    expected = plain.aux["reconstruction"] - 3 * plain.aux["kl"]
    np.testing.assert_allclose(weighed.objective, expected, rtol=1e-6)
    assert weighed.grad_norm != plain.grad_norm


def test_a_remembering_loader_reads_the_same_data_once(monkeypatch):
    reads = []

    def load(config):
        reads.append(config.data.num_valid)
        return object()

    monkeypatch.setattr(program.assembly, "load_dataset", load)
    loader, config = program.remembering_loader(), base()
    first = loader(config)
    config.seed = 3  # of no matter to the data
    assert loader(config) is first
    config.data.num_valid = 7
    assert loader(config) is not first
    assert reads == [10_000, 7]
