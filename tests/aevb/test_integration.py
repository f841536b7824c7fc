"""Quadrature against closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_models import linear_model

import aevb
from aevb import testing


def grid(latent_dim):
    return {"latent_dim": latent_dim, "num_points": 61 if latent_dim == 3 else 201}


def quadrature(decode, x, **options):
    return jax.jit(partial(aevb.quadrature, decode, **options))(x)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_quadrature_is_exact_on_linear_gaussian(latent_dim):
    model = linear_model(4, latent_dim)
    x = jnp.linspace(-1.0, 2.0, 4)
    truth = quadrature(model.decode, x, limit=7.0, **grid(latent_dim))
    posterior = model.posterior(x)
    covariance = posterior.scale_tril @ posterior.scale_tril.T
    np.testing.assert_allclose(truth[0], model.log_likelihood(x), rtol=1e-5)
    np.testing.assert_allclose(truth.mean, posterior.loc, atol=1e-4)
    np.testing.assert_allclose(truth.covariance, covariance, atol=1e-4)


def test_quadrature_zooms_into_a_narrow_posterior():
    weights = 100 * jax.random.normal(jax.random.key(0), (5, 3))
    model = testing.linear_gaussian(weights, jnp.zeros(5), 0.0)
    x = weights @ jnp.array([0.5, -1.0, 0.2]) + 0.5
    posterior = model.posterior(x)
    coarse = {"latent_dim": 3, "num_points": 61}
    truth = quadrature(
        model.decode, x, **coarse, limit=7.0, loc=posterior.loc + 0.001,
        scale_tril=1.1 * posterior.scale_tril,
    )  # fmt: skip
    np.testing.assert_allclose(truth[0], model.log_likelihood(x), rtol=1e-4)
    np.testing.assert_allclose(truth.mean, posterior.loc, rtol=1e-3)


def test_quadrature_of_four_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"expected 1, 2 or 3.*annealed"):
        aevb.quadrature(linear_model(4, 2).decode, jnp.zeros(4), latent_dim=4)


def test_testing_has_the_one_quadrature():
    assert testing.quadrature is aevb.quadrature
