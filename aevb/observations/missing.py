"""The channel in which some dimensions of x are not seen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aevb.observations.channel import check_broadcasts
from aevb.records import record
from aevb.types import Likelihood, PyTree

__all__ = ["Masked", "masked"]


def masked(observed: PyTree) -> "Masked":
    """The channel in which some dimensions of x are not seen.

    y has the shape of x; what it has in the other dimensions is never looked at, and
    may be NaN. Inpainting, missing data; super-resolution from a subsampled grid.

    Args:
      observed: bool of x's shape, or what broadcasts to it: True where x is seen. Or a
        pytree, where x is one.

    Returns:
      `Masked`, for every likelihood with `log_probs(x)`, one number a dimension: of
      independent dimensions.

    Raises:
      TypeError: `observed` is not boolean; on the call, the likelihood has no
        `log_probs`.

    >>> from aevb import DiagNormal
    >>> observe = masked(jnp.array([True, False]))
    >>> p = observe(DiagNormal(jnp.zeros(2), jnp.zeros(2)))
    >>> print(f"{p.log_prob(jnp.array([0.0, jnp.nan])):.4f}")
    -0.9189
    """
    for leaf in jax.tree.leaves(observed):
        if jnp.result_type(leaf) != jnp.bool_:
            raise TypeError(
                f"observed has the dtype {jnp.result_type(leaf)}, expected bool, True "
                "where x is seen: pass observed > 0, say"
            )
    return Masked(observed)


@record
class Masked:
    """What `masked` returns.

    Attributes:
      observed: bool of x's shape, or what broadcasts to it.
    """

    observed: PyTree

    def __call__(self, likelihood: Likelihood) -> Likelihood:
        """p(y|z): the factors of p(x|z) that are seen."""
        return _Factors(_with_factors(likelihood), self.observed)

    def given(self, x: PyTree) -> Likelihood:
        """p(y|x): y is x where it is seen, and 0 elsewhere.

        Its `log_prob(y)` is 0 where y is x up to rounding, and −∞ elsewhere.
        """
        return _Seen(x, self.observed)

    def restore(self, likelihood: Likelihood, y: PyTree) -> Likelihood:
        """p(x|z, y): y where it is seen, p(x|z) elsewhere.

        Its `log_prob(x)` is the density of the dimensions that are not seen.
        """
        return _Filled(_with_factors(likelihood), y, self.observed)


def _with_factors(likelihood: Any) -> Any:
    if not hasattr(likelihood, "log_probs"):
        raise TypeError(
            f"masked needs a likelihood of independent dimensions, with log_probs(x), "
            f"one number a dimension; got {type(likelihood).__name__}: give it one, or "
            "write the marginal of what is seen as a channel of your own"
        )
    return likelihood


def _choose(observed: PyTree, seen: PyTree, other: PyTree) -> PyTree:
    """`jnp.where` over pytrees; `observed` may be a prefix of them."""

    def choose(mask: jax.Array, seen: PyTree, other: PyTree) -> PyTree:
        def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
            check_broadcasts("observed", mask, jnp.shape(b))
            return jnp.where(mask, a, b)

        return jax.tree.map(leaf, seen, other)

    return jax.tree.map(choose, observed, seen, other)


def _sum_all(tree: PyTree) -> jax.Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, tree))


@record
class _Factors:
    """Some of the independent factors of a likelihood; 0 in the other dimensions."""

    likelihood: Any
    chosen: PyTree

    @property
    def mean(self) -> PyTree:
        mean = self.likelihood.mean
        return _choose(self.chosen, mean, jax.tree.map(jnp.zeros_like, mean))

    def sample(self, key: jax.Array) -> PyTree:
        x = self.likelihood.sample(key)
        return _choose(self.chosen, x, jax.tree.map(jnp.zeros_like, x))

    def log_prob(self, y: PyTree) -> jax.Array:
        return _sum_all(self.log_probs(y))

    def log_probs(self, y: PyTree) -> PyTree:
        # Elsewhere the mean takes the place of whatever y has there, such as NaN: its
        # term is finite, and so is the gradient of it, which is not used.
        mean = jax.lax.stop_gradient(self.likelihood.mean)
        each = self.likelihood.log_probs(_choose(self.chosen, y, mean))
        return _choose(self.chosen, each, jax.tree.map(jnp.zeros_like, each))

    def check_value(self, y: PyTree) -> None:
        check = getattr(self.likelihood, "check_value", None)
        leaves = jax.tree.leaves((self.chosen, y))
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        if check is not None and not traced:
            # NumPy's, which `jax.jit` around the call does not trace.
            def choose(mask: jax.Array, y: PyTree) -> PyTree:
                return jax.tree.map(lambda a: np.where(mask, a, np.zeros_like(a)), y)

            check(jax.tree.map(choose, self.chosen, y))


@record
class _Seen:
    """y of a given x; certain."""

    x: PyTree
    observed: PyTree

    @property
    def mean(self) -> PyTree:
        return _choose(self.observed, self.x, jax.tree.map(jnp.zeros_like, self.x))

    def sample(self, key: jax.Array) -> PyTree:
        del key
        return self.mean

    def log_prob(self, y: PyTree) -> jax.Array:
        seen = self.mean
        same = _choose(
            self.observed,
            jax.tree.map(_same, y, self.x, seen),
            jax.tree.map(lambda leaf: jnp.ones_like(leaf, bool), self.x),
        )
        whole = jnp.all(jnp.stack([jnp.all(leaf) for leaf in jax.tree.leaves(same)]))
        dtype = jnp.result_type(*jax.tree.leaves(self.x), float)
        return jnp.where(whole, 0, -jnp.inf).astype(dtype)


def _same(y: jax.Array, x: jax.Array, seen: jax.Array) -> jax.Array:
    """Where y is x, up to the rounding of a number as large as any that is seen.

    A compiler may make x = loc + scale eps in two places, and round it in two ways:
    then a y that was taken from one x would have no density given the other.
    """
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        return y == x
    tolerance = max(1e-5, 4 * float(jnp.finfo(jnp.result_type(x)).eps))
    size = jnp.max(jnp.where(jnp.isfinite(seen), jnp.abs(seen), 0), initial=0)
    return (y == x) | (jnp.abs(y - x) <= tolerance * size)


@record
class _Filled:
    """y with the rest of p(x|z)."""

    likelihood: Any
    y: PyTree
    observed: PyTree

    @property
    def mean(self) -> PyTree:
        return _choose(self.observed, self.y, self.likelihood.mean)

    def sample(self, key: jax.Array) -> PyTree:
        return _choose(self.observed, self.y, self.likelihood.sample(key))

    def log_prob(self, x: PyTree) -> jax.Array:
        return _sum_all(self.log_probs(x))

    def log_probs(self, x: PyTree) -> PyTree:
        missing = jax.tree.map(jnp.logical_not, self.observed)
        return _Factors(self.likelihood, missing).log_probs(x)
