"""`pooled`: against dense Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from channel_cases import (
    BLOCKS,
    DIM,
    KEY,
    OVERLAPPING,
    dense,
    log_density,
    multivariate,
    normal,
)

import aevb

in_float64 = pytest.mark.usefixtures("float64")

POOLED = {
    "blocks": (BLOCKS, 0.3, normal),
    "blocks, noise of each": (BLOCKS, np.array([0.1, 2.0]), normal),
    "blocks of a multivariate": (BLOCKS, 0.3, multivariate),
    "overlapping": (OVERLAPPING, 0.3, normal),
    "overlapping, noise of each": (OVERLAPPING, np.array([0.1, 2.0, 0.5]), normal),
    "overlapping of a multivariate": (OVERLAPPING, 0.3, multivariate),
    "one log_scale": (
        BLOCKS,
        0.3,
        lambda: aevb.DiagNormal(normal().loc, jnp.asarray(-0.5)),
    ),
}


def measured(matrix, scale, p):
    """The mean and covariance of p(y|z), and the gain, dense."""
    mean, covariance = dense(p)
    noise = np.diag(np.broadcast_to(np.square(scale), len(matrix)))
    of_y = matrix @ covariance @ matrix.T + noise
    return matrix @ mean, of_y, covariance @ matrix.T @ np.linalg.inv(of_y)


def conditional(matrix, scale, p, y):
    """The mean and covariance of p(x|z, y), dense."""
    mean, covariance = dense(p)
    mean_of_y, _, gain = measured(matrix, scale, p)
    return mean + gain @ (y - mean_of_y), covariance - gain @ matrix @ covariance


@in_float64
@pytest.mark.parametrize("name", POOLED)
def test_pooled_is_the_dense_gaussian(name):
    matrix, scale, likelihood = POOLED[name]
    p, y = likelihood(), np.linspace(-1.0, 2.0, len(matrix))
    channel = aevb.pooled(matrix, scale)
    mean, covariance, _ = measured(matrix, scale, p)
    of_y = channel(p)
    np.testing.assert_allclose(of_y.mean, mean, rtol=1e-12)
    truth = log_density(y, mean, covariance)
    np.testing.assert_allclose(of_y.log_prob(y), truth, rtol=1e-12)
    diagonal = matrix is BLOCKS and isinstance(p, aevb.DiagNormal)
    kind = aevb.DiagNormal if diagonal else aevb.MultivariateNormal
    assert type(of_y) is kind

    x = np.linspace(-1.0, 1.0, DIM)
    truth = scipy.stats.norm.logpdf(y, matrix @ x, scale).sum()
    np.testing.assert_allclose(channel.given(x).log_prob(y), truth, rtol=1e-12)


@in_float64
@pytest.mark.parametrize("name", POOLED)
def test_pooled_is_restored_by_the_dense_conditional(name):
    matrix, scale, likelihood = POOLED[name]
    p, y = likelihood(), np.linspace(-1.0, 2.0, len(matrix))
    restored = aevb.pooled(matrix, scale).restore(p, y)
    mean, covariance = conditional(matrix, scale, p, y)
    np.testing.assert_allclose(restored.mean, mean, rtol=1e-11, atol=1e-12)
    for x in (mean, np.linspace(-1.0, 1.0, DIM)):
        truth = log_density(x, mean, covariance)
        np.testing.assert_allclose(restored.log_prob(x), truth, rtol=1e-10)


@pytest.mark.parametrize("name", POOLED)
def test_draws_of_what_was_pooled_have_the_conditional_mean_and_covariance(
    name, z_score
):
    matrix, scale, likelihood = POOLED[name]
    p, y = likelihood(), np.linspace(-1.0, 2.0, len(matrix))
    restored = aevb.pooled(matrix, scale).restore(p, y)
    draws = jax.jit(jax.vmap(restored.sample))(jax.random.split(KEY, 20_000))
    mean, covariance = conditional(matrix, scale, p, y)
    assert np.all(np.abs(z_score(draws, mean)) < 4.9)
    centred = np.asarray(draws, np.float64) - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert np.all(np.abs(z_score(products, covariance)) < 4.9)


@in_float64
@pytest.mark.parametrize("scale", [0.5, np.array([0.1, 0.5, 1.0, 2.0])])
def test_each_dimension_measured_by_itself_is_noisy(scale):
    p, y, x = normal(), np.linspace(-1.0, 2.0, DIM), np.linspace(1.0, 0.0, DIM)
    identity, noisy = aevb.pooled(np.eye(DIM), scale), aevb.noisy(scale)
    assert type(identity(p)) is aevb.DiagNormal
    restored, expected = identity.restore(p, y), noisy.restore(p, y)
    for found, truth in [
        (identity(p).mean, noisy(p).mean),
        (identity(p).log_prob(y), noisy(p).log_prob(y)),
        (identity.given(x).log_prob(y), noisy.given(x).log_prob(y)),
        (restored.mean, expected.mean),
        (restored.log_prob(x), expected.log_prob(x)),
    ]:
        np.testing.assert_allclose(found, truth, rtol=1e-11)


@in_float64
def test_a_traced_matrix_is_the_same_channel():
    y = np.array([0.5, -1.0])

    def log_p(matrix):
        channel = aevb.pooled(matrix, 0.3)
        return channel(normal()).log_prob(y), channel.restore(normal(), y).mean

    traced, seen = jax.jit(log_p)(BLOCKS), log_p(BLOCKS)
    for found, truth in zip(traced, seen, strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-11)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 4), ()])
def test_a_matrix_without_two_axes_is_refused(shape):
    with pytest.raises(ValueError, match=r"matrix has the shape .*, expected \[M, D\]"):
        aevb.pooled(np.ones(shape), 0.3)
