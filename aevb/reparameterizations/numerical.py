"""The fourth way: numerical approximations of an inverse CDF that has no formula.

The value of a quantile z is found numerically; its gradient needs no trace of how:
F(z; θ) = p defines z, so that dz/dθ = −(dF/dθ) / f(z) and dz/dp = 1 / f(z).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aevb.calls import check_count
from aevb.records import record, static
from aevb.reparameterizations.families import InverseCdf
from aevb.reparameterizations.levels import Level
from aevb.reparameterizations.normal_tails import (
    TAIL,
    bulk_quantile,
    hazard,
    log_tail_ratio,
    log_upper_tail,
    tail_excess,
)

__all__ = ["TruncatedNormal", "numerical_inverse_cdf"]


# An end at infinity, in standard deviations: its density is 0 in any float.
_FAR = 1e4


@record
class TruncatedNormal(InverseCdf):
    """The normal distribution N(loc, scale²), given that it is between two ends.

    Noise: u ~ U(0, 1), through an approximation of the inverse CDF that knows the tail
    by ratios: right, with its gradients, where all of the mass is 20 standard
    deviations out, and beyond. An end may be infinite.

    Attributes:
      loc: `[J]` the mean of what is truncated.
      scale: `[J]` its standard deviation.
      low: `[J]` the lower end, or −inf.
      high: `[J]` the upper end, or inf.
    """

    loc: jax.Array
    scale: jax.Array
    low: jax.Array | float = -jnp.inf
    high: jax.Array | float = jnp.inf

    @property
    def ends(self) -> tuple[Any, Any]:
        return self.low, self.high

    @property
    def mean(self) -> jax.Array:
        """Loc + scale (φ(a) − φ(b)) / (Φ(b) − Φ(a)), a and b the scaled ends. `[J]`"""
        mirror, a, b = self._nearer_first()
        # By the hazard of the nearer end, φ(a) / Q(a), of which the other has a share.
        far = jnp.exp((a - b) * (a + b) / 2)
        shift = hazard(a) * (1 - far) / self._share(a, b)
        return self.loc + self.scale * jnp.where(mirror, -shift, shift)

    def quantile_at(self, level: Level) -> jax.Array:
        mirror, a, b = self._nearer_first()
        p = jnp.where(mirror, level.q, level.p)
        q = jnp.where(mirror, level.p, level.q)
        is_tail = a > TAIL
        # Each of the two where it holds; of the other, numbers that do no harm.
        bulk = bulk_quantile(
            p, q, jnp.where(is_tail, TAIL, a), jnp.where(is_tail, 2.0, b)
        )
        excess = tail_excess(p, q, jnp.where(is_tail, a, 1), jnp.where(is_tail, b, 2.0))
        sign = jnp.where(mirror, -1, 1).astype(self.dtype)
        start = jnp.where(mirror, self.high, self.low)
        from_end = jnp.where(is_tail, start, 0) + sign * self.scale * excess
        return jnp.where(is_tail, from_end, self.loc + sign * self.scale * bulk)

    def log_density(self, z: jax.Array) -> jax.Array:
        mirror, a, b = self._nearer_first()
        e = jnp.where(mirror, self.loc - z, z - self.loc) / self.scale
        is_tail = a > TAIL
        end = jnp.where(is_tail, jnp.where(mirror, self.high, self.low), z)
        distance = jnp.where(mirror, end - z, z - end) / self.scale
        finite = jnp.where(is_tail, a, 1)
        in_tail = jnp.log(hazard(finite)) - distance * (2 * finite + distance) / 2
        in_bulk = -0.5 * (jnp.where(is_tail, 0, e) ** 2 + math.log(2 * math.pi))
        in_bulk -= log_upper_tail(jnp.where(is_tail, 1, a))
        log_density = jnp.where(is_tail, in_tail, in_bulk)
        return log_density - jnp.log(self._share(a, b)) - jnp.log(self.scale)

    def _nearer_first(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Whether to mirror, and then the scaled ends a, b with a + b ≥ 0."""
        low, high = (self._scaled(end) for end in (self.low, self.high))
        mirror = low + high < 0
        return mirror, jnp.where(mirror, -high, low), jnp.where(mirror, -low, high)

    def _scaled(self, end: jax.Array | float) -> jax.Array:
        """An end in standard deviations from loc; an infinite one is far out."""
        end = self._spread(end)
        is_finite = jnp.isfinite(end)
        scaled = (jnp.where(is_finite, end, self.loc) - self.loc) / self.scale
        return jnp.where(is_finite, scaled, jnp.sign(end) * _FAR)

    def _share(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """(Q(a) − Q(b)) / Q(a)."""
        is_tail = a > TAIL
        near = jnp.where(is_tail, a, 1)
        log_ratio = jnp.where(
            is_tail,
            log_tail_ratio(near, jnp.where(is_tail, b - near, 1)),
            log_upper_tail(b) - log_upper_tail(jnp.where(is_tail, 1, a)),
        )
        return -jnp.expm1(log_ratio)


@record
class _Numerical(InverseCdf):
    parameters: tuple[jax.Array | float, ...]
    cdf: Callable[..., jax.Array] = static()
    log_density_of: Callable[..., jax.Array] = static()
    bracket: tuple[float, float] = static()
    num_steps: int = static()

    @property
    def ends(self) -> tuple[Any, Any]:
        return self.bracket

    def quantile_at(self, level: Level) -> jax.Array:
        low, high = (jnp.full_like(level.p, end) for end in self.bracket)
        parameters = jax.lax.stop_gradient(self.parameters)

        def halve(_: int, ends: tuple) -> tuple:
            low, high = ends
            middle = low + (high - low) / 2
            is_below = self.cdf(middle, *parameters) < level.p
            return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

        low, high = jax.lax.fori_loop(0, self.num_steps, halve, (low, high))
        z = jax.lax.stop_gradient(low + (high - low) / 2)
        density = jnp.exp(self.log_density_of(z, *parameters))
        # Zero, with the gradient (dp − dF) / f of the implicit function.
        error = level.p - self.cdf(z, *self.parameters)
        return z + (error - jax.lax.stop_gradient(error)) / density

    def log_density(self, z: jax.Array) -> jax.Array:
        return self.log_density_of(z, *self.parameters)


def numerical_inverse_cdf(
    cdf: Callable[..., jax.Array],
    log_density: Callable[..., jax.Array],
    *parameters: jax.Array | float,
    bracket: tuple[float, float],
    num_steps: int = 40,
) -> InverseCdf:
    """A distribution whose CDF is known and whose inverse is found by bisection.

    The gradient in the parameters is implicit: exact, whatever the bisection left. A
    draw costs `num_steps` calls of the CDF, and is as exact as they are: the upper tail
    ends where 1 − p is 1.

    Args:
      cdf: `cdf(z, *parameters)`, number by number, differentiable in the parameters.
      log_density: `log_density(z, *parameters)`, in nats, of each number.
      *parameters: `[J]`, or what broadcasts to it: the leaves of the distribution.
      bracket: finite ends of the support, or of all of it that matters.
      num_steps: of the bisection, static; 40 bring any bracket to float32's rounding.

    Returns:
      A pytree distribution with `sample`, `log_prob` and `quantile`.

    Raises:
      ValueError: the bracket is not finite or not increasing, or `num_steps` is not a
        positive integer.

    Source: section 2.4 (the end of its first strategy); Figurnov et al., arXiv
    1805.08498, for the gradient.

    >>> from jax.scipy.stats import beta
    >>> twos = jnp.full(1, 2.0)
    >>> q = numerical_inverse_cdf(
    ...     beta.cdf, beta.logpdf, twos, twos, bracket=(0.0, 1.0))
    >>> print(q.quantile(0.5).round(4))
    [0.5]
    """
    low, high = bracket
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"bracket is {bracket}, expected two finite numbers that increase: choose "
            "ends beyond which there is no mass to speak of"
        )
    num_steps = check_count("num_steps", num_steps)
    return _Numerical(parameters, cdf, log_density, (low, high), num_steps)
