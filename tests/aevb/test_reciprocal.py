"""Appendix D's estimator, on posterior draws by HMC."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from exact_models import bernoulli_decoder, standard_normal, starts

import aevb
from aevb import testing

LINEAR = testing.linear_gaussian(
    jax.random.normal(jax.random.key(0), (5, 3)), jnp.zeros(5), -0.5
)
X = jnp.linspace(-1.0, 2.0, 5)


@pytest.mark.parametrize("latent_dim", [2, 3])
def test_appendix_d_is_within_a_tenth_of_a_nat(latent_dim, z_score):
    decode = bernoulli_decoder(latent_dim)
    num_points = 31 if latent_dim == 3 else 61

    def one(key):
        z_key, x_key, start_key, key = jax.random.split(key, 4)
        x = decode(standard_normal(latent_dim).sample(z_key)).sample(x_key)
        draws = aevb.sample_posterior(
            decode, key, x, starts(start_key, 10, latent_dim),
            num_samples=50, num_burn_in=100, thinning=4,
        )  # fmt: skip
        estimates = [
            aevb.reciprocal_log_likelihood(decode, x, draws.zs, fit=fit)
            for fit in (aevb.fit_normal, aevb.fit_kernel_density)
        ]
        truth = aevb.quadrature(
            decode, x, latent_dim=latent_dim, num_points=num_points, limit=6.0
        )
        return estimates, truth.log_likelihood

    estimates, truth = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(9), 30))
    for estimate in estimates:
        error = estimate.log_likelihood - truth
        assert abs(jnp.mean(error)) < 0.1
        assert jnp.sqrt(jnp.mean(error**2)) < 0.1
        assert z_score(error, 0.0) > -4  # biased up
        assert 0.5 < jnp.sqrt(jnp.mean((error / estimate.std_error) ** 2)) < 2


def test_reciprocal_is_log_p_where_the_density_is_the_posterior():
    zs = jax.random.normal(jax.random.key(0), (4, 30, 3))  # draws of anything
    run = partial(
        aevb.reciprocal_log_likelihood, LINEAR.decode, fit=lambda _: LINEAR.posterior(X)
    )
    estimate = jax.jit(run)(X, zs)
    np.testing.assert_allclose(estimate[0], LINEAR.log_likelihood(X), rtol=1e-5)
    np.testing.assert_allclose(estimate.ess, 60, rtol=1e-4)
    assert estimate.std_error < 1e-4


def test_reciprocal_is_unbiased_for_one_over_p_and_biased_up(z_score):
    posterior = LINEAR.posterior(X)

    def one(key):
        zs = jax.vmap(posterior.sample)(jax.random.split(key, 4 * 15))
        zs = zs.reshape(4, 15, 3)
        return aevb.reciprocal_log_likelihood(LINEAR.decode, X, zs).log_likelihood

    # Few draws, so that the bias shows.
    values = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 20_000))
    truth = LINEAR.log_likelihood(X)
    assert abs(z_score(jnp.exp(truth - values), 1.0)) < 4.9
    assert z_score(values, truth) > 4.9


def test_fitted_densities(z_score):
    zs = jax.random.normal(jax.random.key(3), (400, 2)) @ jnp.array(
        [[1.0, 0.5], [0.0, 0.3]]
    )
    normal = aevb.fit_normal(zs)
    np.testing.assert_allclose(
        normal.scale_tril @ normal.scale_tril.T, np.cov(zs.T), rtol=1e-4
    )
    # The bandwidth is a factor of Scott's rule: scipy's with that factor.
    density = aevb.fit_kernel_density(zs)
    factor = density.scale_tril[0, 0] / normal.scale_tril[0, 0]
    oracle = scipy.stats.gaussian_kde(np.asarray(zs).T, bw_method=float(factor))
    np.testing.assert_allclose(
        jax.vmap(density.log_prob)(zs[:50]), oracle.logpdf(zs[:50].T), rtol=1e-3
    )
    scott = 400 ** (-1 / 6)
    assert 0.3 < factor / scott < 3
    two_lumps = jnp.concatenate([zs, zs + 20])[
        jnp.arange(800).reshape(2, 400).T.ravel()
    ]
    narrow = aevb.fit_kernel_density(two_lumps)
    assert narrow.scale_tril[0, 0] < 0.5 * aevb.fit_normal(two_lumps).scale_tril[0, 0]
    with pytest.raises(ValueError, match="singular covariance"):
        aevb.fit_normal(zs[:2])


def test_three_chains_are_refused():
    with pytest.raises(ValueError, match="expected at least 4"):
        aevb.reciprocal_log_likelihood(LINEAR.decode, X, jnp.zeros((3, 10, 3)))
