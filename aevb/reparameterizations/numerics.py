"""Elementary functions that stay finite, and exact, at the ends of float32."""

import math
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["keep_inside", "log1mexp", "log_ratio", "safe_exp", "safe_sigmoid", "xlogy"]


def safe_exp(y: jax.Array) -> jax.Array:
    """eʸ, kept off 0 and 1e-9 times the largest number; beyond, no gradient.

    XLA may flush what is smaller to 0. What a large draw is multiplied by in a gradient
    has to find room below infinity.
    """
    info = jnp.finfo(jnp.result_type(y))
    low, high = math.log(float(info.tiny)) + 0.01, math.log(float(info.max) / 1e9)
    return jnp.exp(jnp.clip(y, low, high))


def safe_sigmoid(y: jax.Array) -> jax.Array:
    """1 / (1 + e⁻ʸ), kept above 0 and below 1; there, no gradient."""
    info = jnp.finfo(jnp.result_type(y))
    # At the upper end 1 − z is one unit in the last place.
    low, high = math.log(float(info.tiny)) + 0.01, -math.log(float(info.epsneg))
    z = jax.nn.sigmoid(jnp.clip(y, low, high))
    return jnp.minimum(z, jnp.asarray(1 - info.epsneg, info.dtype))


def keep_inside(z: jax.Array, low: Any, high: Any) -> jax.Array:
    """z, moved off an end that rounding has brought it to, with the gradient of z."""
    if low == -jnp.inf and high == jnp.inf if _are_static(low, high) else False:
        return z
    info = jnp.finfo(z.dtype)
    low, high = (
        jax.lax.stop_gradient(jnp.asarray(end, z.dtype)) for end in (low, high)
    )
    least = jnp.where(low == 0, jnp.asarray(info.tiny, z.dtype), _next(low, high))
    most = jnp.where(high == 0, jnp.asarray(-info.tiny, z.dtype), _next(high, low))
    moved = jnp.clip(jax.lax.stop_gradient(z), least, most)
    return z + jax.lax.stop_gradient(moved - z)


def _are_static(*values: Any) -> bool:
    return all(isinstance(value, float | int) for value in values)


def _next(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.nextafter(a, jnp.broadcast_to(b, jnp.broadcast_shapes(a.shape, b.shape)))


def log1mexp(x: jax.Array) -> jax.Array:
    """log(1 − eˣ) of x < 0 (Mächler 2012)."""
    is_near = x > -0.6931472
    near, far = jnp.where(is_near, x, -1.0), jnp.where(is_near, -1.0, x)
    return jnp.where(is_near, jnp.log(-jnp.expm1(near)), jnp.log1p(-jnp.exp(far)))


def log_ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """log(a / b), with the gradients 1/a and −1/b, where a / b overflows as well."""
    log, ratio = jnp.log(a) - jnp.log(b), a / b
    # The logarithm of the quotient is the more exact where there is one.
    is_finite = (ratio > 0) & (ratio < jnp.inf)
    exact = jnp.where(is_finite, jnp.log(jnp.where(is_finite, ratio, 1)), log)
    return log + jax.lax.stop_gradient(exact - log)


def xlogy(x: jax.Array | float, y: jax.Array) -> jax.Array:
    """x log y, and 0 where x is 0, at y = 0 too."""
    is_zero = x == 0
    log = jnp.log(jnp.where(is_zero, 1, y))
    return jnp.where(is_zero, 0, x * log)
