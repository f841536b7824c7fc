"""A linear-Gaussian model behind a channel, p(z, x|y) in closed form; its kernels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb

LATENT_DIM, DATA_DIM = 2, 4
EXACT, WRONG = ((0.0, 0.0), 1.0), ((0.6, -0.2), 1.4)  # see Answer.diagonal
OBSERVED = np.array([False, True, False, True])


class Answer(NamedTuple):
    """p(z, x|y) = N(loc + gain y, covariance), in float64 of NumPy; y is `[M]`."""

    loc: np.ndarray
    gain: np.ndarray
    covariance: np.ndarray

    def mean(self, y):
        """E[(z, x)|y] `[J + D]`."""
        return self.loc + self.gain @ np.asarray(y, np.float64)

    def encode(self, y):
        """p(z|y)."""
        root = np.linalg.cholesky(self.covariance[:LATENT_DIM, :LATENT_DIM])
        return aevb.MultivariateNormal(self._loc(y), jnp.asarray(root, y.dtype))

    def diagonal(self, y, shift, widen):
        """p(z|y) without its covariances, some deviations off, and so much too wide."""
        variances = np.diagonal(self.covariance)[:LATENT_DIM]
        log_scale = jnp.asarray(np.log(variances) / 2, y.dtype)
        loc = self._loc(y) + jnp.asarray(shift, y.dtype) * jnp.exp(log_scale)
        return aevb.DiagNormal(loc, log_scale + jnp.log(widen))

    def _loc(self, y):
        loc, gain = (jnp.asarray(a[:LATENT_DIM], y.dtype) for a in self[:2])
        return loc + gain @ y


class Case(NamedTuple):
    """A model and a channel.

    Attributes:
      decode: z -> p(x|z).
      prior: p(z), not the standard normal.
      observe: the channel.
      measured: y as the channel has it -> `[M]` as the closed form has it.
      of_x: p(z|x); it has no covariances.
      of_y: p(z, x|y).
      free: `[J + D]` which of (z, x) y leaves open.
      y: some y of the channel.
    """

    decode: Callable
    prior: Any
    observe: Any
    measured: Callable
    of_x: Answer
    of_y: Answer
    free: np.ndarray
    y: jax.Array


def linear_case(channel):
    """The case of a channel's name, in the float type that is the default now."""
    weights = np.array([[1.0, 0.4], [-0.5, 0.8], [0.5, -1.0], [1.0, 0.5]])
    bias, scale = np.array([1.0, 0.0, -1.0, 0.5]), 0.75
    loc, prior_scale = np.array([0.5, -1.0]), np.array([1.5, 0.75])
    x = jnp.array([-1.0, 0.0, 1.0, 2.0])
    free, measured = np.ones(LATENT_DIM + DATA_DIM, bool), lambda y: y
    match channel:
        case "masked":
            observe, matrix = aevb.masked(jnp.array(OBSERVED)), np.eye(4)[OBSERVED]
            noise, y = 0.0, jnp.where(OBSERVED, x, jnp.nan)
            measured = lambda y: y[np.flatnonzero(OBSERVED)]  # noqa: E731
            free[LATENT_DIM:] = ~OBSERVED
        case "noisy":
            observe, matrix = aevb.noisy(0.5), np.eye(4)
            noise, y = 0.25, x + 0.3
        case "pooled":  # rows with a dimension in common
            matrix = np.array([[1.0, -0.5, 0.0, 0.0], [0.0, 0.5, -1.0, 0.5]])
            observe = aevb.pooled(jnp.array(matrix), 0.5)
            noise, y = 0.25, jnp.array([1.0, -0.5])

    def answer(matrix, noise):
        """The Gaussian of (z, x), conditioned on y = A x + noise."""
        root = np.block(
            [
                [np.diag(prior_scale), np.zeros(weights.T.shape)],
                [weights * prior_scale, scale * np.eye(len(bias))],
            ]
        )
        mean, covariance = np.concatenate([loc, weights @ loc + bias]), root @ root.T
        see = np.concatenate([np.zeros((len(matrix), len(loc))), matrix], axis=1)
        of_y = see @ covariance @ see.T + noise * np.eye(len(matrix))
        gain = np.linalg.solve(of_y, see @ covariance).T
        return Answer(
            mean - gain @ see @ mean, gain, covariance - gain @ see @ covariance
        )

    return Case(
        decode=lambda z: aevb.DiagNormal(
            jnp.array(weights) @ z + jnp.array(bias), jnp.full(4, np.log(scale))
        ),
        prior=aevb.DiagNormal(jnp.array(loc), jnp.log(jnp.array(prior_scale))),
        observe=observe,
        measured=measured,
        of_x=answer(np.eye(DATA_DIM), 0.0),
        of_y=answer(matrix, noise),
        free=free,
        y=y,
    )


KERNELS = {
    "pseudo-Gibbs": lambda prior, *model: aevb.pseudo_gibbs(*model),
    "Metropolis": lambda prior, *model: aevb.metropolis_within_gibbs(
        *model, prior=prior
    ),
    "collapsed": lambda prior, *model: aevb.collapsed_metropolis_within_gibbs(
        *model, prior=prior, prior_share=0.1
    ),
    "LAIR": lambda prior, *model: aevb.latent_adaptive_resampling(
        *model, prior=prior, num_prior=2
    ),
}


def linear_kernel(name, error, y, case):
    """A kernel of the case, whose encoder has an error: `EXACT` or `WRONG`."""
    encode = lambda x: case.of_x.diagonal(x, *error)  # noqa: E731
    return KERNELS[name](case.prior, encode, case.decode, case.observe, y)


def steps(kernel, key, chains, num_steps):
    """The chains after some steps, and the `ChainInfo` of each."""
    return jax.lax.scan(
        lambda chains, t: kernel.step(jax.random.fold_in(key, t), chains),
        chains,
        jnp.arange(num_steps),
    )
