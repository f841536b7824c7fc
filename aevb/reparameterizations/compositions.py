"""Families made of others: the third strategy of section 2.4.

What is drawn is a number y on the real line, and z = T(y): where z itself would be 0,
or 1 to rounding, y is not, and so is no gradient NaN. Parameters are `[J]`, or
broadcast to it, and positive unless they are locations.
"""

import math

import jax
import jax.numpy as jnp

from aevb.distributions import DiagNormal, check_shape, softplus
from aevb.records import record, static
from aevb.reparameterizations.families import Composition, Family
from aevb.reparameterizations.gamma_draws import log_gamma_draw
from aevb.reparameterizations.levels import uniform_level
from aevb.reparameterizations.numerics import safe_exp, xlogy
from aevb.reparameterizations.transforms import (
    Affine,
    Exp,
    Sigmoid,
    Simplex,
    Transform,
    compose,
)

__all__ = [
    "Beta",
    "ChiSquared",
    "Dirichlet",
    "Erlang",
    "FisherSnedecor",
    "Gamma",
    "LogBetaOdds",
    "LogGamma",
    "LogNormal",
    "LogRatios",
]


class _Positive(Composition):
    """A composition with z > 0; z = eʸ unless it says otherwise."""

    ends = (0.0, jnp.inf)

    @property
    def transform(self) -> Transform:
        return Exp()


@record
class LogNormal(_Positive):
    """z = eʸ, y ~ N(loc, scale²).

    Noise: a normal number a dimension.

    Attributes:
      loc: `[J]` the mean of log z.
      log_scale: `[J]` the log standard deviation of log z, as in `DiagNormal`.
    """

    loc: jax.Array
    log_scale: jax.Array

    @property
    def mean(self) -> jax.Array:
        """exp(loc + scale² / 2). `[J]`"""
        return self._spread(jnp.exp(self.loc + jnp.exp(2 * self.log_scale) / 2))

    @property
    def variance(self) -> jax.Array:
        """(exp(scale²) − 1) mean². `[J]`"""
        return jnp.expm1(self._spread(jnp.exp(2 * self.log_scale))) * self.mean**2

    @property
    def base(self) -> DiagNormal:
        """N(loc, scale²) of log z."""
        return DiagNormal(self._spread(self.loc), self._spread(self.log_scale))


@record
class LogGamma(Family):
    """The logarithm of a gamma variable: log p(y) = a y' − e^{y'} − log Γ(a).

    y' = y + log rate. Noise: that of `jax.random.gamma`, and for a < 1 an exponential
    number beside it; gradient in a: implicit (Figurnov et al., arXiv 1805.08498).

    Attributes:
      concentration: `[J]` a.
      rate: `[J]`
    """

    concentration: jax.Array
    rate: jax.Array

    @property
    def mean(self) -> jax.Array:
        """ψ(a) − log rate. `[J]`"""
        a = jnp.asarray(self.concentration)
        return self._spread(jax.scipy.special.digamma(a) - jnp.log(self.rate))

    def draw(self, key: jax.Array) -> jax.Array:
        draw = log_gamma_draw(key, self._spread(self.concentration))
        return draw - jnp.log(self.rate)

    def log_density(self, z: jax.Array) -> jax.Array:
        a, y = jnp.asarray(self.concentration), z + jnp.log(self.rate)
        return a * y - safe_exp(y) - jax.lax.lgamma(a)


@record
class Gamma(_Positive):
    """log p(z) = a log b + (a − 1) log z − b z − log Γ(a), of z > 0; z = eʸ.

    Noise and gradient: those of y, a `LogGamma`.

    Attributes:
      concentration: `[J]` a.
      rate: `[J]` b.
    """

    concentration: jax.Array
    rate: jax.Array

    @property
    def mean(self) -> jax.Array:
        """a / b. `[J]`"""
        return self._spread(self.concentration / self.rate)

    @property
    def variance(self) -> jax.Array:
        """a / b². `[J]`"""
        return self.mean / self.rate

    @property
    def base(self) -> LogGamma:
        """The distribution of log z."""
        return LogGamma(self._spread(self.concentration), self._spread(self.rate))


@record
class ChiSquared(_Positive):
    """The sum of ν squared normal numbers: Gamma(ν/2, ½), of any positive ν.

    Noise and gradient: those of `Gamma`.

    Attributes:
      df: `[J]` ν.
    """

    df: jax.Array

    @property
    def mean(self) -> jax.Array:
        """ν. `[J]`"""
        return self._spread(self.df)

    @property
    def variance(self) -> jax.Array:
        """2 ν. `[J]`"""
        return 2 * self.mean

    @property
    def base(self) -> LogGamma:
        """The distribution of log z."""
        half = self._spread(self.df) / 2
        return LogGamma(half, jnp.full_like(half, 0.5))


@record
class Erlang(Family):
    """The gamma distribution of a whole number k: the sum of k exponential variables.

    Noise: k numbers u ~ U(0, 1); z = −Σ log u / rate, without a gamma draw.

    Attributes:
      rate: `[J]`
      count: k, a Python integer of at least 1.
    """

    rate: jax.Array
    count: int = static()

    ends = (0.0, jnp.inf)

    @property
    def mean(self) -> jax.Array:
        """k / rate. `[J]`"""
        return self._spread(self.count / self.rate)

    def draw(self, key: jax.Array) -> jax.Array:
        shape = (self.count, *self.shape)
        return -jnp.sum(uniform_level(key, shape, self.dtype).log_q, axis=0) / self.rate

    def log_density(self, z: jax.Array) -> jax.Array:
        k, y = self.count, self.rate * z
        log_gamma = math.lgamma(k)
        return xlogy(k - 1.0, y) - y - log_gamma + jnp.log(self.rate)


@record
class LogBetaOdds(Family):
    """log z / (1 − z) of a beta variable z: log p(y) = −a s(−y) − b s(y) − log B(a, b).

    With s the softplus. Noise: y = log g₁ − log g₀ of two gamma variables, with their
    implicit gradients.

    Attributes:
      concentration1: `[J]` a.
      concentration0: `[J]` b.
    """

    concentration1: jax.Array
    concentration0: jax.Array

    def draw(self, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        ones = log_gamma_draw(keys[0], self._spread(self.concentration1))
        return ones - log_gamma_draw(keys[1], self._spread(self.concentration0))

    def log_density(self, z: jax.Array) -> jax.Array:
        a, b = jnp.asarray(self.concentration1), jnp.asarray(self.concentration0)
        log_beta = jax.scipy.special.betaln(a, b)
        return -a * softplus(-z) - b * softplus(z) - log_beta


@record
class Beta(Composition):
    """log p(z) = (a − 1) log z + (b − 1) log(1 − z) − log B(a, b), of 0 < z < 1.

    z = sigmoid(y). Noise and gradient: those of y, a `LogBetaOdds`.

    Attributes:
      concentration1: `[J]` a.
      concentration0: `[J]` b.
    """

    concentration1: jax.Array
    concentration0: jax.Array

    ends = (0.0, 1.0)

    @property
    def mean(self) -> jax.Array:
        """a / (a + b). `[J]`"""
        a, b = self.concentration1, self.concentration0
        return self._spread(a / (a + b))

    @property
    def variance(self) -> jax.Array:
        """a b / ((a + b)² (a + b + 1)). `[J]`"""
        a, b = self.concentration1, self.concentration0
        return self._spread(a / (a + b) * (b / (a + b)) / (a + b + 1))

    @property
    def base(self) -> LogBetaOdds:
        """The distribution of log z / (1 − z)."""
        a, b = self.concentration1, self.concentration0
        return LogBetaOdds(self._spread(a), self._spread(b))

    @property
    def transform(self) -> Transform:
        """Sigmoid."""
        return Sigmoid()


@record
class FisherSnedecor(_Positive):
    """The F distribution: (χ²₁ / ν₁) / (χ²₀ / ν₀) of two chi-squared variables.

    z = (ν₀/ν₁) eʸ, y a `LogBetaOdds` of ν₁/2 and ν₀/2. Noise and gradient: its own.

    Attributes:
      df1: `[J]` ν₁, of the numerator.
      df0: `[J]` ν₀, of the denominator.
    """

    df1: jax.Array
    df0: jax.Array

    @property
    def mean(self) -> jax.Array:
        """ν₀ / (ν₀ − 2), or inf for ν₀ ≤ 2. `[J]`"""
        df = jnp.asarray(self.df0)
        mean = df / jnp.where(df > 2, df - 2, 1)
        return self._spread(jnp.where(df > 2, mean, jnp.inf))

    @property
    def base(self) -> LogBetaOdds:
        """The distribution of log(z ν₁/ν₀)."""
        return LogBetaOdds(self._spread(self.df1) / 2, self._spread(self.df0) / 2)

    @property
    def transform(self) -> Transform:
        """Adds log(ν₀/ν₁), then exp."""
        return compose(Affine(jnp.log(self.df0 / self.df1)), Exp())


@record
class Dirichlet:
    """log p(z) = Σ_k (a_k − 1) log z_k − log B(a), over z on the simplex.

    The density is over the first K − 1 of z's K coordinates. z = softmax(y), y_k the
    logarithms of gamma variables, with their noise and implicit gradients.

    Attributes:
      concentration: `[K]` a, K at least 2.
    """

    concentration: jax.Array

    @property
    def mean(self) -> jax.Array:
        """a / Σ a. `[K]`"""
        return self.concentration / jnp.sum(self.concentration)

    @property
    def variance(self) -> jax.Array:
        """Of each coordinate: with m the mean, m (1 − m) / (1 + Σ a). `[K]`"""
        return self.mean * (1 - self.mean) / (1 + jnp.sum(self.concentration))

    @property
    def base(self) -> "LogRatios":
        """The distribution of log(z_k / z_K), k < K."""
        return LogRatios(self.concentration)

    @property
    def transform(self) -> Transform:
        """The real vectors of K − 1 dimensions onto the simplex."""
        return Simplex()

    @property
    def support(self) -> Transform:
        """The same."""
        return self.transform

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z, inside the simplex: differentiable in a. `[K]`"""
        return self.transform.forward(self.base.sample(key))

    def log_prob(self, z: jax.Array) -> jax.Array:
        """log p(z) in nats. `[]`"""
        a = self.concentration
        check_shape("z", jnp.shape(z), jnp.shape(a))
        log_beta = jnp.sum(jax.lax.lgamma(a)) - jax.lax.lgamma(jnp.sum(a))
        return jnp.sum(xlogy(a - 1, z)) - log_beta


@record
class LogRatios:
    """log(z_k / z_K) of a Dirichlet vector, k < K: a distribution of real vectors.

    Attributes:
      concentration: `[K]`
    """

    concentration: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws y. `[K - 1]`"""
        logs = log_gamma_draw(key, self.concentration)
        return logs[:-1] - logs[-1]

    def log_prob(self, y: jax.Array) -> jax.Array:
        """log p(y) in nats. `[]`"""
        a = self.concentration
        check_shape("y", jnp.shape(y), (len(a) - 1,))
        logs = jax.nn.log_softmax(jnp.concatenate([y, jnp.zeros_like(y, shape=(1,))]))
        log_beta = jnp.sum(jax.lax.lgamma(a)) - jax.lax.lgamma(jnp.sum(a))
        return jnp.sum(a * logs) - log_beta
