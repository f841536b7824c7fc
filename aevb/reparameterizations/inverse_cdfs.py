"""Families with an inverse CDF in closed form: the first strategy of section 2.4.

Noise: one u ~ U(0, 1) a dimension, as a `Level` (exact in both tails). Gradient: that
of the formula, in every parameter. `DiagNormal`'s place, with other tails and supports;
parameters are `[J]`, or broadcast to it, and positive unless they are locations.
"""

from typing import Any

import jax
import jax.numpy as jnp

from aevb.records import record
from aevb.reparameterizations.families import InverseCdf
from aevb.reparameterizations.levels import Level
from aevb.reparameterizations.numerics import log1mexp, log_ratio, safe_exp, xlogy

__all__ = [
    "Cauchy",
    "Exponential",
    "Gompertz",
    "Gumbel",
    "Kumaraswamy",
    "LogUniform",
    "Pareto",
    "Rayleigh",
    "Reciprocal",
    "Weibull",
]

_EULER = 0.57721566490153286


@record
class Exponential(InverseCdf):
    """log p(z) = log rate − rate z, of z > 0; z = −log(1 − u) / rate.

    Attributes:
      rate: `[J]`
    """

    rate: jax.Array

    ends = (0.0, jnp.inf)

    @property
    def mean(self) -> jax.Array:
        """1 / rate. `[J]`"""
        return self._spread(1 / self.rate)

    @property
    def variance(self) -> jax.Array:
        """1 / rate². `[J]`"""
        return self.mean**2

    def quantile_at(self, level: Level) -> jax.Array:
        return -level.log_q / self.rate

    def log_density(self, z: jax.Array) -> jax.Array:
        return jnp.log(self.rate) - self.rate * z


@record
class Cauchy(InverseCdf):
    """log p(z) = −log(π s (1 + ((z − loc) / s)²)); z = loc + s tan(π (u − ½)). No mean.

    Attributes:
      loc: `[J]` the median.
      scale: `[J]` s.
    """

    loc: jax.Array
    scale: jax.Array

    def quantile_at(self, level: Level) -> jax.Array:
        size = 1 / jnp.tan(jnp.pi * level.tail)
        return self.loc + self.scale * jnp.where(level.is_lower, -size, size)

    def log_density(self, z: jax.Array) -> jax.Array:
        e = jnp.abs(z - self.loc) / self.scale
        # log(1 + e²), without the overflow of the square.
        near, far = jnp.minimum(e, 1), jnp.maximum(e, 1)
        log = jnp.where(
            e < 1, jnp.log1p(near**2), 2 * jnp.log(far) + jnp.log1p(far**-2)
        )
        return -jnp.log(jnp.pi * self.scale) - log


@record
class Rayleigh(InverseCdf):
    """log p(z) = log(z / s²) − z² / 2s², of z > 0; z = s √(−2 log(1 − u)).

    Attributes:
      scale: `[J]` s.
    """

    scale: jax.Array

    ends = (0.0, jnp.inf)

    @property
    def mean(self) -> jax.Array:
        """s √(π/2). `[J]`"""
        return self._spread(self.scale * jnp.sqrt(jnp.pi / 2))

    def quantile_at(self, level: Level) -> jax.Array:
        return self.scale * jnp.sqrt(-2 * level.log_q)

    def log_density(self, z: jax.Array) -> jax.Array:
        e = z / self.scale
        return jnp.log(e) - jnp.log(self.scale) - e**2 / 2


@record
class Pareto(InverseCdf):
    """log p(z) = log a + a log m − (a + 1) log z, of z > m; z = m (1 − u)^(−1/a).

    Attributes:
      concentration: `[J]` a.
      scale: `[J]` m, the end of the support.
    """

    concentration: jax.Array
    scale: jax.Array

    @property
    def ends(self) -> tuple[Any, Any]:
        return jnp.asarray(self.scale), jnp.inf

    @property
    def mean(self) -> jax.Array:
        """a m / (a − 1), or inf for a ≤ 1. `[J]`"""
        a = jnp.asarray(self.concentration)
        mean = a * self.scale / jnp.where(a > 1, a - 1, 1)
        return self._spread(jnp.where(a > 1, mean, jnp.inf))

    def quantile_at(self, level: Level) -> jax.Array:
        return self.scale * safe_exp(-level.log_q / self.concentration)

    def log_density(self, z: jax.Array) -> jax.Array:
        a = self.concentration
        return jnp.log(a) - a * jnp.log(z / self.scale) - jnp.log(z)


@record
class Weibull(InverseCdf):
    """log p(z) = log(k/s) + (k − 1) log(z/s) − (z/s)ᵏ, of z > 0.

    z = s (−log(1 − u))^(1/k).

    Attributes:
      concentration: `[J]` k.
      scale: `[J]` s.
    """

    concentration: jax.Array
    scale: jax.Array

    ends = (0.0, jnp.inf)

    @property
    def mean(self) -> jax.Array:
        """s Γ(1 + 1/k). `[J]`"""
        k = jnp.asarray(self.concentration)
        return self._spread(self.scale * jnp.exp(jax.lax.lgamma(1 + 1 / k)))

    def quantile_at(self, level: Level) -> jax.Array:
        return self.scale * safe_exp(jnp.log(-level.log_q) / self.concentration)

    def log_density(self, z: jax.Array) -> jax.Array:
        k, log = self.concentration, log_ratio(z, jnp.asarray(self.scale))
        rise = jnp.where(k == 1, 0, (k - 1) * log)
        return jnp.log(k / self.scale) + rise - safe_exp(k * log)


@record
class Gompertz(InverseCdf):
    """log p(z) = log(a b) + b z − a (e^{b z} − 1), of z > 0.

    z = log(1 − log(1 − u) / a) / b.

    Attributes:
      concentration: `[J]` a.
      rate: `[J]` b.
    """

    concentration: jax.Array
    rate: jax.Array

    ends = (0.0, jnp.inf)

    def quantile_at(self, level: Level) -> jax.Array:
        return jnp.log1p(-level.log_q / self.concentration) / self.rate

    def log_density(self, z: jax.Array) -> jax.Array:
        a, e = self.concentration, self.rate * z
        return jnp.log(a * self.rate) + e - a * jnp.expm1(e)


@record
class Gumbel(InverseCdf):
    """log p(z) = −e − exp(−e) − log s, e = (z − loc) / s; z = loc − s log(−log u).

    Attributes:
      loc: `[J]` the mode.
      scale: `[J]` s.
    """

    loc: jax.Array
    scale: jax.Array

    @property
    def mean(self) -> jax.Array:
        """Loc + γ s, with Euler's γ. `[J]`"""
        return self._spread(self.loc + self.scale * _EULER)

    def quantile_at(self, level: Level) -> jax.Array:
        return self.loc - self.scale * jnp.log(-level.log_p)

    def log_density(self, z: jax.Array) -> jax.Array:
        e = (z - self.loc) / self.scale
        return -e - safe_exp(-e) - jnp.log(self.scale)


@record
class LogUniform(InverseCdf):
    """The paper's reciprocal distribution: p(z) ∝ 1/z between two ends.

    log p(z) = −log z − log log(high / low); z = low (high / low)ᵘ.

    Attributes:
      low: `[J]` positive.
      high: `[J]` above it.
    """

    low: jax.Array
    high: jax.Array

    @property
    def ends(self) -> tuple[Any, Any]:
        return jnp.asarray(self.low), jnp.asarray(self.high)

    @property
    def mean(self) -> jax.Array:
        """(high − low) / log(high / low). `[J]`"""
        return self._spread((self.high - self.low) / self._log_width())

    def quantile_at(self, level: Level) -> jax.Array:
        step = jnp.exp(level.tail * self._log_width())  # from the nearer end
        return jnp.where(level.is_lower, self.low * step, self.high / step)

    def log_density(self, z: jax.Array) -> jax.Array:
        return -jnp.log(z) - jnp.log(self._log_width())

    def _log_width(self) -> jax.Array:
        """log(high / low), of ends whose ratio is infinite in float32 or next to 1."""
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        is_near = high < 2 * low
        near = jnp.log1p(jnp.where(is_near, high - low, 0) / low)
        # The difference of logarithms has the gradients, 1 / high and −1 / low.
        far = jnp.log(high) - jnp.log(low)
        return far + jax.lax.stop_gradient(jnp.where(is_near, near - far, 0))


Reciprocal = LogUniform


@record
class Kumaraswamy(InverseCdf):
    """log p(z) = log(a b) + (a − 1) log z + (b − 1) log(1 − zᵃ), of 0 < z < 1.

    z = (1 − (1 − u)^{1/b})^{1/a}: like the beta distribution, with an inverse CDF.

    Attributes:
      concentration1: `[J]` a.
      concentration0: `[J]` b.

    Source: Kumaraswamy (1980); Nalisnick and Smyth, arXiv 1605.06197.
    """

    concentration1: jax.Array
    concentration0: jax.Array

    ends = (0.0, 1.0)

    @property
    def mean(self) -> jax.Array:
        """B B(1 + 1/a, b). `[J]`"""
        a, b = jnp.asarray(self.concentration1), jnp.asarray(self.concentration0)
        return self._spread(b * jnp.exp(jax.scipy.special.betaln(1 + 1 / a, b)))

    def quantile_at(self, level: Level) -> jax.Array:
        log = log1mexp(level.log_q / self.concentration0)
        return safe_exp(log / self.concentration1)

    def log_density(self, z: jax.Array) -> jax.Array:
        a, b = self.concentration1, self.concentration0
        # a log z is 0 to rounding next to 1 where a is small: never quite.
        log = jnp.minimum(a * jnp.log(z), -jnp.finfo(z.dtype).tiny)
        return jnp.log(a * b) + xlogy(a - 1, z) + (b - 1) * log1mexp(log)
