"""Families by location and scale: the second strategy of section 2.4.

z = loc + scale · e, e of the standard member. The Gaussian is `aevb.DiagNormal`, and
with a full covariance `aevb.MultivariateNormal`. Parameters are `[J]`, or broadcast to
it; scales are positive.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from aevb.distributions import check_shape, softplus
from aevb.products import matmul
from aevb.records import record
from aevb.reparameterizations.families import (
    LocationScale,
    LocationScaleQuantiles,
)
from aevb.reparameterizations.gamma_draws import log_gamma_draw
from aevb.reparameterizations.levels import Level, uniform_level
from aevb.reparameterizations.numerics import safe_exp

__all__ = ["Elliptical", "Laplace", "Logistic", "StudentT", "Triangular", "Uniform"]


class _Symmetric(LocationScaleQuantiles):
    """About `loc`, which is the mean."""

    @property
    def mean(self) -> jax.Array:
        """Loc. `[J]`"""
        return self._spread(self.loc)


@record
class Laplace(_Symmetric):
    """log p(z) = −|z − loc| / s − log 2s.

    Noise: e = ∓log 2t, of the tail t of u ~ U(0, 1).

    Attributes:
      loc: `[J]` the mean.
      scale: `[J]` s.
    """

    loc: jax.Array
    scale: jax.Array

    @property
    def variance(self) -> jax.Array:
        """2 s². `[J]`"""
        return self._spread(2 * jnp.asarray(self.scale) ** 2)

    def standard_quantile_at(self, level: Level) -> jax.Array:
        size = -jnp.log(2 * level.tail)
        return jnp.where(level.is_lower, -size, size)

    def standard_log_density(self, e: jax.Array) -> jax.Array:
        return -jnp.abs(e) - math.log(2)


@record
class Logistic(_Symmetric):
    """log p(z) = −e − 2 log(1 + exp(−e)) − log s, e = (z − loc) / s.

    Noise: e = log u − log(1 − u): an inverse CDF too, and in the paper's list twice.

    Attributes:
      loc: `[J]` the mean.
      scale: `[J]` s.
    """

    loc: jax.Array
    scale: jax.Array

    @property
    def variance(self) -> jax.Array:
        """π² s² / 3. `[J]`"""
        return self._spread(jnp.pi**2 / 3 * jnp.asarray(self.scale) ** 2)

    def standard_quantile_at(self, level: Level) -> jax.Array:
        return level.log_p - level.log_q

    def standard_log_density(self, e: jax.Array) -> jax.Array:
        return -softplus(e) - softplus(-e)


@record
class StudentT(LocationScale):
    """Student's t with ν degrees of freedom, each dimension on its own.

    Noise: e = n √(ν / 2g), n ~ N(0, 1), g ~ Gamma(ν/2, 1); the gradient in ν is g's
    implicit one.

    Attributes:
      df: `[J]` ν, positive.
      loc: `[J]` the median.
      scale: `[J]` s.
    """

    df: jax.Array
    loc: jax.Array
    scale: jax.Array

    @property
    def mean(self) -> jax.Array:
        """Loc, or NaN for ν ≤ 1. `[J]`"""
        return self._spread(jnp.where(jnp.asarray(self.df) > 1, self.loc, jnp.nan))

    @property
    def variance(self) -> jax.Array:
        """s² ν / (ν − 2); inf for ν ≤ 2, NaN for ν ≤ 1. `[J]`"""
        df, square = jnp.asarray(self.df), jnp.asarray(self.scale) ** 2
        variance = square * df / jnp.where(df > 2, df - 2, 1)
        variance = jnp.where(df > 2, variance, jnp.inf)
        return self._spread(jnp.where(df > 1, variance, jnp.nan))

    def standard_sample(self, key: jax.Array) -> jax.Array:
        normal_key, gamma_key = jax.random.split(key)
        half = self._spread(self.df) / 2
        log = 0.5 * (jnp.log(half) - log_gamma_draw(gamma_key, half))
        return jax.random.normal(normal_key, self.shape, self.dtype) * safe_exp(log)

    def standard_log_density(self, e: jax.Array) -> jax.Array:
        df = jnp.asarray(self.df)
        normaliser = jax.scipy.special.betaln(df / 2, 0.5) + 0.5 * jnp.log(df)
        size = jnp.abs(e) / jnp.sqrt(df)
        near, far = jnp.minimum(size, 1), jnp.maximum(size, 1)
        log = jnp.where(
            size < 1, jnp.log1p(near**2), 2 * jnp.log(far) + jnp.log1p(far**-2)
        )
        return -normaliser - (df + 1) / 2 * log


class _BetweenEnds(LocationScaleQuantiles):
    """A standard member on (0, 1): the location is `low`, the scale is the width."""

    low: jax.Array
    high: jax.Array

    @property
    def ends(self) -> tuple[Any, Any]:
        return jnp.asarray(self.low), jnp.asarray(self.high)

    @property
    def loc(self) -> jax.Array:  # type: ignore[override]
        """The lower end. `[J]`"""
        return self.low

    @property
    def scale(self) -> jax.Array:  # type: ignore[override]
        """The width. `[J]`"""
        return self.high - self.low

    def standard_distance(self, level: Level) -> tuple[jax.Array, jax.Array]:
        """From which end e is told, whether from 0, and how far it is from there."""
        raise NotImplementedError

    def draw(self, key: jax.Array) -> jax.Array:
        return self.quantile_at(uniform_level(key, self.shape, self.dtype))

    def quantile_at(self, level: Level) -> jax.Array:
        is_from_low, distance = self.standard_distance(level)
        step = self.scale * distance
        return jnp.where(is_from_low, self.low + step, self.high - step)


@record
class Uniform(_BetweenEnds):
    """log p(z) = −log(high − low) between the ends.

    Noise: u ~ U(0, 1), the standard member; z = low + (high − low) u.

    Attributes:
      low: `[J]`
      high: `[J]` above it.
    """

    low: jax.Array
    high: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The middle. `[J]`"""
        return self._spread((self.low + self.high) / 2)

    def standard_distance(self, level: Level) -> tuple[jax.Array, jax.Array]:
        return level.is_lower, level.tail

    def standard_log_density(self, e: jax.Array) -> jax.Array:
        return jnp.zeros_like(e)


@record
class Triangular(_BetweenEnds):
    """A density that rises straight from `low` to `mode` and falls straight to `high`.

    Noise: e of the standard member on (0, 1), whose mode is c, by its inverse CDF;
    z = low + (high − low) e.

    Attributes:
      low: `[J]`
      mode: `[J]` between the ends, or at one.
      high: `[J]` above `low`.
    """

    low: jax.Array
    mode: jax.Array
    high: jax.Array

    @property
    def mean(self) -> jax.Array:
        """(low + mode + high) / 3. `[J]`"""
        return self._spread((self.low + self.mode + self.high) / 3)

    def standard_distance(self, level: Level) -> tuple[jax.Array, jax.Array]:
        rising = (self.mode - self.low) / self.scale
        falling = (self.high - self.mode) / self.scale
        # A mode at an end leaves one side; a root of 0 there has no gradient. Compared
        # in the smaller tail: near the upper end p is 1 to rounding.
        is_rising = jnp.where(level.is_lower, level.p < rising, level.q >= falling)
        area = jnp.where(is_rising, rising * level.p, falling * level.q)
        root = jnp.sqrt(jnp.where(area > 0, area, 1))
        return is_rising, jnp.where(area > 0, root, 0)

    def log_density(self, z: jax.Array) -> jax.Array:
        width = self.high - self.low
        is_rising = z < self.mode
        side = jnp.where(is_rising, self.mode - self.low, self.high - self.mode)
        distance = jnp.where(is_rising, z - self.low, self.high - z)
        # A side of no width has no z but the mode itself.
        ratio = jnp.where(side > 0, distance / jnp.where(side > 0, side, 1), 1)
        return jnp.log(2 / width) + jnp.log(ratio)


@record
class Elliptical:
    """An elliptical distribution: z = loc + r L v, v uniform on the unit sphere.

    log p(z) = log p(r) − (J − 1) log r − log(2π^{J/2} / Γ(J/2)) − log det L,
    r = |L⁻¹ (z − loc)|. With r² chi-squared of J degrees of freedom it is
    `MultivariateNormal`, with r² / J ~ F(J, ν) the multivariate t.

    Noise: v of J normal numbers, and whatever `radius` draws r with.

    Attributes:
      loc: `[J]` the mean, where there is one.
      scale_tril: `[J, J]` L, lower triangular.
      radius: the distribution of r > 0, a number: any with `sample` and `log_prob`.
    """

    loc: jax.Array
    scale_tril: jax.Array
    radius: Any

    @property
    def mean(self) -> jax.Array:
        """Loc. `[J]`"""
        return self.loc

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z, differentiable in every parameter. `[J]`"""
        sphere_key, radius_key = jax.random.split(key)
        normal = jax.random.normal(sphere_key, self.loc.shape, self.loc.dtype)
        direction = normal / jnp.linalg.norm(normal)
        radius = self.radius.sample(radius_key)
        return self.loc + radius * matmul(self.scale_tril, direction)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """log p(z) in nats. `[]`"""
        check_shape("z", jnp.shape(z), jnp.shape(self.loc))
        dim = len(self.loc)
        whitened = jax.scipy.linalg.solve_triangular(
            self.scale_tril, z - self.loc, lower=True
        )
        radius = jnp.linalg.norm(whitened)
        log_sphere = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
        log_det = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(self.scale_tril))))
        log_radius = self.radius.log_prob(radius)
        return log_radius - (dim - 1) * jnp.log(radius) - log_sphere - log_det
