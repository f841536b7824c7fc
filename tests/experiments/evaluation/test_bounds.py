"""The bound over a split, against its definition point by point."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small
from scipy import stats

import aevb
from experiments import data
from experiments.evaluation.bounds import ACTIVE_THRESHOLD, bound_evaluator
from experiments.keys import Stream, stream_key
from experiments.program import build
from experiments.training.loop import start

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def program():
    return build(small(), data.load(num_train=320, num_valid=100, num_test=50))


@pytest.fixture(scope="module")
def params(program):
    """Weights under which one latent dimension is active and the other is not."""
    params = jax.device_get(jax.jit(partial(start, small(), program))().params)
    kernel = np.zeros_like(params["encoder"]["mean"]["kernel"])
    kernel[:, 0] = np.linspace(-1, 1, len(kernel))
    params["encoder"]["mean"]["kernel"] = kernel
    variances = params["encoder"]["log_variance"]
    variances["bias"] = np.array([-2.0, 0.5], np.float32)
    return params


def test_every_number_is_that_of_its_definition(program, params):
    """KL of each dimension, active units, errors: in float64, from q of each point."""
    found = jax.jit(partial(bound_evaluator(program), params))(program.test)
    xs = jax.vmap(program.to_input)(jnp.asarray(program.test))
    q = jax.vmap(partial(program.model.encode, params))(xs)
    mean, scale = np.asarray(q.loc, np.float64), np.exp(np.float64(q.log_scale))
    kl = 0.5 * (scale**2 + mean**2 - 1 - 2 * np.log(scale))
    np.testing.assert_allclose(found.kl_per_dim, kl.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.kl, kl.sum(axis=1).mean(), rtol=1e-4)
    np.testing.assert_allclose(found.means, mean, rtol=1e-5)
    assert found.active_units == np.sum(mean.var(axis=0) > ACTIVE_THRESHOLD) == 1

    key = stream_key(Stream.BOUND)
    values = []
    for i, x in enumerate(xs):
        z = jax.tree.map(lambda leaf, i=i: leaf[i], q)
        # Draw l of a datapoint has fold_in(its key, l).
        noise = jax.random.fold_in(jax.random.fold_in(key, i), 0)
        logits = np.asarray(
            program.model.decode(params, z.sample(noise)).logits, np.float64
        )
        p = stats.bernoulli(1 / (1 + np.exp(-logits)))
        values.append(p.logpmf(np.asarray(x)).sum() - kl[i].sum())
    assert float(found.bound) == pytest.approx(np.mean(values), rel=1e-5)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert float(found.std_error) == pytest.approx(error, rel=1e-4)
    total = float(found.reconstruction) - float(found.kl)
    assert float(found.bound) == pytest.approx(total, rel=1e-5)


def test_a_prior_with_parameters_is_in_the_bound(program, params):
    """Silently N(0, I), it would be the bound of another model."""
    prior = aevb.DiagNormal(jnp.array([1.0, -2.0]), jnp.array([0.3, 0.3]))
    model = program.model._replace(prior=lambda params: prior)
    evaluate = bound_evaluator(program._replace(model=model))
    found = jax.jit(partial(evaluate, params))(program.test)
    xs = jax.vmap(program.to_input)(jnp.asarray(program.test))
    q = jax.vmap(partial(model.encode, params))(xs)
    kl = jax.vmap(aevb.kl_divergence, (0, None))(q, prior)
    assert float(found.kl) == pytest.approx(float(jnp.mean(kl)), rel=1e-5)
    assert float(jnp.sum(found.kl_per_dim)) == pytest.approx(float(found.kl), rel=1e-5)


def test_a_prior_without_a_closed_form_has_a_bound_and_no_kl_per_dimension(
    program, params
):
    cov = jnp.array([[1.0, 0.0], [0.5, 1.0]])
    prior = aevb.MultivariateNormal(jnp.zeros(2), cov)
    model = program.model._replace(prior=lambda params: prior)
    evaluate = bound_evaluator(program._replace(model=model))
    found = jax.jit(partial(evaluate, params))(program.test)
    assert found.kl_per_dim.shape == (0,)
    assert np.isfinite(found.bound)


def test_a_gaussian_likelihood_has_its_density(program):
    config = small(
        likelihood="gaussian",
        output_bias_from_data=False,
        **{"data.binarization": "grey"},
    )
    own = build(config, data.load(num_train=320, num_valid=100, num_test=20))
    params = jax.jit(partial(start, config, own))().params
    # As arguments: of a matrix that it knows to be 0 everywhere, as that of the first
    # log-variances, XLA on a CPU makes a wrong product (jax 0.10 to 0.12).
    found = jax.jit(bound_evaluator(own))(params, own.test)
    xs = np.asarray(own.test, np.float64) / 255
    q = jax.vmap(partial(own.model.encode, params))(jnp.asarray(xs, jnp.float32))
    values = []
    for i, x in enumerate(xs):
        noise = jax.random.fold_in(jax.random.fold_in(stream_key(Stream.BOUND), i), 0)
        z = jax.tree.map(lambda leaf, i=i: leaf[i], q).sample(noise)
        p = own.model.decode(params, z)
        log_p = stats.norm(np.float64(p.loc), np.exp(np.float64(p.log_scale))).logpdf(x)
        values.append(log_p.sum())
    assert float(found.reconstruction) == pytest.approx(np.mean(values), rel=1e-4)
