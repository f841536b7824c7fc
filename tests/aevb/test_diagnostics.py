"""Pareto k-hat, R-hat, and the log of a mean of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer.importance import _psis_khat

import aevb
from aevb.marginal.diagnostics import log_mean_weight

pareto_k = jax.jit(aevb.pareto_k, static_argnames="num_samples")


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
    expected = split_gelman_rubin(zs)
    assert expected[0] < 1.1 < expected[1]
    with jax.enable_x64(True):
        r_hat = aevb.split_r_hat({"a": jnp.asarray(zs), "b": jnp.asarray(zs[..., 0])})
    np.testing.assert_allclose(r_hat["a"], expected, rtol=1e-10)
    np.testing.assert_allclose(r_hat["b"], expected[0], rtol=1e-10)
