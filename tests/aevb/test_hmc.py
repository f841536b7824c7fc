"""The HMC kernel, and posterior draws made with it."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from exact_models import bernoulli_decoder, standard_normal, starts
from jax import export

import aevb
from aevb import testing

LINEAR = testing.linear_gaussian(
    jax.random.normal(jax.random.key(0), (5, 3)), jnp.zeros(5), -0.5
)
X = jnp.linspace(-1.0, 2.0, 5)


def target(z):
    """Not Gaussian, correlated."""
    return -0.5 * (z[0] ** 2 + 3 * (z[1] - 0.5 * jnp.sin(2 * z[0])) ** 2)


def test_kernel_energy_error_falls_as_the_square_of_the_step_size():
    def rms_error(step_size, num_leapfrog_steps):
        def one(key):
            z_key, key = jax.random.split(key)
            point = aevb.point_at([target], jax.random.normal(z_key, (2,)))
            return aevb.hmc_step(
                [target],
                jnp.ones(1),
                key,
                point,
                step_size,
                num_leapfrog_steps=num_leapfrog_steps,
            )[1].energy_error

        errors = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(6), 500))
        return jnp.sqrt(jnp.mean(errors**2))

    with jax.enable_x64(True):
        ratio = rms_error(0.1, 10) / rms_error(0.025, 40)
    np.testing.assert_allclose(ratio, 16, rtol=0.1)


def test_transition_passes_a_geweke_joint_test(z_score):
    """(z, x) from the model stays so when z moves by HMC and x is drawn anew."""
    prior = standard_normal(2)
    decode = testing.bernoulli_decoder(
        jax.random.key(0), latent_dim=2, data_dim=4, scale=1.0
    )

    def moments(z, x):
        return jnp.concatenate([z, z**2, z[:1] * z[1:], x, x * z[0], x * z[1]])

    def chain(key):
        z_key, x_key, key = jax.random.split(key, 3)
        z = prior.sample(z_key)
        x = decode(z).sample(x_key)
        start = moments(z, x)
        for step in range(4):
            hmc_key, x_key = jax.random.split(jax.random.fold_in(key, step))
            densities = [partial(aevb.log_joint, decode, x=x)]
            point = aevb.point_at(densities, z)
            point, info = aevb.hmc_step(
                densities, jnp.ones(1), hmc_key, point, 1.3, num_leapfrog_steps=3
            )
            z = point.z
            x = decode(z).sample(x_key)
        return start, moments(z, x), info.acceptance

    start, end, acceptance = jax.jit(jax.vmap(chain))(
        jax.random.split(jax.random.key(7), 20_000)
    )
    assert 0.4 < jnp.mean(acceptance) < 0.9  # rejections are part of the test
    assert np.all(np.abs(z_score(end - start, 0.0)) < 4.9)
    assert np.all(np.abs(z_score(end[:, :2], 0.0)) < 4.9)
    assert np.all(np.abs(z_score(end[:, 2:4], 1.0)) < 4.9)


def test_a_diverging_proposal_is_rejected():
    point = aevb.point_at([lambda z: -jnp.sum(z**4)], jnp.full(2, 3.0))
    moved, info = aevb.hmc_step(
        [lambda z: -jnp.sum(z**4)],
        jnp.ones(1),
        jax.random.key(0),
        point,
        10.0,
        num_leapfrog_steps=20,
    )
    assert info.acceptance == 0
    np.testing.assert_array_equal(moved.z, point.z)


def test_a_transition_is_blackjaxs():
    """An oracle written by others: the same momentum, trajectory and acceptance."""
    kernel = blackjax.hmc.build_kernel()

    def ours(key, z, step_size):
        point = aevb.point_at([target], z)
        point, info = aevb.hmc_step(
            [target], jnp.ones(1), key, point, step_size, num_leapfrog_steps=7
        )
        return point.z, point.values[0], point.grads[0], *info

    def theirs(key, z, step_size):
        start = blackjax.hmc.init(z, target)
        end, info = kernel(key, start, target, step_size, jnp.ones(2), 7)
        momentum = info.momentum
        start_energy = -start.logdensity + 0.5 * momentum @ momentum
        return *end, info.acceptance_rate, info.energy - start_energy

    keys = jax.random.split(jax.random.key(0), 300)
    with jax.enable_x64(True):
        zs = jnp.asarray(jax.random.normal(jax.random.key(1), (300, 2)), jnp.float64)
        step_sizes = jnp.linspace(0.05, 1.2, 300, dtype=jnp.float64)
        our, their = (
            jax.jit(jax.vmap(f))(keys, zs, step_sizes) for f in (ours, theirs)
        )
    moved = np.any(our[0] != zs, axis=1)
    assert 0.2 < np.mean(moved) < 0.95  # both accepted and rejected
    for ours, theirs in zip(our, their, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def test_thousands_of_persistent_chains_under_one_vmap(z_score):
    """From a start far off, with parameters that change on the way (MCEM's E-step)."""

    def densities(loc):
        return [aevb.DiagNormal(loc, jnp.array([0.0, -0.5])).log_prob]

    @jax.jit
    def e_step(key, zs, loc):
        points = jax.vmap(partial(aevb.point_at, densities(loc)))(zs)

        def step(points, key):
            move = partial(
                aevb.hmc_step, densities(loc), jnp.ones(1), num_leapfrog_steps=5
            )
            keys = jax.random.split(key, len(zs))
            points, infos = jax.vmap(move, (0, 0, None))(keys, points, 0.25)
            return points, jnp.mean(infos.acceptance)

        points, acceptance = jax.lax.scan(step, points, jax.random.split(key, 25))
        return points.z, acceptance

    zs = jnp.full((4000, 2), 5.0)
    for index, loc in enumerate((jnp.zeros(2), jnp.array([1.0, -2.0]))):
        zs, acceptance = e_step(jax.random.key(index), zs, loc)
        assert np.all(np.abs(z_score(zs, loc)) < 4.9)
        variances = jnp.exp(2 * jnp.array([0.0, -0.5]))
        assert np.all(np.abs(z_score((zs - loc[None]) ** 2, variances)) < 4.9)
    assert jnp.mean(acceptance) > 0.8


@pytest.fixture(scope="module")
def linear_draws():
    run = partial(
        aevb.sample_posterior, LINEAR.decode, num_samples=400, num_burn_in=200
    )
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
        aevb.sample_posterior,
        LINEAR.decode,
        num_samples=20,
        num_burn_in=0,
        step_size=1e-3,
    )
    draws = jax.jit(run)(jax.random.key(0), X, 3 * starts(jax.random.key(2), 4, 3))
    assert jnp.all(draws.r_hat > 2)


def test_step_size_is_fixed_without_burn_in():
    def run(**options):
        sample = partial(aevb.sample_posterior, LINEAR.decode, **options)
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
            aevb.sample_posterior,
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
            draws = aevb.sample_posterior(
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
        draws = aevb.sample_posterior(
            decode, key, x, starts(start_key, 1, latent_dim),
            num_samples=num_draws, num_burn_in=100, thinning=10,
        )  # fmt: skip
        return jnp.sum(draws.zs[0] < z[None, :], axis=0)

    ranks = jax.jit(jax.vmap(rank))(jax.random.split(jax.random.key(8), num_datapoints))
    for dim in range(latent_dim):
        counts = np.bincount(np.asarray(ranks[:, dim]), minlength=num_draws + 1)
        p = scipy.stats.chisquare(counts).pvalue
        assert 1e-4 < p < 1 - 1e-4


def test_lowers_for_tpu_and_cuda():
    def run(data, x):
        key = jax.random.wrap_key_data(data)
        return aevb.sample_posterior(
            bernoulli_decoder(2), key, x, jnp.zeros((4, 2)), num_samples=5,
            num_burn_in=5,
        )  # fmt: skip

    exported = export.export(jax.jit(run), platforms=["tpu", "cuda"])(
        jnp.zeros(2, jnp.uint32), jnp.zeros(8)
    )
    assert "callback" not in exported.mlir_module()
