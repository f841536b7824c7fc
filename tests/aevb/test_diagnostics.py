"""Pareto k-hat, R-hat, effective sample size, and the log of a mean of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from numpyro import diagnostics
from numpyro.infer.importance import _psis_khat

import aevb
from aevb.marginal.diagnostics import log_mean_weight

pareto_k = jax.jit(aevb.pareto_k, static_argnames="num_samples")
effective_sample_size = jax.jit(aevb.effective_sample_size)


WEIGHTS = {
    "light": lambda rng, n: rng.uniform(size=n),
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: 3 * rng.normal(size=n),
    "pareto": lambda rng, n: rng.exponential(size=n),
    "ties": lambda rng, n: np.round(rng.normal(size=n), 1),
}


@pytest.mark.parametrize("num_samples", [30, 5000])
@pytest.mark.parametrize("name", WEIGHTS)
def test_pareto_k_is_numpyros(name, num_samples):
    log_w = WEIGHTS[name](np.random.default_rng(0), num_samples) - 500
    with jax.enable_x64(True):
        k = pareto_k(jnp.asarray(log_w))
    np.testing.assert_allclose(k, _psis_khat(log_w), rtol=1e-8)
    log_w = log_w.astype(np.float32)
    expected = _psis_khat(log_w.astype(np.float64))
    np.testing.assert_allclose(pareto_k(jnp.asarray(log_w)), expected, atol=2e-3)


def test_pareto_k_where_it_cannot_be_fitted():
    assert pareto_k(jnp.zeros(20)) == jnp.inf  # too few
    assert pareto_k(jnp.zeros(1000)) == -jnp.inf  # all weights equal
    assert pareto_k(jnp.zeros(1000).at[3].set(200.0)) == jnp.inf  # one weight
    assert pareto_k(jnp.full(1000, -jnp.inf)) == jnp.inf  # no weight
    with pytest.raises(ValueError, match="largest 214 of 5000"):
        pareto_k(jnp.zeros(10), num_samples=5000)


def test_log_mean_weight_is_the_log_of_the_mean():
    log_w = np.random.default_rng(0).normal(size=50).astype(np.float32)
    w = np.exp(log_w.astype(np.float64))
    mean = log_mean_weight(jnp.asarray(log_w - 300))  # exp(-300) underflows
    np.testing.assert_allclose(mean.value, np.log(w.mean()) - 300, rtol=1e-6)
    np.testing.assert_allclose(mean.ess, w.sum() ** 2 / (w**2).sum(), rtol=1e-4)
    # The delta method: the standard deviation of the weights over their mean, / sqrt C.
    std_error = w.std() / w.mean() / np.sqrt(50)
    np.testing.assert_allclose(mean.std_error, std_error, rtol=1e-4)


def test_split_r_hat_is_numpyros():
    rng = np.random.default_rng(0)
    zs = rng.normal(size=(4, 100, 2)) + rng.normal(size=(4, 1, 2))
    expected = diagnostics.split_gelman_rubin(zs)
    assert expected[0] < 1.1 < expected[1]
    with jax.enable_x64(True):
        r_hat = aevb.split_r_hat({"a": jnp.asarray(zs), "b": jnp.asarray(zs[..., 0])})
    np.testing.assert_allclose(r_hat["a"], expected, rtol=1e-10)
    np.testing.assert_allclose(r_hat["b"], expected[0], rtol=1e-10)


def autoregression(phi, shape, seed=0):
    """Stationary chains z_t = phi z_{t-1} + sqrt(1 - phi²) ε. `[C, L, ...]`"""
    noise = np.random.default_rng(seed).normal(size=shape)
    noise[:, 1:] *= np.sqrt(1 - phi**2)
    return scipy.signal.lfilter([1], [1, -phi], noise, axis=1)


@pytest.mark.parametrize("shape", [(4, 100, 2), (3, 57), (2, 4), (1, 101, 2), (1, 20)])
def test_effective_sample_size_is_numpyros(shape):
    for phi in (-0.5, 0.0, 0.9):
        zs = autoregression(phi, shape)
        expected = diagnostics.effective_sample_size(zs)
        # Numpyro's is not bounded, and of a few draws it may be negative.
        bound = np.prod(shape[:2]) * np.log10(np.prod(shape[:2]))
        expected = np.where(expected > 0, np.minimum(expected, bound), bound)
        with jax.enable_x64(True):
            size = effective_sample_size(jnp.asarray(zs))
        np.testing.assert_allclose(size, expected, rtol=1e-10)


# The standard error is that of one dimension of twenty, measured.
@pytest.mark.parametrize(
    ("phi", "std_error"), [(-0.5, 0.05), (0.0, 0.02), (0.5, 0.03), (0.9, 0.1)]
)
def test_effective_sample_size_of_an_autoregression(phi, std_error):
    """1 + 2 Σ phi^t = (1 + phi) / (1 - phi): below one where draws are antithetic."""
    zs = jnp.asarray(autoregression(phi, (4, 5000, 20)), jnp.float32)
    relative = effective_sample_size(zs) / (4 * 5000) * (1 + phi) / (1 - phi)
    np.testing.assert_allclose(relative, 1, rtol=4.9 * std_error)
    np.testing.assert_allclose(np.mean(relative), 1, rtol=4.9 * std_error / 20**0.5)


def test_antithetic_draws_tell_more_than_independent_ones():
    zs = jnp.asarray(autoregression(-0.5, (4, 5000, 20)), jnp.float32)
    assert np.all(effective_sample_size(zs) > 2 * 4 * 5000)


def test_the_variance_of_a_mean_is_that_of_a_draw_over_the_effective_size():
    zs = autoregression(0.8, (4, 400, 500))
    size = effective_sample_size(jnp.asarray(zs, jnp.float32))
    relative = np.var(np.mean(zs, axis=(0, 1))) * np.mean(size)
    assert abs(relative - 1) < 4.9 * np.sqrt(2 / 500)  # that of a variance


def test_chains_in_different_places_are_worth_less_than_a_draw_each():
    zs = autoregression(0.0, (4, 1000, 3)) + 100 * np.arange(4).reshape(4, 1, 1)
    size = effective_sample_size(jnp.asarray(zs, jnp.float32))
    assert np.all((size > 1) & (size < 4))


def test_effective_sample_size_of_a_pytree_is_that_of_its_leaves():
    zs = jnp.asarray(autoregression(0.5, (2, 50, 2, 3)), jnp.float32)
    sizes = effective_sample_size({"a": zs, "b": (zs[:, :, 0, 0],)})
    assert jax.tree.map(jnp.shape, sizes) == {"a": (2, 3), "b": ((),)}
    np.testing.assert_allclose(sizes["a"], effective_sample_size(zs), rtol=1e-4)
    np.testing.assert_allclose(sizes["b"][0], sizes["a"][0, 0], rtol=1e-4)


def test_effective_sample_size_of_a_chain_that_never_moves_is_nan():
    zs = jnp.zeros((2, 50, 2)).at[:, :, 1].set(autoregression(0.0, (2, 50)))
    size = effective_sample_size(zs)
    assert np.isnan(size[0])
    assert size[1] > 50


@pytest.mark.parametrize("num_draws", [0, 1, 3])
def test_effective_sample_size_of_fewer_than_four_draws_is_refused(num_draws):
    message = f"draws of a chain is {num_draws}, expected an integer of at least 4"
    with pytest.raises(ValueError, match=message):
        aevb.effective_sample_size(jnp.zeros((2, num_draws)))
