"""KL divergences in closed form, one function a pair of families."""

import jax
import jax.numpy as jnp

from aevb.distributions import (
    Bernoulli,
    DiagNormal,
    MultivariateNormal,
    Product,
    check_shape,
    normal_shape,
    softplus,
)

__all__ = ["kl_divergence"]


def kl_divergence(q: object, p: object) -> jax.Array:
    """KL(q ‖ p) in closed form, in nats; zero when q = p.

    Two `DiagNormal`s (Appendix B, for any p):
    Σⱼ log(σ_p/σ_q) + (σ_q² + (μ_q − μ_p)²) / (2σ_p²) − ½.
    Two `Bernoulli`s: Σ_d y_q (l_q − l_p) + softplus(l_p) − softplus(l_q).
    A `MultivariateNormal` q, with covariance Σ, and a `DiagNormal` p:
    ½ Σⱼ [log σ_p² + (Σⱼⱼ + (μ_q − μ_p)²) / σ_p² − 1] − ½ log det Σ.
    Two `Product`s of the same structure: Σ_k KL(q_k ‖ p_k).

    Args:
      q: the distribution that the expectation is under.
      p: the other one.

    Returns:
      `[]` the divergence.

    Raises:
      ValueError: q and p are over values of different shapes or structures.
      TypeError: there is no closed form here for this pair of types. Pass one as
        `kl=` (numpyro's `kl_divergence`, say), or use `elbo_generic`, which needs none.

    >>> standard = DiagNormal(jnp.zeros(2), jnp.zeros(2))
    >>> print(kl_divergence(DiagNormal(jnp.ones(2), jnp.zeros(2)), standard))
    1.0
    """
    if isinstance(q, DiagNormal) and isinstance(p, DiagNormal):
        return jax.tree.reduce(
            jnp.add, jax.tree.map(_kl_normal, q.loc, q.log_scale, p.loc, p.log_scale)
        )
    if isinstance(q, MultivariateNormal) and isinstance(p, DiagNormal):
        row_scale = 0.5 * jnp.log(jnp.sum(q.scale_tril**2, axis=-1))
        marginals = _kl_normal(q.loc, row_scale, p.loc, p.log_scale)
        log_det = jnp.sum(jnp.log(jnp.diagonal(q.scale_tril)))
        return marginals + jnp.sum(row_scale) - log_det
    if isinstance(q, Bernoulli) and isinstance(p, Bernoulli):
        check_shape("p", jnp.shape(p.logits), jnp.shape(q.logits))
        return jnp.sum(
            q.mean * (q.logits - p.logits) + softplus(p.logits) - softplus(q.logits)
        )
    if isinstance(q, Product) and isinstance(p, Product):
        (qs, structure), (ps, expected) = q.flatten(), p.flatten()
        if structure != expected:
            raise ValueError(
                f"q is a product over {structure}, p one over {expected}: expected "
                "the same parts in both"
            )
        return jax.tree.reduce(jnp.add, list(map(kl_divergence, qs, ps)))
    raise TypeError(
        f"no closed-form KL divergence from {type(q).__name__} to {type(p).__name__}: "
        "pass one as kl=..., or use aevb.elbo_generic (eq. 6), which needs none"
    )


def _kl_normal(
    loc_q: jax.Array, log_scale_q: jax.Array, loc_p: jax.Array, log_scale_p: jax.Array
) -> jax.Array:
    shape_q = normal_shape(loc_q, log_scale_q)
    check_shape("p", normal_shape(loc_p, log_scale_p), shape_q)
    log_ratio = jnp.broadcast_to(log_scale_q - log_scale_p, shape_q)
    distance = (loc_q - loc_p) * jnp.exp(-log_scale_p)
    return 0.5 * jnp.sum(jnp.exp(2 * log_ratio) + distance**2 - 1 - 2 * log_ratio)
