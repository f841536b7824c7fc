"""The truncated standard normal in float32, where all of its mass is far out.

Everything here is of ends a < b with a + b ≥ 0: the tail above a, Q(a) = P(Z > a), is
what the truncation begins with. (Else mirror it: −b, −a, and q for p.) At 20 standard
deviations Q is e^−203, and the rounding of z alone moves it by 1e-5; so a tail is known
here by its hazard h = φ/Q and by ratios of tails, and z by its distance from a.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtri

from aevb.reparameterizations.levels import Level

__all__ = [
    "TAIL",
    "bulk_quantile",
    "hazard",
    "log_tail_ratio",
    "log_upper_tail",
    "tail_excess",
]

# Ends above it are tails: z is then known by its distance from a, relative to that.
TAIL = -2.0
_LOG_2PI = math.log(2 * math.pi)
_FRACTION_TERMS = 40
_NODES, _WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(10))


def log_upper_tail(z: jax.Array) -> jax.Array:
    """log Q(z) = log P(Z > z)."""
    return log_ndtr(-z)


@jax.custom_jvp
def hazard(z: jax.Array) -> jax.Array:
    """h(z) = φ(z) / Q(z), to rounding for every z."""
    return z + _excess_hazard(z)


@hazard.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # h' = h (h − z): a fraction of forty terms is not to be differentiated.
    (z,), (tangent,) = primals, tangents
    excess = _excess_hazard(z)
    return z + excess, tangent * (z + excess) * excess


def _excess_hazard(z: jax.Array) -> jax.Array:
    """h(z) − z: of z > 1 by Laplace's continued fraction 1/(z + 2/(z + 3/ ...))."""
    is_far = z > 1
    far, near = jnp.where(is_far, z, 1), jnp.where(is_far, 0, z)
    fraction = jnp.zeros_like(z)
    for term in range(_FRACTION_TERMS, 0, -1):
        fraction = term / (far + fraction)
    hazard = jnp.exp(-0.5 * (near**2 + _LOG_2PI) - log_upper_tail(near))
    return jnp.where(is_far, fraction, hazard - near)


def _mean_between(
    function: Callable[[jax.Array], jax.Array], a: jax.Array, d: jax.Array
) -> jax.Array:
    """The mean of a function over (a, a + d), by ten points of Gauss and Legendre."""
    # One call for all points: a hazard is some hundred operations to compile.
    column = (-1, *(1 for _ in jnp.shape(d)))
    nodes = jnp.asarray(_NODES + 0.5, d.dtype).reshape(column)
    weights = jnp.asarray(_WEIGHTS, d.dtype).reshape(column)
    return jnp.sum(weights * function(a[None] + nodes * d[None]), axis=0)


def log_tail_ratio(a: jax.Array, d: jax.Array) -> jax.Array:
    """log Q(a + d) / Q(a) = −∫ h, of a > TAIL: to rounding, however small d is."""
    short = jnp.minimum(d, 1)
    by_mean = -short * _mean_between(hazard, a, short)
    # Q = φ/h, and log φ(a + d) − log φ(a) is a product.
    ratio = hazard(a + d) / hazard(a)
    return jnp.where(d < 1, by_mean, -d * (2 * a + d) / 2 - jnp.log(ratio))


@jax.custom_jvp
def tail_excess(p: jax.Array, q: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """z − a with P(Z ≤ z | a < Z < b) = p = 1 − q, of a > TAIL."""
    log_ratio = log_tail_ratio(a, b - a)
    log_left = _log_left(p, q, log_ratio)
    # −log Q(a + d)/Q(a) = ∫ h is convex in d, so that Newton's method goes down to the
    # zero from a guess that is too large, as h is more than t and more than h(a).
    d = jnp.sqrt(a**2 - 2 * log_left) - a
    d = jnp.minimum(d, -log_left / hazard(a))

    def improve(_: int, d: jax.Array) -> jax.Array:
        return d + (log_tail_ratio(a, d) - log_left) / hazard(a + d)

    return jnp.clip(jax.lax.fori_loop(0, 5, improve, d), 0, b - a)


def _log_left(p: jax.Array, q: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """log (q + p Q(b)/Q(a)) = log Q(z)/Q(a): the part of the tail that is above z."""
    is_lower = p <= q
    near = jnp.log1p(jnp.where(is_lower, p, 0.5) * jnp.expm1(log_ratio))
    far = jnp.log(jnp.where(is_lower, 0.5, q) + p * jnp.exp(log_ratio))
    return jnp.where(is_lower, near, far)


@tail_excess.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    p, q, a, b = primals
    d = tail_excess(p, q, a, b)
    z_hazard = hazard(a + d)
    log_ratio = log_tail_ratio(a, b - a)
    ratio, left = jnp.exp(log_ratio), jnp.exp(_log_left(p, q, log_ratio))
    # h(z) − h(a) = ∫ h (h − t) dt: exact for a small d too.
    short = jnp.minimum(d, 1)
    slope = _mean_between(lambda t: hazard(t) * _excess_hazard(t), a, short)
    rise = jnp.where(d < 1, short * slope, z_hazard - hazard(a))
    above = p * ratio / left
    by_a = -above - q / left * rise / z_hazard
    by_b = above * hazard(b) / z_hazard
    by_p = -jnp.expm1(log_ratio) / (z_hazard * left)
    p_dot, q_dot, a_dot, b_dot = tangents
    return d, by_a * a_dot + by_b * b_dot + by_p * (p_dot - q_dot) / 2


@jax.custom_jvp
def bulk_quantile(p: jax.Array, q: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """z with P(Z ≤ z | a < Z < b) = p = 1 − q, of a ≤ TAIL."""
    level = Level(p, q)
    log_upper = jnp.logaddexp(
        level.log_q + log_upper_tail(a), level.log_p + log_upper_tail(b)
    )
    log_lower = jnp.logaddexp(level.log_q + log_ndtr(a), level.log_p + log_ndtr(b))
    smaller = jnp.minimum(jnp.minimum(log_upper, log_lower), math.log(0.5))
    z = _upper_quantile(smaller)
    return jnp.clip(jnp.where(log_upper <= log_lower, z, -z), a, b)


@bulk_quantile.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    p, q, a, b = primals
    z = bulk_quantile(p, q, a, b)
    log_ratio = log_upper_tail(b) - log_upper_tail(a)
    left = jnp.exp(_log_left(p, q, log_ratio))
    is_upper = z > 0
    # φ(end) / φ(z), of the upper tail by hazards and of the lower by densities.
    z_hazard = hazard(jnp.where(is_upper, z, 1))
    upper_a = hazard(a) / (z_hazard * left)
    upper_b = jnp.exp(log_ratio) * hazard(b) / (z_hazard * left)
    lower_a, lower_b = (jnp.exp((z - end) * (z + end) / 2) for end in (a, b))
    mass = jnp.exp(log_upper_tail(a)) * -jnp.expm1(log_ratio)
    by_a = q * jnp.where(is_upper, upper_a, lower_a)
    by_b = p * jnp.where(is_upper, upper_b, lower_b)
    by_p = jnp.where(
        is_upper,
        -jnp.expm1(log_ratio) / (z_hazard * left),
        mass * jnp.exp(0.5 * (jnp.where(is_upper, 0, z) ** 2 + _LOG_2PI)),
    )
    p_dot, q_dot, a_dot, b_dot = tangents
    return z, by_a * a_dot + by_b * b_dot + by_p * (p_dot - q_dot) / 2


def _upper_quantile(log_q: jax.Array) -> jax.Array:
    """z with log P(Z > z) = log_q ≤ log ½: right to 1e-7 out to 140."""
    # ndtri to e^-60 and beyond it an asymptotic series; both mended by Newton's method
    # on log Q, which is nearly a parabola.
    near = -ndtri(jnp.exp(jnp.maximum(log_q, -60.0)))
    t = -2 * jnp.minimum(log_q, -2.0) - _LOG_2PI
    far = jnp.sqrt(t - jnp.log(jnp.maximum(t, 1.0)))
    z = jnp.where(log_q > -60, near, far)
    for _ in range(2):
        log_tail = log_upper_tail(z)
        z += (log_tail - log_q) * jnp.exp(log_tail + 0.5 * (z**2 + _LOG_2PI))
    return z
