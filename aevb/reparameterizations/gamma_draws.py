"""Draws of the gamma distribution as logarithms, with their implicit gradient."""

import jax
import jax.numpy as jnp

__all__ = ["log_gamma_draw"]

# From here on a series has the gradient: to 2e-5 at 60 in the tails, to 1e-6 at 1e3;
# jax.lax.random_gamma_grad, right to 1e-5 below, is 3e-5 off at 1e3, 6e-4 at 1e4 and
# 7e-2 at 1e6 (float32, measured against −(dF/da) / f in float64).
_LARGE = 60.0


def log_gamma_draw(key: jax.Array, a: jax.Array) -> jax.Array:
    """Draws log g, g ~ Gamma(a, 1): finite where g itself would be 0.

    `jax.random.gamma(key, 0.001)` is 0 in 91 % of its draws. For a < 1 this is a
    composition: log g = log g' − E / a, g' ~ Gamma(a + 1, 1), E exponential (Marsaglia
    and Tsang 2000). The gradient in a is implicit, dg/da = −(dF/da) / f.

    Args:
      key: consumed.
      a: `[...]` positive.

    Returns:
      `[...]` of a's shape and dtype.

    Source: Figurnov, Mohamed and Mnih, arXiv 1805.08498.

    >>> draws = log_gamma_draw(jax.random.key(0), jnp.full(1000, 1e-3))
    >>> bool(jnp.all(jnp.isfinite(draws)))
    True
    """
    draw_key, boost_key = jax.random.split(key)
    is_small = a < 1
    base = jnp.where(is_small, a + 1, a)
    draw = jax.random.gamma(draw_key, jax.lax.stop_gradient(base), a.shape, a.dtype)
    exponential = jax.random.exponential(boost_key, a.shape, a.dtype)
    boost = jnp.where(is_small, -exponential / jnp.where(is_small, a, 1), 0)
    return jnp.log(_implicit(draw, base)) + boost


@jax.custom_jvp
def _implicit(draw: jax.Array, a: jax.Array) -> jax.Array:
    """The draw as it is, with its implicit gradient in a."""
    del a
    return draw


@_implicit.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    draw, a = primals
    _, tangent = tangents
    is_large = a >= _LARGE
    below = jnp.minimum(a, _LARGE)
    near = jax.lax.random_gamma_grad(below, jnp.where(is_large, below, draw))
    far = _series_gradient(jnp.maximum(a, _LARGE), draw)
    return draw, tangent * jnp.where(is_large, far, near)


def _series_gradient(a: jax.Array, draw: jax.Array) -> jax.Array:
    """dg/da at a fixed normal number e, from Cornish and Fisher's series of g(a, e)."""
    root = jnp.sqrt(a)
    e = (draw - a) / root
    for _ in range(3):  # Newton's method for e of the draw
        excess = (
            (e**2 - 1) / 3
            + (e**3 - 7 * e) / (36 * root)
            - (3 * e**4 + 7 * e**2 - 16) / (810 * a)
        )
        slope = root + 2 * e / 3 + (3 * e**2 - 7) / (36 * root)
        e -= (root * e + excess - (draw - a)) / slope
    curvature = (
        e / 2
        - (e**3 - 7 * e) / (72 * a)
        + (3 * e**4 + 7 * e**2 - 16) / (810 * a * root)
    )
    return 1 + curvature / root
