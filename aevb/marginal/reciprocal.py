"""Appendix D: log p(x) from posterior draws and a density fitted to part of them."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from aevb.distributions import MultivariateNormal
from aevb.estimators import log_joint
from aevb.products import matmul
from aevb.records import record
from aevb.types import Decode, Posterior, PyTree

__all__ = [
    "Density",
    "KernelDensity",
    "ReciprocalEstimate",
    "fit_kernel_density",
    "fit_normal",
    "reciprocal_log_likelihood",
]


class Density(Protocol):
    """A normalised density over z."""

    def log_prob(self, z: jax.Array) -> jax.Array:
        """The log density of one z `[J]`, in nats. `[]`"""
        ...


class ReciprocalEstimate(NamedTuple):
    """Appendix D's estimate of log p(x).

    Attributes:
      log_likelihood: `[]` in nats. With exact posterior draws its expectation is
        *above* log p(x); with a chain that has not mixed it may be on either side.
      ess: `[]` effective number of draws that count in the sum, between 1 and the
        number of draws in the second half. It does not see correlation along a chain.
      std_error: `[]` delta-method standard error from the spread between chains, in
        nats: correlation along a chain is in it.
    """

    log_likelihood: jax.Array
    ess: jax.Array
    std_error: jax.Array


@record
class KernelDensity:
    """A Gaussian kernel density: (1/L) Σ_l N(z; z_l, S Sᵀ).

    Attributes:
      locs: `[L, J]` the draws it stands on.
      scale_tril: `[J, J]` the kernels' Cholesky factor S.
    """

    locs: jax.Array
    scale_tril: jax.Array

    def log_prob(self, z: jax.Array) -> jax.Array:
        """The log density of one z, in nats. `[]`"""
        kernel = MultivariateNormal(jnp.zeros_like(z), self.scale_tril)
        log_kernels = jax.vmap(kernel.log_prob)(z[None, :] - self.locs)
        return jax.nn.logsumexp(log_kernels) - math.log(len(self.locs))


def fit_normal(zs: jax.Array) -> MultivariateNormal:
    """The Gaussian with the draws' mean and full covariance.

    Args:
      zs: `[L, J]`, L > J.

    Returns:
      `MultivariateNormal`.

    Raises:
      ValueError: too few draws for a covariance.

    >>> q = fit_normal(jnp.array([[-1.0], [0.0], [1.0]]))
    >>> print(q.loc, q.scale_tril)
    [0.] [[1.]]
    """
    num_draws, latent_dim = zs.shape
    if num_draws <= latent_dim:
        raise ValueError(
            f"{num_draws} draws of {latent_dim} dimensions have a singular covariance: "
            f"expected more than {latent_dim}"
        )
    loc = jnp.mean(zs, axis=0)
    centred = zs - loc[None, :]
    covariance = matmul(centred.T, centred) / (num_draws - 1)
    return MultivariateNormal(loc, jnp.linalg.cholesky(covariance))


def fit_kernel_density(zs: jax.Array) -> KernelDensity:
    """A kernel density whose bandwidth is chosen on held-out draws.

    Kernels have the draws' covariance times h². Of ten values h = L^{−1/(J+4)}
    e^{(i−5)/2}, around Scott's rule, the one is taken under which the second half of
    the draws is likeliest given the first; then all draws become kernels.

    Args:
      zs: `[L, J]`, ordered by chain, so that the two halves are of disjoint chains.

    Returns:
      `KernelDensity`.

    Raises:
      ValueError: too few draws for a covariance.

    Source: the author's code (`dpkingma/anglepy`, `hmc_est`).

    >>> zs = jax.random.normal(jax.random.key(0), (2000, 1))
    >>> density = fit_kernel_density(zs)
    >>> bool(abs(density.log_prob(jnp.zeros(1)) + 0.919) < 0.1)  # N(0; 0, 1)
    True
    """
    num_draws, latent_dim = zs.shape
    scale_tril = fit_normal(zs).scale_tril
    first, second = zs[: num_draws // 2], zs[num_draws // 2 :]

    def factors(num_kernels: int) -> jax.Array:
        scott = num_kernels ** (-1 / (latent_dim + 4))
        return scott * jnp.exp((jnp.arange(10, dtype=zs.dtype) - 5) / 2)

    def held_out(factor: jax.Array) -> jax.Array:
        density = KernelDensity(first, factor * scale_tril)
        return jnp.mean(jax.vmap(density.log_prob)(second))

    best = jnp.argmax(jax.lax.map(held_out, factors(len(first))))
    return KernelDensity(zs, factors(num_draws)[best] * scale_tril)


def reciprocal_log_likelihood(
    decode: Decode,
    x: jax.Array,
    zs: PyTree,
    *,
    prior: Posterior | None = None,
    fit: Callable[[jax.Array], Density] = fit_normal,
) -> ReciprocalEstimate:
    """Estimates log p(x) from posterior draws: Appendix D's reciprocal estimator.

    p(x) ≈ [(1/L) Σ_l q(z_l) / (p(z_l) p(x|z_l))]⁻¹,  z_l ~ p(z|x)

    The first half of the *chains* fits q, the second half makes the sum. Disjoint
    chains, and not two halves of each: q is then independent of the z_l, so that the
    sum is unbiased for 1/p(x) and its reciprocal biased up. The variance is finite
    only if q has tails no heavier than the posterior; it is of use in a few dimensions
    (the paper says below five).

    Args:
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      x: `[D]` one datapoint; binary under a `Bernoulli`.
      zs: `[C, L, J]` L posterior draws of each of C chains, such as
        `aevb.sample_posterior(...).zs`; or a pytree of z with two such leading axes.
      prior: p(z); None is the standard normal of z's shape.
      fit: `fit(zs [N, J]) -> Density`, such as `fit_normal` or `fit_kernel_density`; J
        counts the numbers in all leaves of z.

    Returns:
      `ReciprocalEstimate` of scalars.

    Raises:
      ValueError: fewer than four chains (two to fit, two to tell the error); x has
        grey levels under a `Bernoulli` (seen where x is not traced).

    Source: Appendix D; Gelfand and Dey (1994), J. R. Stat. Soc. B 56(3).

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> zs = jnp.sqrt(0.5) * jax.random.normal(jax.random.key(0), (4, 500, 1))
    >>> estimate = reciprocal_log_likelihood(decode, jnp.zeros(1), zs)
    >>> print(f"{estimate.log_likelihood:.1f}")
    -1.3
    """
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0, 0], zs))
    flat_zs = jax.vmap(jax.vmap(lambda z: ravel_pytree(z)[0]))(zs)
    num_chains, _, latent_dim = flat_zs.shape
    if num_chains < 4:
        raise ValueError(
            f"zs has {num_chains} chains, expected at least 4: two for the density and "
            "two for the sum and its error"
        )
    half = num_chains // 2
    q = fit(flat_zs[:half].reshape(-1, latent_dim))

    def log_ratio(z: jax.Array) -> jax.Array:
        return q.log_prob(z) - log_joint(decode, unravel(z), x, prior=prior)

    log_r = jax.vmap(jax.vmap(log_ratio))(flat_zs[half:])
    peak = jnp.max(log_r)
    r = jnp.exp(log_r - peak)
    chain_means = jnp.mean(r, axis=1)
    mean = jnp.mean(chain_means)
    return ReciprocalEstimate(
        log_likelihood=-(peak + jnp.log(mean)),
        ess=jnp.sum(r) ** 2 / jnp.sum(r**2),
        std_error=jnp.std(chain_means, ddof=1) / jnp.sqrt(len(chain_means)) / mean,
    )
