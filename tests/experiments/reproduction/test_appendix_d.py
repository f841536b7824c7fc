"""Appendix D's estimator as Fig. 3 has it, where log p(x) is known."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevb
from aevb import testing
from experiments.reproduction.appendix_d import (
    AppendixE,
    _log_likelihood,
    appendix_d,
)

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def found():
    """Of 40 draws of a linear-Gaussian model with two latents; log p(x) beside it."""
    weights = jnp.array([[1.0, 0.8], [-0.3, 0.4], [0.7, 0.6], [0.2, -1.0]])
    exact = testing.linear_gaussian(weights, jnp.zeros(4), -0.5)

    def encode(params, x):
        raise AssertionError("no encoder is used")

    model = aevb.Model(lambda key, x: None, encode, lambda params, z: exact.decode(z))
    keys = jax.random.split(KEY, 40)

    def draw(key):
        z_key, x_key = jax.random.split(key)
        return exact.decode(jax.random.normal(z_key, (2,))).sample(x_key)

    xs = jax.vmap(draw)(keys)
    estimator = appendix_d(model, 2, AppendixE(), with_truth=True)
    run = jax.jit(jax.vmap(partial(estimator.function, None)))
    values = run(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), xs)
    truth = jax.vmap(exact.log_likelihood)(xs)
    return jax.tree.map(np.asarray, (values, truth))


def test_quadrature_is_the_truth(found):
    values, truth = found
    np.testing.assert_allclose(values["truth"], truth, atol=2e-3)
    # The grid around the draws, before it is moved to what it found.
    np.testing.assert_allclose(values["first"], truth, atol=0.02)


def test_appendix_d_is_near_the_truth(found):
    values, truth = found
    error = values["log_likelihood"] - truth
    assert abs(error.mean()) < 0.25
    assert error.std() < 0.5


def test_importance_sampling_is_the_truth_and_not_above_it(found, z_score):
    values, truth = found
    error = values["importance"] - truth
    assert np.abs(error).max() < 0.2
    assert z_score(np.exp(error), 1.0) == pytest.approx(0, abs=4.9)


def test_a_narrow_second_mode_is_found():
    """Two modes far apart: more prior draws lie in one, more mass in the other."""
    means = jnp.array([[-2.0, 0.0], [2.0, 0.5]])

    class Bumps(NamedTuple):
        """log p(x|z), as a function of z alone: two Gaussian bumps."""

        z: jax.Array

        def log_prob(self, x):
            wide = -0.5 * jnp.sum((self.z - means[0]) ** 2) / 0.3**2
            narrow = 12 - 0.5 * jnp.sum((self.z - means[1]) ** 2) / 0.04**2
            return jnp.logaddexp(wide, narrow) + 0 * jnp.sum(x)

    model = aevb.Model(lambda key, x: None, None, lambda params, z: Bumps(z))
    estimator = appendix_d(model, 2, AppendixE(), with_truth=True)
    found = jax.jit(partial(estimator.function, None))(KEY, jnp.zeros(1))
    # In closed form: a product of Gaussians.
    truth = -jnp.inf
    for mean, scale, height in ((means[0], 0.3, 0.0), (means[1], 0.04, 12.0)):
        spread = 1 + scale**2
        log_mass = height + 2 * jnp.log(scale) - jnp.log(spread)
        log_mass -= 0.5 * jnp.sum(mean**2) / spread
        truth = jnp.logaddexp(truth, log_mass)
    assert float(found["truth"]) == pytest.approx(float(truth), abs=0.01)
    assert float(found["log_likelihood"]) == pytest.approx(float(truth), abs=0.5)


def test_prior_draws_are_weighed_by_the_likelihood():
    keys = jax.random.split(KEY, 3)
    xs = jax.random.bernoulli(keys[0], shape=(5, 30)).astype(jnp.float32)
    loc = 3 * jax.random.normal(keys[1], (30,))
    for p in (aevb.Bernoulli(loc), aevb.DiagNormal(loc, jnp.zeros(30))):
        weights = jax.vmap(partial(_log_likelihood, p))(xs)
        np.testing.assert_allclose(weights, jax.vmap(p.log_prob)(xs), rtol=1e-5)


def test_the_chains_mix(found):
    values, _ = found
    assert values["acceptance"].mean() == pytest.approx(0.9, abs=0.08)
    assert np.quantile(values["r_hat"], 0.9) < 1.3
