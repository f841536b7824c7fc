"""The truth about log p(x), by integration over up to three latent dimensions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.estimators import log_joint
from aevb.products import matmul
from aevb.types import Decode, Posterior

__all__ = ["Quadrature", "quadrature"]


class Quadrature(NamedTuple):
    """The truth about one datapoint, by integration over z.

    Attributes:
      log_likelihood: `[]` log p(x) = log ∫ p(x|z) p(z) dz, in nats.
      mean: `[J]` the posterior mean E[z|x].
      covariance: `[J, J]` the posterior covariance.
    """

    log_likelihood: jax.Array
    mean: jax.Array
    covariance: jax.Array


def quadrature(
    decode: Decode,
    x: jax.Array,
    *,
    latent_dim: int,
    num_points: int = 401,
    limit: float = 9.0,
    prior: Posterior | None = None,
    loc: jax.Array | None = None,
    scale_tril: jax.Array | None = None,
) -> Quadrature:
    """Integrates a model with up to three latent dimensions on a grid.

    log p(x) = log |det S| hᴶ Σ_u p(x, m + S u),  u on the grid of spacing h

    The trapezoidal rule on u in [−limit, limit]^J; for an analytic integrand that
    vanishes at the ends its error falls faster than any power of the spacing. The
    spacing must resolve the posterior: `2 limit / num_points` below its standard
    deviation, in units of S. A posterior that is too narrow for the grid around the
    prior is integrated again around the mean and covariance found first:

        truth = quadrature(decode, x, latent_dim=3, num_points=101)
        truth = quadrature(decode, x, latent_dim=3, num_points=101, loc=truth.mean,
                           scale_tril=jnp.linalg.cholesky(truth.covariance))

    Args:
      decode: z `[J]` -> p(x|z).
      x: `[D]` one datapoint; binary under a `Bernoulli`.
      latent_dim: J; the grid has `num_points` ** J points (101 are 1e6 with J = 3).
      num_points: along each axis.
      limit: where each axis ends, in units of S.
      prior: p(z); None is the standard normal.
      loc: `[J]` m, the middle of the grid; None is 0.
      scale_tril: `[J, J]` S, lower triangular; None is the identity.

    Returns:
      `Quadrature`.

    Raises:
      ValueError: latent_dim is not 1, 2 or 3; `num_points` is below 2; x has grey
        levels under a `Bernoulli`.

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> truth = quadrature(decode, jnp.zeros(1), latent_dim=1)
    >>> print(f"{truth.log_likelihood:.4f} {truth.covariance[0, 0]:.4f}")
    -1.2655 0.5000
    """
    latent_dim = check_count("latent_dim", latent_dim)
    num_points = check_count("num_points", num_points, least=2)
    if latent_dim > 3:
        raise ValueError(
            f"latent_dim is {latent_dim}, expected 1, 2 or 3: a grid of {num_points} "
            f"points along each axis would have {num_points}^{latent_dim}; use "
            "aevb.annealed_log_likelihood"
        )
    loc = jnp.zeros(latent_dim) if loc is None else loc
    scale_tril = jnp.eye(latent_dim) if scale_tril is None else scale_tril
    axis = jnp.linspace(-limit, limit, num_points)
    shape = (num_points,) * latent_dim

    def log_density(index: jax.Array) -> jax.Array:
        u = jnp.stack([axis[i] for i in jnp.unravel_index(index, shape)])
        return log_joint(decode, loc + matmul(scale_tril, u), x, prior=prior)

    # The grid is made as it is visited: what is stored is one number a point.
    log_mass = jax.lax.map(
        log_density, jnp.arange(num_points**latent_dim), batch_size=4096
    )
    log_mass += latent_dim * math.log(2 * limit / (num_points - 1))
    log_mass += jnp.linalg.slogdet(scale_tril)[1]
    log_likelihood = jax.nn.logsumexp(log_mass)
    weights = jnp.exp(log_mass - log_likelihood).reshape(shape)

    us = jnp.meshgrid(*[axis] * latent_dim, indexing="ij", sparse=True)
    mean = jnp.stack([jnp.sum(weights * u) for u in us])
    centred = [u - m for u, m in zip(us, mean, strict=True)]
    covariance = jnp.stack(
        [jnp.stack([jnp.sum(weights * u * v) for v in centred]) for u in centred]
    )
    return Quadrature(
        log_likelihood=log_likelihood,
        mean=loc + matmul(scale_tril, mean),
        covariance=matmul(matmul(scale_tril, covariance), scale_tril.T),
    )
