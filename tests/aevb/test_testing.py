from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import aevb
from aevb import testing

SIZES = [(1, 1), (4, 2), (2, 3), (20, 6)]  # D, J
each_size = pytest.mark.parametrize("size", SIZES)


def parameters(data_dim, latent_dim):
    rng = np.random.default_rng(data_dim)
    weights = rng.normal(size=(data_dim, latent_dim))
    return weights, rng.normal(size=data_dim), 0.3, rng.normal(size=data_dim)


@pytest.mark.usefixtures("float64")
class TestLinearGaussian:
    """Against the joint Gaussian of (x, z), conditioned and marginalised by numpy."""

    @each_size
    def test_log_likelihood_is_scipys(self, size):
        weights, bias, log_scale, x = parameters(*size)
        model = testing.linear_gaussian(jnp.asarray(weights), bias, log_scale)
        covariance = weights @ weights.T + np.exp(2 * log_scale) * np.eye(size[0])
        truth = scipy.stats.multivariate_normal.logpdf(x, bias, covariance)
        np.testing.assert_allclose(model.log_likelihood(x), truth, rtol=1e-11)

    @each_size
    def test_posterior_is_the_conditional_of_the_joint(self, size):
        weights, bias, log_scale, x = parameters(*size)
        posterior = testing.linear_gaussian(
            jnp.asarray(weights), bias, log_scale
        ).posterior(x)
        marginal = weights @ weights.T + np.exp(2 * log_scale) * np.eye(size[0])
        gain = np.linalg.solve(marginal, weights).T
        covariance = np.eye(size[1]) - gain @ weights
        np.testing.assert_allclose(posterior.loc, gain @ (x - bias), rtol=1e-9)
        scale_tril = np.asarray(posterior.scale_tril)
        np.testing.assert_allclose(scale_tril @ scale_tril.T, covariance, atol=1e-12)
        np.testing.assert_array_equal(scale_tril, np.tril(scale_tril))

    @each_size
    def test_the_gap_of_the_best_bound_is_the_kl_from_the_posterior(self, size):
        weights, bias, log_scale, x = parameters(*size)
        model = testing.linear_gaussian(jnp.asarray(weights), bias, log_scale)
        q, posterior = model.best_encode(x), model.posterior(x)
        scale_tril = np.asarray(posterior.scale_tril)
        precision = np.linalg.inv(scale_tril @ scale_tril.T)
        variance = np.exp(2 * np.asarray(q.log_scale))
        distance = np.asarray(q.loc) - np.asarray(posterior.loc)
        kl = 0.5 * (
            np.sum(np.diagonal(precision) * variance)
            + distance @ precision @ distance
            - size[1]
            - np.sum(np.log(variance))
            - np.linalg.slogdet(precision)[1]
        )
        gap = model.log_likelihood(x) - model.best_bound(x)
        np.testing.assert_allclose(gap, kl, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(variance, 1 / np.diagonal(precision), rtol=1e-10)

    def test_orthogonal_columns_have_no_gap(self):
        weights = jnp.array([[1.0, 1], [1, -1], [2, 0], [0, 3]])
        weights = weights.at[2:].set(0)
        model, x = testing.linear_gaussian(weights, jnp.zeros(4), 0.0), jnp.ones(4)
        np.testing.assert_allclose(
            model.best_bound(x), model.log_likelihood(x), rtol=1e-13
        )

    def test_it_is_traceable_in_its_parameters(self):
        weights, bias, log_scale, x = parameters(4, 2)

        def log_p(weights, log_scale):
            model = testing.linear_gaussian(weights, jnp.asarray(bias), log_scale)
            return model.log_likelihood(jnp.asarray(x))

        scales = jnp.array([log_scale, 0.0])
        values = jax.jit(jax.vmap(log_p, (None, 0)))(jnp.asarray(weights), scales)
        np.testing.assert_allclose(values[1], log_p(jnp.asarray(weights), 0.0))

    @pytest.mark.parametrize("latent_dim", [1, 2])
    def test_quadrature_is_exact_to_rounding(self, latent_dim):
        weights, bias, log_scale, x = parameters(4, latent_dim)
        model = testing.linear_gaussian(jnp.asarray(weights), bias, log_scale)
        options = {"latent_dim": latent_dim, "num_points": 101}
        truth = jax.jit(partial(testing.quadrature, model.decode, **options))(x)
        posterior = model.posterior(x)
        covariance = posterior.scale_tril @ posterior.scale_tril.T
        np.testing.assert_allclose(truth[0], model.log_likelihood(x), rtol=1e-10)
        np.testing.assert_allclose(truth.mean, posterior.loc, rtol=1e-9)
        np.testing.assert_allclose(truth.covariance, covariance, rtol=1e-9)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_quadrature_of_a_bernoulli_decoder_has_converged(latent_dim):
    """Half the points give the same: its error falls faster than any power."""
    decode = testing.bernoulli_decoder(
        jax.random.key(1), latent_dim=latent_dim, data_dim=8
    )
    x = decode(jnp.ones(latent_dim)).sample(jax.random.key(2))
    fine, coarse = (
        jax.jit(
            partial(
                testing.quadrature, decode, latent_dim=latent_dim, num_points=num_points
            )
        )(x)
        for num_points in (201, 101)
    )
    np.testing.assert_allclose(coarse[0], fine[0], rtol=1e-5)
    np.testing.assert_allclose(coarse.mean, fine.mean, atol=1e-4)


def test_probabilities_of_a_bernoulli_decoder_sum_to_one():
    """Over all x: log p(x) is that of a distribution."""
    decode = testing.bernoulli_decoder(jax.random.key(0), latent_dim=1, data_dim=4)
    xs = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, 16).T.astype(np.float32)
    integrate = partial(testing.quadrature, decode, latent_dim=1)
    log_p = jax.jit(jax.vmap(lambda x: integrate(x).log_likelihood))(xs)
    np.testing.assert_allclose(np.sum(np.exp(log_p)), 1, rtol=1e-5)


def test_bernoulli_decoder_is_drawn_from_its_key():
    z = jnp.ones(2)
    make = partial(testing.bernoulli_decoder, latent_dim=2, data_dim=5)
    logits = [make(jax.random.key(seed))(z).logits for seed in (0, 0, 1)]
    assert isinstance(make(jax.random.key(0))(z), aevb.Bernoulli)
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.any(np.equal(logits[0], logits[2]))
