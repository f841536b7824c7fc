"""Posterior draws by HMC, and Appendix D's estimator that stands on them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import export

import aevb
from aevb import hmc, testing


def standard_normal(latent_dim):
    return aevb.DiagNormal(jnp.zeros(latent_dim), jnp.zeros(latent_dim))


def bernoulli_decoder(latent_dim, data_dim=8):
    return testing.bernoulli_decoder(
        jax.random.key(latent_dim), latent_dim=latent_dim, data_dim=data_dim, scale=1.0
    )


def starts(key, num_chains, latent_dim):
    return jax.random.normal(key, (num_chains, latent_dim))


LINEAR = testing.linear_gaussian(
    jax.random.normal(jax.random.key(0), (5, 3)), jnp.zeros(5), -0.5
)
X = jnp.linspace(-1.0, 2.0, 5)


@pytest.fixture(scope="module")
def linear_draws():
    run = partial(hmc.sample_posterior, LINEAR.decode, num_samples=400, num_burn_in=200)
    return jax.jit(run)(jax.random.key(1), X, starts(jax.random.key(2), 200, 3))


def test_draws_have_the_exact_posterior(linear_draws, z_score):
    posterior = LINEAR.posterior(X)
    covariance = posterior.scale_tril @ posterior.scale_tril.T
    zs = linear_draws.zs
    assert zs.shape == (200, 400, 3)
    # Chains are independent: their means tell the error of the mean.
    assert np.all(np.abs(z_score(jnp.mean(zs, axis=1), posterior.loc)) < 4.9)
    centred = zs - posterior.loc[None, None, :]
    second = jnp.einsum("cli,clj->cij", centred, centred) / 400
    assert np.all(np.abs(z_score(second, covariance)) < 4.9)


def test_diagnostics_say_that_it_has_mixed(linear_draws):
    assert 0.75 < jnp.mean(linear_draws.acceptance) < 0.85
    assert jnp.std(jnp.log(linear_draws.step_size)) < 0.3
    assert jnp.all(linear_draws.energy_error < 5)
    np.testing.assert_allclose(linear_draws.r_hat, 1, atol=0.01)


def test_r_hat_sees_chains_that_stand_still():
    run = partial(
        hmc.sample_posterior,
        LINEAR.decode,
        num_samples=20,
        num_burn_in=0,
        step_size=1e-3,
    )
    draws = jax.jit(run)(jax.random.key(0), X, 3 * starts(jax.random.key(2), 4, 3))
    assert jnp.all(draws.r_hat > 2)


def test_step_size_is_fixed_without_burn_in():
    def run(**options):
        sample = partial(hmc.sample_posterior, LINEAR.decode, **options)
        return jax.jit(sample)(jax.random.key(0), X, starts(jax.random.key(2), 2, 3))

    draws = run(num_samples=7, num_burn_in=0, step_size=0.123, thinning=2)
    np.testing.assert_allclose(draws.step_size, 0.123, rtol=1e-6)
    assert draws.zs.shape == (2, 7, 3)
    with pytest.raises(ValueError, match="num_samples is 0"):
        run(num_samples=0, num_burn_in=0)


def test_energy_error_falls_as_the_square_of_the_step_size():
    decode = bernoulli_decoder(2)
    x = decode(jnp.ones(2)).sample(jax.random.key(0))

    def rms_error(halvings):
        run = partial(
            hmc.sample_posterior,
            decode,
            num_samples=1,
            num_burn_in=0,
            num_leapfrog_steps=8 * 2**halvings,
            step_size=0.2 / 2**halvings,
        )
        draws = jax.jit(run)(jax.random.key(1), x, starts(jax.random.key(2), 500, 2))
        return jnp.sqrt(jnp.mean(draws.energy_error**2))

    np.testing.assert_allclose(rms_error(0) / rms_error(2), 16, rtol=0.1)


def test_chain_passes_a_geweke_joint_test(z_score):
    """(z, x) from the model stays so when z moves by HMC and x is drawn anew."""
    decode, prior = bernoulli_decoder(2, data_dim=4), standard_normal(2)

    def moments(z, x):
        return jnp.concatenate([z, z**2, z[:1] * z[1:], x, x * z[0], x * z[1]])

    def chain(key):
        z_key, x_key, key = jax.random.split(key, 3)
        z = prior.sample(z_key)
        x = decode(z).sample(x_key)
        start = moments(z, x)

        def alternate(carry, key):
            z, x = carry
            hmc_key, x_key = jax.random.split(key)
            draws = hmc.sample_posterior(
                decode, hmc_key, x, z[None],
                num_samples=1, num_burn_in=0, step_size=0.8,
            )  # fmt: skip
            z = draws.zs[0, 0]
            return (z, decode(z).sample(x_key)), draws.acceptance[0]

        (z, x), acceptance = jax.lax.scan(alternate, (z, x), jax.random.split(key, 4))
        return start, moments(z, x), acceptance

    start, end, acceptance = jax.jit(jax.vmap(chain))(
        jax.random.split(jax.random.key(7), 20_000)
    )
    assert 0.4 < jnp.mean(acceptance) < 0.9  # rejections are part of the test
    assert np.all(np.abs(z_score(end - start, 0.0)) < 4.9)
    assert np.all(np.abs(z_score(end[:, :2], 0.0)) < 4.9)
    assert np.all(np.abs(z_score(end[:, 2:4], 1.0)) < 4.9)


def test_simulation_based_calibration():
    """z ~ p(z), x ~ p(x|z): the rank of z among draws of p(z|x) is uniform."""
    num_datapoints, num_draws, latent_dim = 1000, 15, 2
    decode = bernoulli_decoder(latent_dim)

    def rank(key):
        z_key, x_key, start_key, key = jax.random.split(key, 4)
        z = standard_normal(latent_dim).sample(z_key)
        x = decode(z).sample(x_key)
        draws = hmc.sample_posterior(
            decode, key, x, starts(start_key, 1, latent_dim),
            num_samples=num_draws, num_burn_in=100, thinning=10,
        )  # fmt: skip
        return jnp.sum(draws.zs[0] < z[None, :], axis=0)

    ranks = jax.jit(jax.vmap(rank))(jax.random.split(jax.random.key(8), num_datapoints))
    for dim in range(latent_dim):
        counts = np.bincount(np.asarray(ranks[:, dim]), minlength=num_draws + 1)
        p = scipy.stats.chisquare(counts).pvalue
        assert 1e-4 < p < 1 - 1e-4


@pytest.mark.parametrize("latent_dim", [2, 3])
def test_appendix_d_is_within_a_tenth_of_a_nat(latent_dim, z_score):
    decode = bernoulli_decoder(latent_dim)
    num_points = 31 if latent_dim == 3 else 61

    def one(key):
        z_key, x_key, start_key, key = jax.random.split(key, 4)
        x = decode(standard_normal(latent_dim).sample(z_key)).sample(x_key)
        draws = hmc.sample_posterior(
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


def test_lowers_for_tpu_and_cuda():
    def run(data, x):
        key = jax.random.wrap_key_data(data)
        return hmc.sample_posterior(
            bernoulli_decoder(2), key, x, jnp.zeros((4, 2)), num_samples=5,
            num_burn_in=5,
        )  # fmt: skip

    exported = export.export(jax.jit(run), platforms=["tpu", "cuda"])(
        jnp.zeros(2, jnp.uint32), jnp.zeros(8)
    )
    assert "callback" not in exported.mlir_module()
