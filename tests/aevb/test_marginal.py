"""Importance sampling's error and curve, and what all estimators have in common."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_models import bernoulli_model, linear_model, standard_normal
from jax import export
from numpyro.infer.importance import _psis_khat
from scipy.special import logsumexp

import aevb
from aevb import testing


def importance(encode, decode, key, x, **options):
    run = partial(aevb.importance_log_likelihood, encode, decode, **options)
    return jax.jit(run)(key, x)


LINEAR = linear_model(6, 2)
X = jnp.linspace(-1.0, 2.0, 6)


@pytest.mark.parametrize(("data_dim", "latent_dim"), [(3, 1), (20, 5)])
def test_exact_posterior_gives_log_p_for_every_draw(data_dim, latent_dim):
    model = linear_model(data_dim, latent_dim)
    x = jnp.linspace(-1.0, 2.0, data_dim)
    estimate = importance(
        model.posterior,
        model.decode,
        jax.random.key(0),
        x,
        num_samples=300,
        chunk_size=300,
    )
    truth = model.log_likelihood(x)
    np.testing.assert_allclose(estimate.curve, np.full(4, truth), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(estimate.ess, 300, rtol=1e-5)
    assert estimate.std_error < 1e-3


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_importance_is_within_its_stated_error(latent_dim, z_score):
    decode, x = bernoulli_model(latent_dim)
    num_points = 61 if latent_dim == 3 else 201
    integrate = partial(
        aevb.quadrature, latent_dim=latent_dim, num_points=num_points, limit=6.0
    )
    truth = jax.jit(partial(integrate, decode))(x).log_likelihood
    keys = jax.random.split(jax.random.key(1), 1000)
    run = partial(aevb.importance_log_likelihood, num_samples=1000, chunk_size=1000)
    estimate = jax.jit(
        jax.vmap(lambda key: run(lambda x: standard_normal(latent_dim), decode, key, x))
    )(keys)
    assert abs(z_score(jnp.exp(estimate.log_likelihood - truth), 1.0)) < 4.9
    assert z_score(estimate.log_likelihood, truth) < 4  # a lower bound
    # The error in units of the stated one has unit variance; 1000 draws tell it to 5%.
    errors = (estimate.log_likelihood - truth) / estimate.std_error
    assert 0.8 < jnp.std(errors) < 1.25


def test_lower_bound_rises_along_the_curve(z_score):
    xs = 2 * jax.random.normal(jax.random.key(2), (500, 6))
    curve = jax.jit(
        partial(
            aevb.map_datapoints,
            partial(
                aevb.importance_log_likelihood,
                lambda x: standard_normal(2),
                LINEAR.decode,
                num_samples=1000,
                chunk_size=500,
            ),
            batch_size=100,
        )
    )(jax.random.key(3), xs).curve
    gap = curve - jax.vmap(LINEAR.log_likelihood)(xs)[:, None]
    assert np.all(np.diff(np.mean(gap, axis=0)) > 0)
    assert np.all(z_score(gap, 0.0) < 4)


def test_curve_sizes_end_in_the_number_of_samples():
    assert aevb.curve_sizes(250) == (1, 10, 100, 250)
    assert aevb.curve_sizes(100) == (1, 10, 100)
    assert aevb.curve_sizes(1) == (1,)


@pytest.fixture(scope="module")
def log_weights():
    """The 1500 log weights that the next two tests make estimates of."""
    weight = partial(aevb.log_weight, lambda x: standard_normal(2), LINEAR.decode)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(9), jnp.arange(1500))
    return jax.jit(jax.vmap(weight, (0, None)))(keys, X)


@pytest.mark.parametrize("chunk_size", [7, 100, 2000])
def test_any_chunk_reduces_to_all_weights_at_once(log_weights, chunk_size):
    estimate = importance(
        lambda x: standard_normal(2),
        LINEAR.decode,
        jax.random.key(9),
        X,
        num_samples=1500,
        chunk_size=chunk_size,
    )
    log_w = np.asarray(log_weights, np.float64)
    w = np.exp(log_w - log_w.max())
    ess = w.sum() ** 2 / (w**2).sum()
    curve = [logsumexp(log_w[:size]) - math.log(size) for size in (1, 10, 100, 1000)]
    curve.append(logsumexp(log_w) - math.log(1500))
    np.testing.assert_allclose(estimate.curve, curve, rtol=2e-6)
    assert estimate.log_likelihood == estimate.curve[-1]
    np.testing.assert_allclose(estimate.ess, ess, rtol=1e-5)
    std_error = math.sqrt(1 / ess - 1 / 1500)
    np.testing.assert_allclose(estimate.std_error, std_error, rtol=1e-5)
    np.testing.assert_allclose(estimate.pareto_k, _psis_khat(log_w), atol=2e-3)


def test_importance_reduces_to_iwae(log_weights):
    run = partial(
        aevb.iwae, lambda x: standard_normal(2), LINEAR.decode, num_samples=1500
    )
    bound = jax.jit(run)(jax.random.key(9), X)
    expected = logsumexp(np.asarray(log_weights, np.float64)) - math.log(1500)
    np.testing.assert_allclose(bound, expected, rtol=2e-6)


def test_memory_of_a_million_samples_is_that_of_a_chunk():
    data_dim, chunk_size = 784, 100
    decode = testing.bernoulli_decoder(
        jax.random.key(8), latent_dim=5, data_dim=data_dim
    )
    run = partial(
        aevb.importance_log_likelihood,
        lambda x: standard_normal(5),
        decode,
        num_samples=1_000_000,
        chunk_size=chunk_size,
    )
    compiled = jax.jit(run).lower(jax.random.key(0), jnp.zeros(data_dim)).compile()
    peak = compiled.memory_analysis().temp_size_in_bytes
    assert peak < 6 * 4 * chunk_size * data_dim  # all million: 3 GB


def test_no_weight_at_all_is_minus_infinity():
    decode = lambda z: aevb.DiagNormal(jnp.full(1, jnp.inf), jnp.zeros(1))  # noqa: E731
    estimate = importance(
        lambda x: standard_normal(1), decode, jax.random.key(0), jnp.zeros(1),
        num_samples=30, chunk_size=10,
    )  # fmt: skip
    assert estimate.log_likelihood == -jnp.inf


def test_log_joint_is_the_sum():
    z = jnp.array([0.3, -1.0])
    expected = LINEAR.decode(z).log_prob(X) + standard_normal(2).log_prob(z)
    assert aevb.log_joint(LINEAR.decode, z, X) == expected
    shifted = aevb.DiagNormal(jnp.ones(2), jnp.zeros(2))
    expected = LINEAR.decode(z).log_prob(X) + shifted.log_prob(z)
    assert aevb.log_joint(LINEAR.decode, z, X, prior=shifted) == expected


def test_grey_levels_are_refused_with_the_reason():
    decode, x = bernoulli_model(2)
    grey = x.at[0].set(0.5)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"0.5 .*no likelihood.*Binarise"):
        aevb.check_binary(grey)
    aevb.check_binary(np.array([0, 1], np.uint8))
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        aevb.check_binary(np.array([0, 255], np.uint8))
    encode = lambda x: standard_normal(2)  # noqa: E731
    temperatures = aevb.linear_temperatures(3)
    for estimate in (
        lambda x: aevb.importance_log_likelihood(encode, decode, key, x, num_samples=2),
        lambda x: aevb.annealed_log_likelihood(
            encode, decode, key, x, temperatures=temperatures, step_size=0.1
        ),
        lambda x: aevb.reciprocal_log_likelihood(
            decode, x, jax.random.normal(key, (4, 9, 2))
        ),
        lambda x: aevb.quadrature(decode, x, latent_dim=2, num_points=5),
    ):
        with pytest.raises(ValueError, match="neither 0 nor 1"):
            jax.eval_shape(partial(estimate, grey))
        jax.eval_shape(partial(estimate, x))
    # Grey levels are data like any other to a Gaussian.
    jax.eval_shape(
        lambda: aevb.importance_log_likelihood(
            LINEAR.best_encode, LINEAR.decode, key, X, num_samples=2
        )
    )


@pytest.mark.parametrize("name", ["importance", "annealed", "reciprocal", "quadrature"])
def test_lowers_for_tpu_and_cuda(name):
    decode, x = bernoulli_model(2)
    encode = lambda x: standard_normal(2)  # noqa: E731
    functions = {
        "importance": lambda key, x: aevb.importance_log_likelihood(
            encode, decode, key, x, num_samples=100, chunk_size=30
        ),
        "annealed": lambda key, x: aevb.bdmc(
            encode, decode, key, prior=standard_normal(2),
            temperatures=aevb.sigmoid_temperatures(10),
        ),
        "reciprocal": lambda key, x: aevb.reciprocal_log_likelihood(
            decode, x, jax.random.normal(key, (8, 10, 2)), fit=aevb.fit_kernel_density
        ),
        "quadrature": lambda key, x: aevb.quadrature(decode, x, latent_dim=2),
    }  # fmt: skip
    run = jax.jit(lambda data, x: functions[name](jax.random.wrap_key_data(data), x))
    exported = export.export(run, platforms=["tpu", "cuda"])(
        jnp.zeros(2, jnp.uint32), x
    )
    assert exported.platforms == ("tpu", "cuda")
    assert "callback" not in exported.mlir_module()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", ["annealed", "draws", "reciprocal", "quadrature"])
def test_products_are_true_float32_on_every_platform(name, platform):
    """JAX's default is bfloat16 on a TPU, and HMC's energies would show it."""

    def decode(z):  # without a product of its own
        return aevb.DiagNormal(z, jnp.zeros(2))

    def run(data, x):
        key = jax.random.wrap_key_data(data)
        match name:
            case "annealed":
                return aevb.bdmc(
                    lambda x: standard_normal(2), decode, key, prior=standard_normal(2),
                    temperatures=aevb.linear_temperatures(4), num_leapfrog_steps=2,
                )  # fmt: skip
            case "draws":
                return aevb.sample_posterior(
                    decode, key, x, jnp.zeros((2, 2)), num_samples=3, num_burn_in=3
                )
            case "reciprocal":
                zs = jax.random.normal(key, (4, 9, 2))
                return aevb.reciprocal_log_likelihood(decode, x, zs)
            case "quadrature":
                return aevb.quadrature(decode, x, latent_dim=2, num_points=5)

    lowered = jax.jit(run).trace(jnp.zeros(2, jnp.uint32), jnp.zeros(2))
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    for line in products:
        assert "precision = [HIGHEST, HIGHEST]" in line
