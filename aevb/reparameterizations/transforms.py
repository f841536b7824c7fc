"""Changes of variables: bijections that know their log-determinant.

A transform T maps y to z. A distribution of y makes one of z (`transformed`), with

    log p(z) = log p(y) − log |det dT/dy|,  y = T⁻¹(z).

Every transform is a pytree; `compose` makes one of several.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from aevb.distributions import softplus
from aevb.records import record
from aevb.reparameterizations.numerics import keep_inside, safe_exp, safe_sigmoid

__all__ = [
    "Affine",
    "Between",
    "Compose",
    "Exp",
    "Identity",
    "Inverse",
    "Power",
    "Sigmoid",
    "Simplex",
    "Transform",
    "compose",
    "interval",
]


class Transform(Protocol):
    """A differentiable bijection T of vectors, z = T(y).

    Attributes:
      elementwise: whether z_j depends on y_j alone; `log_det` then has one term a
        dimension, else it is a scalar.
    """

    @property
    def elementwise(self) -> bool:
        """Whether it acts on each dimension alone."""
        ...

    def forward(self, y: jax.Array) -> jax.Array:
        """z = T(y). `[J]`"""
        ...

    def inverse(self, z: jax.Array) -> jax.Array:
        """y = T⁻¹(z). `[J]`"""
        ...

    def log_det(self, y: jax.Array) -> jax.Array:
        """log |dT/dy| of each dimension `[J]`, or log |det dT/dy| `[]`."""
        ...


class _Elementwise:
    @property
    def elementwise(self) -> bool:
        return True


@record
class Identity(_Elementwise):
    """z = y: the real line itself."""

    def forward(self, y: jax.Array) -> jax.Array:
        return y

    def inverse(self, z: jax.Array) -> jax.Array:
        return z

    def log_det(self, y: jax.Array) -> jax.Array:
        return jnp.zeros_like(y)


@record
class Affine(_Elementwise):
    """z = loc + scale y.

    Attributes:
      loc: `[J]`, or what broadcasts to it.
      scale: `[J]`, or what broadcasts to it; not zero.
    """

    loc: jax.Array | float = 0.0
    scale: jax.Array | float = 1.0

    def forward(self, y: jax.Array) -> jax.Array:
        return self.loc + self.scale * y

    def inverse(self, z: jax.Array) -> jax.Array:
        return (z - self.loc) / self.scale

    def log_det(self, y: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.log(jnp.abs(self.scale)), jnp.shape(y))


@record
class Exp(_Elementwise):
    """z = eʸ: the real line onto the positive numbers; never 0 nor infinity."""

    def forward(self, y: jax.Array) -> jax.Array:
        return safe_exp(y)

    def inverse(self, z: jax.Array) -> jax.Array:
        return jnp.log(z)

    def log_det(self, y: jax.Array) -> jax.Array:
        return y


@record
class Power(_Elementwise):
    """z = y^exponent, of positive y.

    Attributes:
      exponent: `[J]`, or what broadcasts to it; not zero.
    """

    exponent: jax.Array | float

    def forward(self, y: jax.Array) -> jax.Array:
        return y**self.exponent

    def inverse(self, z: jax.Array) -> jax.Array:
        return z ** (1 / self.exponent)

    def log_det(self, y: jax.Array) -> jax.Array:
        return jnp.log(jnp.abs(self.exponent)) + (self.exponent - 1) * jnp.log(y)


@record
class Sigmoid(_Elementwise):
    """z = 1 / (1 + e⁻ʸ): the real line onto (0, 1); never 0 nor 1."""

    def forward(self, y: jax.Array) -> jax.Array:
        return safe_sigmoid(y)

    def inverse(self, z: jax.Array) -> jax.Array:
        return jnp.log(z) - jnp.log1p(-z)

    def log_det(self, y: jax.Array) -> jax.Array:
        return -softplus(y) - softplus(-y)


@record
class Simplex:
    """z = softmax(y₁ … y_{K−1}, 0): real vectors into the simplex; no z_k is 0 or 1.

    The density of z is over its first K − 1 coordinates, as is usual for the Dirichlet
    distribution: |det| = Π_k z_k.
    """

    @property
    def elementwise(self) -> bool:
        return False

    def forward(self, y: jax.Array) -> jax.Array:
        return keep_inside(safe_exp(jax.nn.log_softmax(_with_zero(y))), 0.0, 1.0)

    def inverse(self, z: jax.Array) -> jax.Array:
        return jnp.log(z[:-1]) - jnp.log(z[-1])

    def log_det(self, y: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.log_softmax(_with_zero(y)))


def _with_zero(y: jax.Array) -> jax.Array:
    return jnp.concatenate([y, jnp.zeros_like(y, shape=(1,))])


@record
class Inverse:
    """T⁻¹ of a transform T.

    Attributes:
      transform: T.
    """

    transform: Transform

    @property
    def elementwise(self) -> bool:
        return self.transform.elementwise

    def forward(self, y: jax.Array) -> jax.Array:
        return self.transform.inverse(y)

    def inverse(self, z: jax.Array) -> jax.Array:
        return self.transform.forward(z)

    def log_det(self, y: jax.Array) -> jax.Array:
        return -self.transform.log_det(self.transform.inverse(y))


@record
class Compose:
    """Several transforms, one after the other.

    Attributes:
      transforms: the first is applied to y first.
    """

    transforms: tuple[Transform, ...]

    @property
    def elementwise(self) -> bool:
        return all(transform.elementwise for transform in self.transforms)

    def forward(self, y: jax.Array) -> jax.Array:
        for transform in self.transforms:
            y = transform.forward(y)
        return y

    def inverse(self, z: jax.Array) -> jax.Array:
        for transform in reversed(self.transforms):
            z = transform.inverse(z)
        return z

    def log_det(self, y: jax.Array) -> jax.Array:
        elementwise = self.elementwise
        total = jnp.zeros_like(y) if elementwise else jnp.zeros_like(y, shape=())
        for transform in self.transforms:
            term = transform.log_det(y)
            total += term if elementwise else jnp.sum(term)
            y = transform.forward(y)
        return total


def compose(*transforms: Transform) -> Compose:
    """One transform of several; the first is applied first.

    Args:
      *transforms: y goes through them in this order.

    Returns:
      `Compose`, whose log-determinant is the sum of theirs.

    >>> softplus_inverse = compose(Exp(), Affine(loc=-1.0), Inverse(Exp()))
    >>> print(softplus_inverse.forward(jnp.log(jnp.array([3.0]))).round(4))  # log 2
    [0.6931]
    """
    return Compose(transforms)


@record
class Between(_Elementwise):
    """The real line onto (low, high), of ends that are arrays: `interval` makes it.

    Each number of an end may be infinite: below a finite end and above none it is
    z = low + eʸ, say, and without ends z = y.

    Attributes:
      low: `[J]`, or what broadcasts to it.
      high: `[J]`, or what broadcasts to it.
    """

    low: jax.Array | float
    high: jax.Array | float

    def forward(self, y: jax.Array) -> jax.Array:
        low, high, has_low, has_high = self._finite()
        exp = safe_exp(y)
        step = jnp.where(has_low & has_high, (high - low) * safe_sigmoid(y), exp)
        z = jnp.where(has_low, low + step, high - exp)
        return jnp.where(has_low | has_high, z, y)

    def inverse(self, z: jax.Array) -> jax.Array:
        low, high, has_low, has_high = self._finite()
        above = jnp.log(jnp.where(has_low, z - low, 1))
        below = jnp.log(jnp.where(has_high, high - z, 1))
        y = jnp.where(has_low, above - below, below)
        return jnp.where(has_low | has_high, y, z)

    def log_det(self, y: jax.Array) -> jax.Array:
        low, high, has_low, has_high = self._finite()
        width = jnp.where(has_low & has_high, high - low, 1)
        both = jnp.log(width) - softplus(y) - softplus(-y)
        one = jnp.where(has_low | has_high, y, 0)
        return jnp.where(has_low & has_high, both, one)

    def _finite(self) -> tuple[jax.Array, ...]:
        """The ends, 0 for infinite ones, and which of them are finite."""
        ends = jnp.asarray(self.low), jnp.asarray(self.high)
        has_low, has_high = map(jnp.isfinite, ends)
        low, high = jnp.where(has_low, ends[0], 0), jnp.where(has_high, ends[1], 0)
        return low, high, has_low, has_high


def interval(low: jax.Array | float, high: jax.Array | float) -> Transform:
    """The real line onto an interval, with ends or without.

    Args:
      low: its lower end; −inf is none.
      high: its upper end; inf is none.

    Returns:
      `Identity`, `Exp`, `Sigmoid` or what is between; of an array `Between`.

    >>> print(interval(0.0, jnp.inf).forward(jnp.zeros(2)), interval(0.0, jnp.inf))
    [1. 1.] Exp()
    """
    # Under jit and vmap an infinite number is an array like any other.
    if not (isinstance(low, float | int) and isinstance(high, float | int)):
        return Between(low, high)
    if math.isinf(low) and math.isinf(high):
        return Identity()
    if math.isinf(high):
        return Exp() if low == 0 else compose(Exp(), Affine(low))
    if math.isinf(low):
        return compose(Exp(), Affine(high, -1.0))
    if (low, high) == (0, 1):
        return Sigmoid()
    return compose(Sigmoid(), Affine(low, high - low))
