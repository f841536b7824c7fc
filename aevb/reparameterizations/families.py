"""The strategies of section 2.4, each as a class and as a function.

1. *Inverse CDF*: z = F⁻¹(u), u ~ U(0, 1): `InverseCdf`, `inverse_cdf`.
2. *Location-scale*: z = loc + scale · e, e of a standard member: `LocationScale`,
   `location_scale`.
3. *Composition*: z = T(y), y of another family: `Composition`, `transformed`.
4. Where the inverse CDF has no formula, its *numerical approximation*:
   `aevb.reparameterizations.numerical`.

A class of a family says what is its own: a quantile, a standard member, a transform.
Here is what all have in common.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aevb.distributions import check_shape
from aevb.records import record, static
from aevb.reparameterizations.levels import (
    Level,
    lower_level,
    uniform_level,
    upper_level,
)
from aevb.reparameterizations.numerics import keep_inside
from aevb.reparameterizations.transforms import Transform, interval
from aevb.types import Posterior

__all__ = [
    "Composition",
    "Family",
    "InverseCdf",
    "LocationScale",
    "Transformed",
    "inverse_cdf",
    "location_scale",
    "transformed",
]


class Family:
    """Independent dimensions, one a number of z; the parameters broadcast to z's shape.

    A subclass is a `record` with `draw` and `log_density`, the log density of each
    number inside the support, and `ends` where that is not the real line.
    """

    def draw(self, key: jax.Array) -> jax.Array:
        """A draw, up to rounding onto an end of the support. `[J]`"""
        raise NotImplementedError

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z, differentiable in every parameter; inside the support. `[J]`"""
        return keep_inside(self.draw(key), *self.ends)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of z."""
        leaves = jax.tree.leaves(self)
        return jnp.broadcast_shapes(*(jnp.shape(leaf) for leaf in leaves))

    @property
    def dtype(self) -> Any:
        """The dtype of z."""
        return jnp.result_type(*jax.tree.leaves(self), float)

    @property
    def ends(self) -> tuple[Any, Any]:
        """The ends of the support, each a number or `[J]`."""
        return -jnp.inf, jnp.inf

    @property
    def support(self) -> Transform:
        """The real line onto the support."""
        return interval(*self.ends)

    def log_density(self, z: jax.Array) -> jax.Array:
        """The log density of each number of a z inside the support, in nats. `[J]`"""
        raise NotImplementedError

    def log_probs(self, z: jax.Array) -> jax.Array:
        """The terms of `log_prob`, in nats; −inf outside the support. `[J]`"""
        check_shape("z", jnp.shape(z), self.shape)
        is_inside = jnp.ones(jnp.shape(z), bool)
        # Nothing is compared with an infinity that is there always.
        for end, compare in zip(
            self.ends, (jnp.greater_equal, jnp.less_equal), strict=True
        ):
            if isinstance(end, jax.Array) or math.isfinite(end):
                is_inside &= compare(z, end)
        somewhere = self.support.forward(jnp.zeros_like(z))
        log_density = self.log_density(jnp.where(is_inside, z, somewhere))
        return jnp.where(is_inside, log_density, -jnp.inf)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """log p(z) in nats. `[]`"""
        return jnp.sum(self.log_probs(z))

    def _spread(self, value: Any) -> jax.Array:
        """A moment, of the shape and dtype of z."""
        return jnp.broadcast_to(jnp.asarray(value, self.dtype), self.shape)


class Quantiles(Family):
    """A family whose inverse CDF is known: `quantile_at`."""

    def quantile_at(self, level: Level) -> jax.Array:
        """z of a level that has z's shape, exact in both tails. `[J]`"""
        raise NotImplementedError

    def quantile(self, p: jax.Array | float) -> jax.Array:
        """z with P(Z ≤ z) = p, for small p too; p has z's shape or none. `[J]`"""
        return self._quantile(lower_level(self._spread(p)))

    def upper_quantile(self, q: jax.Array | float) -> jax.Array:
        """z with P(Z > z) = q, for a q so small that 1 − q is 1. `[J]`"""
        return self._quantile(upper_level(self._spread(q)))

    def _quantile(self, level: Level) -> jax.Array:
        return keep_inside(self.quantile_at(level), *self.ends)


class InverseCdf(Quantiles):
    """The first strategy: z = F⁻¹(u), u ~ U(0, 1). A subclass has `quantile_at`."""

    def draw(self, key: jax.Array) -> jax.Array:
        return self.quantile_at(uniform_level(key, self.shape, self.dtype))


class LocationScale(Family):
    """The second strategy: z = loc + scale · e, e of the family's standard member.

    A subclass has fields `loc` and `scale`, and `standard_sample`,
    `standard_log_density` of the member with location 0 and scale 1.
    """

    loc: jax.Array
    scale: jax.Array

    def standard_sample(self, key: jax.Array) -> jax.Array:
        """Draws e of the standard member. `[J]`"""
        raise NotImplementedError

    def standard_log_density(self, e: jax.Array) -> jax.Array:
        """The log density of each number of e. `[J]`"""
        raise NotImplementedError

    def draw(self, key: jax.Array) -> jax.Array:
        return self.loc + self.scale * self.standard_sample(key)

    def log_density(self, z: jax.Array) -> jax.Array:
        """log p(z) = log p((z − loc) / scale) − log scale. `[J]`"""
        e = (z - self.loc) / self.scale
        return self.standard_log_density(e) - jnp.log(self.scale)


class LocationScaleQuantiles(LocationScale, Quantiles):
    """Location-scale, whose standard member is drawn by its inverse CDF."""

    def standard_quantile_at(self, level: Level) -> jax.Array:
        """e of a level. `[J]`"""
        raise NotImplementedError

    def standard_sample(self, key: jax.Array) -> jax.Array:
        return self.standard_quantile_at(uniform_level(key, self.shape, self.dtype))

    def quantile_at(self, level: Level) -> jax.Array:
        return self.loc + self.scale * self.standard_quantile_at(level)


class Composition(Family):
    """The third strategy, number by number: z = T(y) with y of another distribution.

    A subclass has `base`, the distribution of y, and `transform`, T.
    """

    @property
    def base(self) -> Any:
        """The distribution of y, with `log_probs`."""
        raise NotImplementedError

    @property
    def transform(self) -> Transform:
        """T, elementwise."""
        raise NotImplementedError

    def draw(self, key: jax.Array) -> jax.Array:
        return self.transform.forward(self.base.sample(key))

    def log_density(self, z: jax.Array) -> jax.Array:
        """log p(z) = log p_y(T⁻¹(z)) − log |dT/dy|. `[J]`"""
        y = self.transform.inverse(z)
        return self.base.log_probs(y) - self.transform.log_det(y)


@record
class Transformed:
    """A distribution of z = T(y), of any T: `transformed(base, transform)`.

    log p(z) = log p_y(T⁻¹(z)) − log |det dT/dy|

    Attributes:
      base: the distribution of y.
      transform: T.
    """

    base: Any
    transform: Transform

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z = T(y): differentiable in every parameter. `[J]`"""
        return self.transform.forward(self.base.sample(key))

    def log_prob(self, z: jax.Array) -> jax.Array:
        """log p(z) in nats. `[]`"""
        y = self.transform.inverse(z)
        return self.base.log_prob(y) - jnp.sum(self.transform.log_det(y))


def transformed(base: Posterior, transform: Transform) -> Transformed:
    """The distribution of z = T(y), y ~ base: a family by composition.

    Args:
      base: the distribution of y; a pytree.
      transform: T, with its log-determinant; `compose` makes one of several.

    Returns:
      A pytree distribution of z, differentiable in the parameters of both.

    Source: section 2.4.

    >>> from aevb import DiagNormal
    >>> from aevb.reparameterizations import Exp
    >>> q = transformed(DiagNormal(jnp.zeros(2), jnp.zeros(2)), Exp())  # log-normal
    >>> print(f"{q.log_prob(jnp.ones(2)):.4f}")
    -1.8379
    """
    return Transformed(base, transform)


@record
class _FromQuantile(InverseCdf):
    parameters: tuple[jax.Array | float, ...]
    quantile_of: Callable[..., jax.Array] = static()
    log_density_of: Callable[..., jax.Array] = static()
    support_ends: tuple[float, float] = static()

    @property
    def ends(self) -> tuple[Any, Any]:
        return self.support_ends

    def quantile_at(self, level: Level) -> jax.Array:
        return self.quantile_of(level, *self.parameters)

    def log_density(self, z: jax.Array) -> jax.Array:
        return self.log_density_of(z, *self.parameters)


def inverse_cdf(
    quantile: Callable[..., jax.Array],
    log_density: Callable[..., jax.Array],
    *parameters: jax.Array | float,
    ends: tuple[float, float] = (-math.inf, math.inf),
) -> InverseCdf:
    """A distribution with a given inverse CDF: z = F⁻¹(u), u ~ U(0, 1).

    Args:
      quantile: `quantile(level, *parameters) -> z`, number by number. A `Level` has
        `p`, `q` = 1 − p and their logarithms, exact in both tails.
      log_density: `log_density(z, *parameters)`, in nats, of each number.
      *parameters: `[J]`, or what broadcasts to it: the leaves of the distribution.
      ends: of the support.

    Returns:
      A pytree distribution with `sample`, `log_prob`, `quantile`, `upper_quantile`.

    Source: section 2.4, first strategy.

    >>> def frechet(a):  # F(z) = exp(−z^−a)
    ...     return inverse_cdf(lambda level, a: (-level.log_p) ** (-1 / a),
    ...                        lambda z, a: jnp.log(a) - (a + 1) * jnp.log(z) - z**-a,
    ...                        a, ends=(0.0, jnp.inf))
    >>> print(frechet(jnp.full(1, 2.0)).quantile(0.5).round(4))
    [1.2011]
    """
    return _FromQuantile(parameters, quantile, log_density, ends)


@record
class _FromStandard(LocationScale):
    loc: jax.Array
    scale: jax.Array
    parameters: tuple[jax.Array | float, ...]
    standard_sample_of: Callable[..., jax.Array] = static()
    standard_log_density_of: Callable[..., jax.Array] = static()

    def standard_sample(self, key: jax.Array) -> jax.Array:
        return self.standard_sample_of(key, self.shape, self.dtype, *self.parameters)

    def standard_log_density(self, e: jax.Array) -> jax.Array:
        return self.standard_log_density_of(e, *self.parameters)


def location_scale(
    sample: Callable[..., jax.Array],
    log_density: Callable[..., jax.Array],
    loc: jax.Array,
    scale: jax.Array,
    *parameters: jax.Array | float,
) -> LocationScale:
    """A distribution with a given standard member: z = loc + scale · e.

    Args:
      sample: `sample(key, shape, dtype, *parameters) -> e` of the standard member.
      log_density: `log_density(e, *parameters)`, in nats, of each number.
      loc: `[J]`, or what broadcasts to it.
      scale: `[J]`, or what broadcasts to it; positive.
      *parameters: of the standard member.

    Returns:
      A pytree distribution with `sample` and `log_prob`.

    Source: section 2.4, second strategy.

    >>> q = location_scale(jax.random.normal, jax.scipy.stats.norm.logpdf,
    ...                    jnp.zeros(2), jnp.ones(2))
    >>> print(f"{q.log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """
    return _FromStandard(loc, scale, parameters, sample, log_density)
