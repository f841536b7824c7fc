"""Exactly solvable models, to check an estimator against the truth.

`linear_gaussian` has everything in closed form. For up to three latent dimensions
`quadrature` (of `aevb.marginal`) integrates any decoder to rounding error.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.distributions import Bernoulli, DiagNormal, MultivariateNormal
from aevb.marginal.integration import Quadrature, quadrature
from aevb.products import matmul
from aevb.types import Decode

__all__ = [
    "LinearGaussian",
    "Quadrature",
    "bernoulli_decoder",
    "linear_gaussian",
    "quadrature",
]


class LinearGaussian(NamedTuple):
    """Probabilistic PCA with the truth about it: z ~ N(0, I), x ~ N(W z + b, σ² I).

    Attributes:
      decode: `decode(z) -> p(x|z)`.
      posterior: `posterior(x) -> p(z|x)`, exact, with full covariance: as an encoder
        it makes every log weight log p(x).
      best_encode: `best_encode(x) -> q(z|x)`, the diagonal Gaussian with the highest
        bound: the posterior's mean, and the inverses of its precision's diagonal.
      log_likelihood: `log_likelihood(x) -> []`, log p(x) in nats.
      best_bound: `best_bound(x) -> []`, the bound of `best_encode`, in nats.
    """

    decode: Decode
    posterior: Callable[[jax.Array], MultivariateNormal]
    best_encode: Callable[[jax.Array], DiagNormal]
    log_likelihood: Callable[[jax.Array], jax.Array]
    best_bound: Callable[[jax.Array], jax.Array]


def linear_gaussian(
    weights: jax.Array, bias: jax.Array, log_scale: float | jax.Array
) -> LinearGaussian:
    """The linear-Gaussian model of given weights, whose every quantity is closed form.

    With A = I + WᵀW/σ²: p(x) = N(b, W Wᵀ + σ² I), p(z|x) = N(A⁻¹ Wᵀ(x − b)/σ², A⁻¹),
    and the best diagonal q has the same mean and variances 1/A_jj; its bound is below
    log p(x) by KL = ½ (Σ_j log A_jj − log det A).

    Args:
      weights: `[D, J]` W.
      bias: `[D]` b.
      log_scale: `[]` log σ of the observation noise.

    Returns:
      `LinearGaussian`.

    >>> model = linear_gaussian(jnp.ones((1, 1)), jnp.zeros(1), 0.0)
    >>> print(f"{model.log_likelihood(jnp.zeros(1)):.4f}")  # N(0; 0, 2)
    -1.2655
    """
    data_dim, latent_dim = weights.shape
    log_scale = jnp.asarray(log_scale, weights.dtype)
    variance = jnp.exp(2 * log_scale)
    precision = (
        jnp.eye(latent_dim, dtype=weights.dtype) + matmul(weights.T, weights) / variance
    )
    covariance = jnp.linalg.inv(precision)
    scale_tril = jnp.linalg.cholesky(0.5 * (covariance + covariance.T))
    marginal = matmul(weights, weights.T) + variance * jnp.eye(
        data_dim, dtype=weights.dtype
    )
    evidence = MultivariateNormal(bias, jnp.linalg.cholesky(marginal))
    diagonal = jnp.diagonal(precision)
    gap = 0.5 * (jnp.sum(jnp.log(diagonal)) - jnp.linalg.slogdet(precision)[1])

    def decode(z: jax.Array) -> DiagNormal:
        return DiagNormal(
            matmul(weights, z) + bias, jnp.broadcast_to(log_scale, (data_dim,))
        )

    def posterior_mean(x: jax.Array) -> jax.Array:
        return matmul(covariance, matmul(weights.T, x - bias)) / variance

    return LinearGaussian(
        decode=decode,
        posterior=lambda x: MultivariateNormal(posterior_mean(x), scale_tril),
        best_encode=lambda x: DiagNormal(posterior_mean(x), -0.5 * jnp.log(diagonal)),
        log_likelihood=evidence.log_prob,
        best_bound=lambda x: evidence.log_prob(x) - gap,
    )


def bernoulli_decoder(
    key: jax.Array, *, latent_dim: int, data_dim: int, scale: float = 1.5
) -> Decode:
    """A random small Bernoulli decoder, x ~ Bernoulli(logits = W tanh(z) + V z + b).

    Not conjugate to anything: hold estimators against `quadrature` on it.

    Args:
      key: consumed; W, V and b are normal with the given standard deviation.
      latent_dim: J.
      data_dim: D.
      scale: of the weights; larger makes a sharper and less Gaussian posterior.

    Returns:
      `decode(z) -> Bernoulli` over `[D]`.

    >>> decode = bernoulli_decoder(jax.random.key(0), latent_dim=1, data_dim=5)
    >>> decode(jnp.zeros(1)).logits.shape
    (5,)
    """
    latent_dim = check_count("latent_dim", latent_dim)
    data_dim = check_count("data_dim", data_dim)
    w_key, v_key, b_key = jax.random.split(key, 3)
    w = scale * jax.random.normal(w_key, (data_dim, latent_dim))
    v = 0.5 * scale * jax.random.normal(v_key, (data_dim, latent_dim))
    b = scale * jax.random.normal(b_key, (data_dim,))
    return lambda z: Bernoulli(matmul(w, jnp.tanh(z)) + matmul(v, z) + b)
