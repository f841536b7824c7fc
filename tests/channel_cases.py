"""Likelihoods and what is seen of an x, for tests of channels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import aevb

KEY = jax.random.key(0)
DIM = 4
OBSERVED = np.array([True, False, True, False])
EVERY_X = np.array(list(itertools.product([0.0, 1.0], repeat=DIM)))
BLOCKS = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]])
OVERLAPPING = np.random.default_rng(3).normal(size=(3, DIM))


def bernoulli(seed=0):
    return aevb.Bernoulli(jnp.asarray(2 * np.random.default_rng(seed).normal(size=DIM)))


def normal(seed=0):
    loc, log_scale = np.random.default_rng(seed).normal(size=(2, DIM))
    return aevb.DiagNormal(jnp.asarray(loc), jnp.asarray(log_scale / 2))


def multivariate(seed=0):
    rng = np.random.default_rng(seed)
    scale_tril = np.tril(rng.normal(size=(DIM, DIM)), -1) + np.diag([0.3, 1, 0.5, 2])
    return aevb.MultivariateNormal(
        jnp.asarray(rng.normal(size=DIM)), jnp.asarray(scale_tril)
    )


def dense(p):
    """The mean and the covariance of a Gaussian, for NumPy."""
    if isinstance(p, aevb.DiagNormal):
        variances = np.exp(2 * np.asarray(p.log_scale, np.float64))
        return np.asarray(p.loc), np.diag(np.broadcast_to(variances, p.loc.shape))
    root = np.asarray(p.scale_tril, np.float64)
    return np.asarray(p.loc), root @ root.T


def log_density(value, mean, covariance):
    return scipy.stats.multivariate_normal.logpdf(value, mean, covariance)


def log_flips(x, y, rate):
    """log p(y|x), one a pixel."""
    return np.log(np.where(x == y, 1 - rate, rate))
