"""Distributions as pytrees: their leaves are their parameters.

A distribution can be returned through `jax.vmap`, passed through `jax.jit`, and
`jax.lax.stop_gradient` works on it as a whole. Any object with `sample(key)` and
`log_prob(z)` can stand in for one (a numpyro distribution does, as it is).

All log densities are in nats, summed over every dimension of one datapoint. A value has
the distribution's own shape: broadcasting `[D, 1]` against `[D]` would silently sum D²
terms, so it raises an error.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aevb.products import matmul
from aevb.records import record
from aevb.types import PyTree

__all__ = [
    "Bernoulli",
    "DiagNormal",
    "MultivariateNormal",
    "Product",
    "check_binary",
    "check_shape",
    "normal_shape",
    "softplus",
]

_LOG_2PI = math.log(2 * math.pi)


@record
class DiagNormal:
    """The Gaussian with diagonal covariance, N(z; loc, diag exp(2 log_scale)).

    log p(z) = −½ Σⱼ (log 2π + 2 log σⱼ + (zⱼ − μⱼ)² / σⱼ²)

    `loc` and `log_scale` may be pytrees of one structure; z then has it too, and
    every sum runs over all leaves. A `DiagNormal` over a pytree of parameters is the
    posterior over weights of Appendix F.

    Attributes:
      loc: `[J]` the mean μ; its shape is that of z.
      log_scale: `[J]` the log standard deviation log σ (half the log variance), or
        what broadcasts to it, such as one scalar.

    >>> q = DiagNormal(jnp.zeros(2), jnp.zeros(2))
    >>> print(f"{q.log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """

    loc: PyTree
    log_scale: PyTree

    @property
    def mean(self) -> PyTree:
        """The mean μ. `[J]`"""
        return self.loc

    def sample(self, key: jax.Array) -> PyTree:
        """Draws z = μ + σ ⊙ ε, ε ~ N(0, I) (section 2.4). `[J]`"""
        leaves, treedef = jax.tree.flatten(self.loc)
        keys = [key] if len(leaves) == 1 else list(jax.random.split(key, len(leaves)))

        def draw(key: jax.Array, loc: jax.Array, log_scale: jax.Array) -> jax.Array:
            shape = normal_shape(loc, log_scale)
            eps = jax.random.normal(key, shape, jnp.result_type(loc))
            return loc + jnp.exp(log_scale) * eps

        return jax.tree.map(
            draw, jax.tree.unflatten(treedef, keys), self.loc, self.log_scale
        )

    def log_prob(self, z: PyTree) -> jax.Array:
        """log N(z; μ, diag σ²) in nats. `[]`"""
        return _sum_leaves(jax.tree.map(jnp.sum, self.log_probs(z)))

    def log_probs(self, z: PyTree) -> PyTree:
        """The terms of `log_prob`, one a dimension, in nats. `[J]`"""

        def leaf(z: jax.Array, loc: jax.Array, log_scale: jax.Array) -> jax.Array:
            check_shape("z", jnp.shape(z), normal_shape(loc, log_scale))
            # Scaled before it is squared: finite for log variances to +-80.
            eps = (z - loc) * jnp.exp(-log_scale)
            return -0.5 * (eps**2 + 2 * log_scale + _LOG_2PI)

        return jax.tree.map(leaf, z, self.loc, self.log_scale)


@record
class Bernoulli:
    """Independent Bernoulli variables, from logits (Appendix C.1).

    log p(x) = Σ_d x_d l_d − softplus(l_d), which equals the paper's
    Σ_d x_d log y_d + (1 − x_d) log(1 − y_d) with y = sigmoid(l), and stays finite,
    with a finite gradient, to |l| = 1e4.

    x may lie inside [0, 1]: the same formula with grey pixels is the training target
    of the paper's Fig. 2 (very probably), but then **not a likelihood** of anything.

    Attributes:
      logits: `[D]` the log odds l.

    >>> print(f"{Bernoulli(jnp.zeros(3)).log_prob(jnp.array([0., 1., 1.])):.4f}")
    -2.0794
    """

    logits: jax.Array

    @property
    def mean(self) -> jax.Array:
        """P(x = 1) = sigmoid(l). `[D]`"""
        return jax.nn.sigmoid(self.logits)

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws x in {0, 1}, of the logits' dtype; not reparameterised. `[D]`"""
        logits = self.logits
        draws = jax.random.bernoulli(key, self.mean, jnp.shape(logits))
        return draws.astype(jnp.result_type(logits))

    def log_prob(self, x: jax.Array) -> jax.Array:
        """log p(x) in nats. `[]`"""
        return jnp.sum(self.log_probs(x))

    def log_probs(self, x: jax.Array) -> jax.Array:
        """The terms of `log_prob`, one a dimension, in nats. `[D]`"""
        check_shape("x", jnp.shape(x), jnp.shape(self.logits))
        return x * self.logits - softplus(self.logits)

    def check_value(self, x: jax.Array) -> None:
        """Refuses an x that has no likelihood: `aevb.check_binary`."""
        check_binary(x)


@record
class MultivariateNormal:
    """The Gaussian with full covariance, N(z; loc, L Lᵀ).

    Attributes:
      loc: `[J]` the mean.
      scale_tril: `[J, J]` the lower Cholesky factor L of the covariance.

    >>> q = MultivariateNormal(jnp.zeros(2), 2 * jnp.eye(2))
    >>> print(f"{q.log_prob(jnp.zeros(2)):.4f}")
    -3.2242
    """

    loc: jax.Array
    scale_tril: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The mean. `[J]`"""
        return self.loc

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z = μ + L ε, ε ~ N(0, I) (section 2.4: location-scale). `[J]`"""
        eps = jax.random.normal(key, self.loc.shape, self.loc.dtype)
        return self.loc + matmul(self.scale_tril, eps)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """log N(z; μ, L Lᵀ) in nats. `[]`"""
        check_shape("z", jnp.shape(z), jnp.shape(self.loc))
        eps = jax.scipy.linalg.solve_triangular(
            self.scale_tril, z - self.loc, lower=True
        )
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.scale_tril)))
        return -0.5 * jnp.sum(eps**2 + _LOG_2PI) - log_det


@record
class Product:
    """Independent parts, p(z) = Π_k p_k(z_k): z is a dict or a tuple of the z_k.

    Attributes:
      parts: a dict or a tuple of distributions, which may be products themselves.

    >>> normal = DiagNormal(jnp.zeros(2), jnp.zeros(2))
    >>> joint = Product({"z": normal, "noise": normal})
    >>> print(f"{joint.log_prob({'z': jnp.zeros(2), 'noise': jnp.zeros(2)}):.4f}")
    -3.6758
    """

    parts: PyTree

    @property
    def mean(self) -> PyTree:
        """The means of the parts, where every part has one."""
        parts, treedef = self.flatten()
        return jax.tree.unflatten(treedef, [part.mean for part in parts])

    def sample(self, key: jax.Array) -> PyTree:
        """Draws z, each part with a key of its own; a single part has `key`."""
        parts, treedef = self.flatten()
        keys = [key] if len(parts) == 1 else list(jax.random.split(key, len(parts)))
        draws = [part.sample(key) for part, key in zip(parts, keys, strict=True)]
        return jax.tree.unflatten(treedef, draws)

    def log_prob(self, z: PyTree) -> jax.Array:
        """Σ_k log p_k(z_k) in nats. `[]`"""
        parts, treedef = self.flatten()
        zs = treedef.flatten_up_to(z)
        return _sum_leaves([p.log_prob(z) for p, z in zip(parts, zs, strict=True)])

    def flatten(self) -> tuple[list[Any], Any]:
        """The parts in the order of their keys, and the structure around them."""
        # A dict's own order would change where JAX has rebuilt it, and the keys too.
        return jax.tree.flatten(self.parts, is_leaf=lambda node: node is not self.parts)


def check_binary(xs: jax.Array | np.ndarray) -> None:
    """Refuses data that a Bernoulli p(x|z) gives no likelihood.

    The log p(x) estimators call it on x, but a value that is being traced (under
    `jax.jit` or `jax.vmap`) cannot be looked at: call it on the data itself first.

    Args:
      xs: `[...]` data; a traced value passes unseen.

    Raises:
      ValueError: a value is neither 0 nor 1.

    >>> check_binary(jnp.array([0.0, 1.0]))
    """
    if isinstance(xs, jax.core.Tracer):
        return
    values = np.asarray(xs)
    grey = values[(values != 0) & (values != 1)]
    if grey.size:
        raise ValueError(
            f"x has {grey.size} values such as {grey.flat[0]} that are neither 0 nor "
            "1: exp(Σ x l − softplus(l)) does not sum to one over grey levels, so "
            "under a Bernoulli p(x|z) it is no likelihood, and has no log p(x). "
            "Binarise x first, or report the bound as a training objective"
        )


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """log(1 + eˣ), without the branches of `jax.nn.softplus` for infinities and NaN.

    They cost as much again as the function, over all pixels of every draw.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # The slope is made in the forward pass, of the exponential that is there: the
    # backward pass has no exponential of its own (6 % of a step of training).
    (x,), (tangent,) = primals, tangents
    exp = jnp.exp(-jnp.abs(x))
    inverse = 1 / (1 + exp)
    slope = jnp.where(x > 0, inverse, exp * inverse)
    return jnp.maximum(x, 0) + jnp.log1p(exp), tangent * slope


def _sum_leaves(tree: PyTree) -> jax.Array:
    return jax.tree.reduce(jnp.add, tree)


def normal_shape(loc: jax.Array, log_scale: jax.Array) -> tuple[int, ...]:
    """The shape of z. Raises a ValueError where log_scale does not broadcast to it."""
    shape = jnp.shape(loc)
    # A log_scale of more axes would give all of them one draw of eps.
    broadcast = jnp.broadcast_shapes(shape, jnp.shape(log_scale))
    check_shape("log_scale, broadcast with loc,", broadcast, shape)
    return shape


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises a ValueError where a value has not the shape of its distribution."""
    if shape != expected:
        raise ValueError(
            f"{name} has shape {shape}, expected {expected}, the shape of what the "
            "distribution is over: reshape it, or wrap the call in jax.vmap"
        )
