"""The local reparameterisation: noise on a dense layer's activations, not its weights.

With weights θ ~ q(θ) = N(μ, diag σ²) the output of a dense layer is Gaussian,

    b = W h + c ~ N(μ_W h + μ_c, σ_W² h² + σ_c²),

with independent units. One number of noise a unit in place of one a weight has the same
distribution for one input h, at the cost of two products of the layer. Each datapoint
then has a θ of its own, and the gradient of a minibatch varies less.

Source: Kingma, Salimans and Welling, arXiv 1506.02557.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from aevb.calls import prior_or_normal
from aevb.distributions import DiagNormal
from aevb.full_bayes import Reparameterization
from aevb.records import record
from aevb.types import Posterior, PyTree

__all__ = [
    "LocalWeights",
    "activation_noise",
    "apply_weights",
    "local_reparameterization",
]


@record
class LocalWeights:
    """A draw of a network's weights, known by what it does to one input.

    Attributes:
      posterior: q(θ) over the parameters of a Linen module of dense layers.
      noise: ζ ~ `activation_noise(posterior)`.
    """

    posterior: DiagNormal
    noise: PyTree


def activation_noise(q: DiagNormal) -> Posterior:
    """The distribution of the noise of a network's activations, N(0, I).

    Args:
      q: over the parameters of a Linen module of dense layers.

    Returns:
      `DiagNormal` over a dict of the layers by their paths, of one number a unit: `[K]`
      a layer.

    Raises:
      ValueError: there are parameters of something other than a dense layer.

    >>> from aevb import weight_posterior
    >>> params = {"logits": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
    >>> noise = activation_noise(weight_posterior(params, scale=0.1))
    >>> print(noise.mean)
    {'logits': Array([0., 0.], dtype=float32)}
    """
    layers = _layers(q.loc)
    units = [jnp.zeros_like(layer["kernel"][0]) for layer in layers.values()]
    return prior_or_normal(None, dict(zip(map(_name, layers), units, strict=True)))


local_reparameterization = Reparameterization(activation_noise, LocalWeights)
"""Activations in place of weights, for `aevb.sample_weights` and all that take one.

Each datapoint is to have noise of its own: one vector of noise for all of a minibatch
would be other weights for each input all the same, with a larger variance. It has under
`map_objective(full_bayes_objective(bound, ...), ...)`.
"""


def apply_weights(module: nn.Module, weights: PyTree, x: jax.Array) -> Any:
    """The output of a module for one datapoint, whichever way its weights are drawn.

    Args:
      module: `module(x)`, a Linen module; with `LocalWeights` one of `nn.Dense` layers,
        each called once, whose own products (`dot_general`) are used.
      weights: the parameters, or `LocalWeights`.
      x: `[D]` one input; the module's layers then have vectors as inputs.

    Returns:
      What `module(x)` returns.

    Raises:
      TypeError: the weights are a posterior, from which nothing was drawn.
      ValueError: with `LocalWeights`, there are parameters of something other than an
        `nn.Dense`, a layer is called twice, or with more than one input.

    >>> from aevb import nets, weight_posterior
    >>> params = {"logits": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}
    >>> q = weight_posterior(params, scale=0.5)
    >>> local = LocalWeights(q, {"logits": jnp.ones(1)})  # one standard deviation up
    >>> print(apply_weights(nets.BernoulliMLP(1, ()), local, jnp.zeros(2)).logits)
    [0.5]
    """
    if isinstance(weights, DiagNormal):
        raise TypeError(
            "the weights are a DiagNormal, expected plain parameters or LocalWeights: "
            "draw them with aevb.sample_weights(key, params), or take "
            "aevb.weight_means(params)"
        )
    if not isinstance(weights, LocalWeights):
        return module.apply({"params": weights}, x)
    q, noise = weights.posterior, weights.noise
    called = set()

    def intercept(next_call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        layer = context.module
        # A subclass may compute something else: then it counts as not called.
        if type(layer) is not nn.Dense or context.method_name != "__call__":
            return next_call(*args, **kwargs)
        h, name = (*args, *kwargs.values())[0], _name(layer.path)
        if name in called or jnp.ndim(h) != 1:
            raise ValueError(
                f"{name} has inputs of shape {jnp.shape(h)}, call "
                f"{1 + (name in called)}, expected one input [D] once: noise of its "
                "activations would be noise of other weights for each input. Use "
                "aevb.global_reparameterization"
            )
        called.add(name)
        of_layer = DiagNormal(_at(q.loc, layer.path), _at(q.log_scale, layer.path))
        scale = _activation_scale(layer, of_layer, h)
        mean = next_call(h)
        return mean + scale.astype(mean.dtype) * noise[name].astype(mean.dtype)

    with nn.intercept_methods(intercept):
        output = module.apply({"params": q.loc}, x)
    left = {_name(path) for path in _layers(q.loc)} - called
    if left:
        raise ValueError(
            f"{', '.join(sorted(left))}: not called as an nn.Dense, but with a "
            "posterior over weights: expected a module of nn.Dense layers alone. Use "
            "aevb.global_reparameterization"
        )
    return output


def _activation_scale(layer: nn.Dense, q: DiagNormal, h: jax.Array) -> jax.Array:
    """sqrt(σ_W² h² + σ_c²) `[K]`, with the layer's own product."""

    def variance(loc: jax.Array, log_scale: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.exp(2 * log_scale), jnp.shape(loc))

    variances = jax.tree.map(variance, q.loc, q.log_scale)
    operands: Any = layer.promote_dtype(
        h, variances["kernel"], variances.get("bias"), dtype=layer.dtype
    )
    h, kernel, bias = operands
    dot_general = layer.dot_general or lax.dot_general
    if layer.dot_general_cls is not None:
        dot_general = layer.dot_general_cls()
    dimensions = (((0,), (0,)), ((), ()))
    total = dot_general(h**2, kernel, dimensions, precision=layer.precision)
    if bias is not None:
        total += bias
    # The slope of a root at zero is infinite: there, as for h = 0 without a bias, the
    # scale is zero and has no gradient.
    positive = total > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)


def _layers(loc: PyTree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], PyTree]:
    """The parameters of each dense layer, by its path in the module.

    Raises:
      ValueError: there are parameters of something other than a dense layer.
    """
    if isinstance(loc, Mapping) and "kernel" not in loc:
        found: dict[tuple[str, ...], PyTree] = {}
        for name, child in loc.items():
            found |= _layers(child, (*path, name))
        return found
    if (
        not isinstance(loc, Mapping)
        or not set(loc) <= {"kernel", "bias"}
        or jnp.ndim(loc["kernel"]) != 2
    ):
        raise ValueError(
            f"{_name(path)} is {jax.tree.map(jnp.shape, loc)}, expected the kernel "
            "[H, K] and bias [K] of an nn.Dense: noise of activations is defined for "
            "dense layers alone. Use aevb.global_reparameterization"
        )
    return {path: loc}


def _at(tree: PyTree, path: tuple[str, ...]) -> PyTree:
    for name in path:
        tree = tree[name]
    return tree


def _name(path: tuple[str, ...]) -> str:
    return "/".join(path) or "params"
