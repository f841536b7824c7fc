"""Levels of a CDF, exact in both tails: the noise of the inverse-CDF strategy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Level", "lower_level", "uniform_level", "upper_level"]


class Level(NamedTuple):
    """A level p of a CDF, with q = 1 − p beside it.

    In float32 a p near one has an absolute error of 6e-8: 1 − p says nothing of the
    upper tail. Of p and q the smaller is exact to rounding here, and so are both
    logarithms; a quantile function takes what it needs.

    Attributes:
      p: `[...]` P(Z ≤ z).
      q: `[...]` P(Z > z).
    """

    p: jax.Array
    q: jax.Array

    @property
    def is_lower(self) -> jax.Array:
        """Whether p is the smaller. `[...]`"""
        return self.p <= self.q

    @property
    def tail(self) -> jax.Array:
        """The smaller of p and q: exact. `[...]`"""
        return jnp.where(self.is_lower, self.p, self.q)

    @property
    def log_p(self) -> jax.Array:
        """log p, exact relative to itself in both tails. `[...]`"""
        is_lower = self.is_lower
        p, q = jnp.where(is_lower, self.p, 0.5), jnp.where(is_lower, 0.5, self.q)
        return jnp.where(is_lower, jnp.log(p), jnp.log1p(-q))

    @property
    def log_q(self) -> jax.Array:
        """log (1 − p), exact relative to itself in both tails. `[...]`"""
        return Level(self.q, self.p).log_p


def lower_level(p: jax.Array | float) -> Level:
    """The level of P(Z ≤ z) = p: exact for small p.

    Args:
      p: `[...]` in (0, 1).

    Returns:
      `Level`.

    >>> print(lower_level(1e-30).log_p)
    -69.07755
    """
    p = jnp.asarray(p, jnp.result_type(p, float))
    return Level(p, 1 - p)


def upper_level(q: jax.Array | float) -> Level:
    """The level of P(Z > z) = q: exact for small q, where 1 − q is 1.

    Args:
      q: `[...]` in (0, 1).

    Returns:
      `Level`.

    >>> print(upper_level(1e-30).log_q)
    -69.07755
    """
    level = lower_level(q)
    return Level(level.q, level.p)


def uniform_level(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Level:
    """Draws u ~ U(0, 1) that is never 0 and never 1, with both tails alike.

    One of 32 random bits says which tail, the others how far out: u is the middle of
    one of 2³² equal cells, so that neither p nor q is below 2⁻³³.

    Args:
      key: consumed.
      shape: of the draws.
      dtype: floating.

    Returns:
      `Level` of that shape.

    >>> level = uniform_level(jax.random.key(0), (1000,), jnp.float32)
    >>> bool(jnp.all((level.tail > 0) & (level.tail <= 0.5)))
    True
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    is_lower = bits >> 31 == 0
    cell = (bits & jnp.uint32(0x7FFFFFFF)).astype(dtype)
    tail = jnp.minimum((cell + 0.5) * 2.0**-32, 0.5)
    rest = 1 - tail
    return Level(jnp.where(is_lower, tail, rest), jnp.where(is_lower, rest, tail))
