import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import aevb

KEY = jax.random.key(0)
PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([4.0, -1.0])}


def squared_error(w, key, x):
    """A "bound" with something beside it."""
    return -((w - x) ** 2), {"x": x, "double": 2 * x}


def no_bound(params, key, x):
    return jnp.zeros(()), None


def test_dataset_bound_is_unbiased_over_minibatches():
    """The mean over all minibatches is the dataset's sum (eq. 8)."""
    bounds = np.random.default_rng(0).normal(size=7).astype(np.float32)
    for size in (1, 3, 7):
        minibatches = jnp.array(list(itertools.combinations(bounds, size)))
        estimates = jax.vmap(lambda batch: aevb.dataset_bound(batch, 7))(minibatches)
        np.testing.assert_allclose(np.mean(estimates), bounds.sum(), rtol=1e-5)


def test_objective_is_eq_8_and_the_log_prior_per_datapoint():
    objective = aevb.map_objective(
        squared_error, num_datapoints=10, log_prior=lambda w: -3 * w**2
    )
    batch = np.array([1.0, 4.0, -2.0], np.float32)
    value, aux = objective(jnp.float32(0.5), KEY, batch)
    truth = (10 / 3 * -np.sum((0.5 - batch) ** 2) - 3 * 0.5**2) / 10
    np.testing.assert_allclose(value, truth, rtol=1e-6)
    assert aux == {"x": 1.0, "double": 2.0}  # means over the minibatch


def test_without_a_prior_it_is_the_mean_bound():
    objective = aevb.map_objective(squared_error, num_datapoints=60_000)
    batch = np.array([1.0, 4.0, -2.0], np.float32)
    value, _ = objective(jnp.float32(0.5), KEY, batch)
    np.testing.assert_allclose(value, -np.mean((0.5 - batch) ** 2), rtol=1e-6)


def test_datapoint_i_uses_the_key_folded_with_i():
    def bound(params, key, x):
        return x * jax.random.normal(key), None

    batch = jnp.array([1.0, 10.0, 100.0])
    value, _ = aevb.map_objective(bound, num_datapoints=3)(None, KEY, batch)
    noise = [jax.random.normal(jax.random.fold_in(KEY, i)) for i in range(3)]
    np.testing.assert_allclose(value, np.mean(np.array(noise) * batch), rtol=1e-6)


@pytest.mark.parametrize("only_matrices", [True, False])
def test_log_weight_prior_is_scipys(only_matrices):
    value = aevb.log_weight_prior(PARAMS, scale=0.7, only_matrices=only_matrices)
    weights = [PARAMS["w"]] if only_matrices else PARAMS.values()
    truth = sum(scipy.stats.norm.logpdf(w, scale=0.7).sum() for w in weights)
    np.testing.assert_allclose(value, truth, rtol=1e-6)


def test_log_weight_prior_of_biases_alone_is_zero():
    assert aevb.log_weight_prior({"b": jnp.ones(3)}) == 0


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("only_matrices", [True, False])
def test_the_pull_of_the_prior_is_w_over_n_per_datapoint(scale, only_matrices):
    """With standard deviation s it is w / (N s²)."""

    def log_prior(params):
        return aevb.log_weight_prior(params, scale=scale, only_matrices=only_matrices)

    objective = aevb.map_objective(no_bound, num_datapoints=50, log_prior=log_prior)
    pull = jax.grad(lambda params: objective(params, KEY, jnp.zeros(5))[0])(PARAMS)
    truth = jax.tree.map(lambda w: -np.asarray(w) / (50 * scale**2), PARAMS)
    if only_matrices:
        truth["b"] = np.zeros(2)
    for name, expected in truth.items():
        np.testing.assert_allclose(pull[name], expected, rtol=1e-6)


def test_the_scale_may_be_traced():
    scales = jnp.array([0.5, 1.0, 2.0])

    def log_prior(scale):
        return aevb.log_weight_prior(PARAMS, scale=scale)

    values = jax.jit(jax.vmap(log_prior))(scales)
    singles = [log_prior(float(scale)) for scale in scales]
    np.testing.assert_allclose(values, singles, rtol=1e-6)


def test_float32_weights_stay_float32_under_x64(float64):
    params = jax.tree.map(lambda w: w.astype(jnp.float32), PARAMS)
    objective = aevb.map_objective(
        squared_error, num_datapoints=4, log_prior=lambda w: aevb.log_weight_prior([w])
    )
    assert aevb.log_weight_prior(params).dtype == jnp.float32
    x, w = jnp.zeros(2, jnp.float32), jnp.zeros((), jnp.float32)
    assert jax.eval_shape(objective, w, KEY, x)[0].dtype == jnp.float32


def test_a_bound_that_is_not_a_scalar_is_an_error():
    def per_pixel(params, key, x):
        return x - params, None

    objective = aevb.map_objective(per_pixel, num_datapoints=5)
    with pytest.raises(ValueError, match=r"bounds have shape \(3, 4\), expected \[M\]"):
        jax.eval_shape(objective, jnp.float32(0), KEY, jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"bounds have shape \(\), expected \[M\]"):
        aevb.dataset_bound(jnp.float32(1), 5)
