"""The channel of linear measurements: averages of blocks, blur, projections."""

from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aevb.distributions import DiagNormal, MultivariateNormal
from aevb.observations.channel import check_all, of_kind
from aevb.products import matmul
from aevb.records import record
from aevb.types import Likelihood

__all__ = ["Pooled", "pooled"]


def pooled(matrix: jax.Array | np.ndarray, scale: jax.Array | float) -> "Pooled":
    """The channel of linear measurements: y = A x + scale · ε, ε ~ N(0, I).

    Block averages (super-resolution), blur, projections.

    Args:
      matrix: A, `[M, D]`. Where no two of its rows have a dimension in common, as in
        averages of blocks, the measurements are independent given z, and p(y|z) is a
        `DiagNormal`; seen where the matrix is not traced.
      scale: `[]` or `[M]` the noise's standard deviation, above 0.

    Returns:
      `Pooled`, for `DiagNormal` and `MultivariateNormal` likelihoods.

    Raises:
      ValueError: the matrix has not two axes, or a scale is not positive (seen where it
        is not traced).
      TypeError: on the call, the likelihood is neither.

    >>> observe = pooled(jnp.full((1, 4), 0.25), 0.5)
    >>> p = observe(DiagNormal(jnp.arange(4.0), jnp.zeros(4)))
    >>> print(p.mean, jnp.exp(2 * p.log_scale))
    [1.5] [0.5]
    """
    if jnp.ndim(matrix) != 2:
        raise ValueError(
            f"matrix has the shape {jnp.shape(matrix)}, expected [M, D]: one row a "
            "measurement of x [D]"
        )
    check_all("scale", scale, lambda s: s > 0, "above 0")
    apart = False
    if not isinstance(matrix, jax.core.Tracer):
        apart = bool(np.all(np.sum(np.asarray(matrix) != 0, axis=0) <= 1))
    return Pooled(jnp.asarray(matrix), scale, apart)


@record
class Pooled:
    """What `pooled` returns.

    Attributes:
      matrix: A, `[M, D]`.
      scale: `[]` or `[M]` the noise's standard deviation.
      rows_apart: whether no two rows have a dimension in common; static.
    """

    matrix: jax.Array
    scale: jax.Array | float
    rows_apart: bool = field(metadata={"static": True})

    def __call__(self, likelihood: Likelihood) -> DiagNormal | MultivariateNormal:
        """p(y|z) = N(A μ, A Σ Aᵀ + scale²)."""
        p = of_kind((DiagNormal, MultivariateNormal), likelihood, "pooled")
        mean = matmul(self.matrix, p.mean)
        if self._is_diagonal(p):
            return DiagNormal(mean, jnp.log(self._variances(p)) / 2)
        return MultivariateNormal(mean, self._cholesky(p))

    def given(self, x: jax.Array) -> DiagNormal:
        """p(y|x) = N(A x, scale²)."""
        return DiagNormal(matmul(self.matrix, x), jnp.log(self.scale))

    def restore(self, likelihood: Likelihood, y: jax.Array) -> Likelihood:
        """p(x|z, y), the conditional Gaussian; no matrix `[D, D]` is made of it."""
        p = of_kind((DiagNormal, MultivariateNormal), likelihood, "pooled")
        return _Corrected(self, p, y)

    def correction(self, likelihood: Any, residual: jax.Array) -> jax.Array:
        """Σ Aᵀ (A Σ Aᵀ + scale²)⁻¹ of a residual `[M]`. `[D]`"""
        half = self._half(likelihood)
        if self._is_diagonal(likelihood):
            solved = residual / self._variances(likelihood)
        else:
            factor = (self._cholesky(likelihood), True)
            solved = jax.scipy.linalg.cho_solve(factor, residual)
        back = matmul(half.T, solved)
        if isinstance(likelihood, DiagNormal):
            return jnp.exp(likelihood.log_scale) * back
        return matmul(likelihood.scale_tril, back)

    def _is_diagonal(self, likelihood: Any) -> bool:
        return self.rows_apart and isinstance(likelihood, DiagNormal)

    def _half(self, likelihood: Any) -> jax.Array:
        """A times a root of the covariance. `[M, D]`"""
        if isinstance(likelihood, DiagNormal):
            scale = jnp.exp(likelihood.log_scale)
            return self.matrix * jnp.broadcast_to(scale, self.matrix.shape[1:])[None]
        return matmul(self.matrix, likelihood.scale_tril)

    def _variances(self, likelihood: Any) -> jax.Array:
        return jnp.sum(self._half(likelihood) ** 2, axis=1) + self.scale**2

    def _cholesky(self, likelihood: Any) -> jax.Array:
        half = self._half(likelihood)
        noise = jnp.broadcast_to(jnp.square(self.scale), (len(half),))
        return jnp.linalg.cholesky(matmul(half, half.T) + jnp.diag(noise))


@record
class _Corrected:
    """p(x|z, y) of linear measurements: a draw of p(x, y|z), and its y put right."""

    channel: Pooled
    likelihood: Any
    y: jax.Array

    @property
    def mean(self) -> jax.Array:
        x = self.likelihood.mean
        return self._corrected(x, matmul(self.channel.matrix, x))

    def sample(self, key: jax.Array) -> jax.Array:
        x_key, y_key = jax.random.split(key)
        x = self.likelihood.sample(x_key)
        return self._corrected(x, self.channel.given(x).sample(y_key))

    def log_prob(self, x: jax.Array) -> jax.Array:
        of_y = self.channel.given(x).log_prob(self.y)
        return (
            self.likelihood.log_prob(x)
            + of_y
            - self.channel(self.likelihood).log_prob(self.y)
        )

    def _corrected(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return x + self.channel.correction(self.likelihood, self.y - y)
