"""q(θ) over weights: how it is made and drawn from, its prior, their divergence.

`params` is any pytree in which each `DiagNormal` is a posterior over what would stand
in its place; every other leaf is a point. A posterior is named by its path in the tree,
as in "decoder", or "decoder/hidden_0".
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aevb.calls import check_scalar, prior_or_normal
from aevb.distributions import DiagNormal, Product
from aevb.divergences import kl_divergence
from aevb.types import Posterior, PyTree

__all__ = [
    "Reparameterization",
    "WeightsKL",
    "global_reparameterization",
    "insert_noise",
    "noise_distribution",
    "posteriors",
    "sample_weights",
    "sampled_weights_kl",
    "weight_means",
    "weight_posterior",
    "weight_prior",
    "weights_kl",
]

WeightsKL = Callable[..., jax.Array]
"""`weights_kl(params, weights, *, prior) -> []` in nats: `weights_kl`, or alike."""


class Reparameterization(NamedTuple):
    """How weights are drawn, θ = h_φ(ζ) with noise ζ ~ p(ζ) that has no parameters.

    Attributes:
      noise: `noise(q) -> p(ζ)` of one posterior q(θ).
      weights: `weights(q, zeta) -> h(ζ)`: what the network takes for its parameters.
    """

    noise: Callable[[DiagNormal], Posterior]
    weights: Callable[[DiagNormal, PyTree], PyTree]


def _standard_noise(q: DiagNormal) -> Posterior:
    return prior_or_normal(None, q.loc)


def _shift_and_scale(q: DiagNormal, zeta: PyTree) -> PyTree:
    def leaf(loc: jax.Array, log_scale: jax.Array, zeta: jax.Array) -> jax.Array:
        return loc + jnp.exp(log_scale) * zeta

    return jax.tree.map(leaf, q.loc, q.log_scale, zeta)


global_reparameterization = Reparameterization(_standard_noise, _shift_and_scale)
"""The weights themselves, θ = μ + σ ⊙ ζ with ζ ~ N(0, I) (Appendix F.1)."""


def weight_posterior(weights: PyTree, *, scale: float | jax.Array) -> DiagNormal:
    """A posterior q(θ) = N(θ; weights, scale² I) to start from.

    Args:
      weights: the parameters that are to have a posterior: its mean.
      scale: `[]` the standard deviation of every weight. A start well below the weights
        themselves leaves the network what it is.

    Returns:
      `DiagNormal` over the pytree, both of its parameters with the weights' shapes.

    Raises:
      ValueError: `scale` is not positive (seen where it is not traced).

    Source: Appendix F.1.

    >>> q = weight_posterior({"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}, scale=1.0)
    >>> print(q.log_scale["b"])
    [0. 0. 0.]
    """
    _check_scale(scale)

    def log_scale(w: jax.Array) -> jax.Array:
        return jnp.full_like(w, jnp.log(jnp.asarray(scale, jnp.result_type(w))))

    return DiagNormal(
        jax.tree.map(jnp.asarray, weights), jax.tree.map(log_scale, weights)
    )


def weight_prior(params: PyTree, *, scale: float | jax.Array = 1.0) -> PyTree:
    """The prior p(θ) = N(0, scale² I) of the weights that have a posterior.

    Any function of `params` that returns such a tree is a prior. It may read its own
    parameters from `params`: a prior that is learned.

    Args:
      params: with posteriors.
      scale: `[]` the standard deviation; may be traced.

    Returns:
      The tree of `params`, a distribution in place of each posterior, None elsewhere.

    Raises:
      ValueError: no part of `params` has a posterior; `scale` is not positive.

    Source: Appendix F.1, where the scale is 1.

    >>> params = {"encoder": jnp.ones(2), "decoder": weight_posterior(1.0, scale=0.1)}
    >>> weight_prior(params)["encoder"] is None
    True
    """
    _check_scale(scale)

    def leaf(w: jax.Array) -> jax.Array:
        return jnp.log(jnp.asarray(scale, jnp.result_type(w)))

    def node(node: Any) -> DiagNormal | None:
        if not _is_posterior(node):
            return None
        zeros = jax.tree.map(jnp.zeros_like, node.loc)
        return DiagNormal(zeros, jax.tree.map(leaf, node.loc))

    posteriors(params)
    return jax.tree.map(node, params, is_leaf=_is_posterior)


def weight_means(params: PyTree) -> PyTree:
    """The parameters with each posterior's mean in its place: points alone.

    Args:
      params: with posteriors, or without any.

    Returns:
      A tree for `Model.encode` and `Model.decode`.

    >>> print(weight_means({"decoder": weight_posterior(2.0, scale=0.1)}))
    {'decoder': Array(2., dtype=float32, weak_type=True)}
    """

    def node(node: Any) -> PyTree:
        return node.loc if _is_posterior(node) else node

    return jax.tree.map(node, params, is_leaf=_is_posterior)


def sample_weights(
    key: jax.Array,
    params: PyTree,
    *,
    reparameterization: Reparameterization = global_reparameterization,
) -> PyTree:
    """Draws θ ~ q(θ), differentiable in the posteriors' parameters.

    Args:
      key: consumed.
      params: with posteriors.
      reparameterization: of each; by default the weights themselves are drawn.

    Returns:
      A tree for `Model.encode` and `Model.decode`: a draw in place of each posterior.

    Raises:
      ValueError: no part of `params` has a posterior.

    Source: Appendix F, θ̃ = h_φ(ζ).

    >>> params = {"decoder": weight_posterior({"w": jnp.ones(2)}, scale=0.1)}
    >>> sample_weights(jax.random.key(0), params)["decoder"]["w"].shape
    (2,)
    """
    noise = noise_distribution(params, reparameterization).sample(key)
    return insert_noise(params, noise, reparameterization)


def weights_kl(
    params: PyTree,
    weights: PyTree | None = None,
    *,
    prior: Callable[[PyTree], PyTree] = weight_prior,
    kl: Callable[..., jax.Array] = kl_divergence,
) -> jax.Array:
    """KL(q(θ) ‖ p(θ)) in closed form, summed over the posteriors of `params`.

    Args:
      params: with posteriors.
      weights: ignored; `sampled_weights_kl` takes a draw here.
      prior: `prior(params) -> ` the tree of `params` with a distribution in place of
        each posterior, such as `partial(weight_prior, scale=0.1)`.
      kl: `kl(q, p) -> []` in nats; by default the closed forms of this package.

    Returns:
      `[]` in nats per data set.

    Raises:
      ValueError: no part of `params` has a posterior, or the prior is over others.
      TypeError: the pair (q, p) has no closed-form KL.

    Source: Appendix F.1.

    >>> print(f"{weights_kl(weight_posterior(jnp.full(2, 3.0), scale=1.0)):.4f}")
    9.0000
    """
    del weights
    terms = [
        check_scalar(kl(q, p), f"kl(q, p) of {name}")
        for name, (q, p) in _with_prior(params, prior).items()
    ]
    return jax.tree.reduce(jnp.add, terms)


def sampled_weights_kl(
    params: PyTree,
    weights: PyTree,
    *,
    prior: Callable[[PyTree], PyTree] = weight_prior,
) -> jax.Array:
    """An unbiased estimate of KL(q(θ) ‖ p(θ)) from one draw: log q(θ) − log p(θ).

    Needs no closed form, so that the prior may be any distribution. It varies more than
    `weights_kl`: of K weights with a standard deviation of about sqrt(K / 2) nats.

    Args:
      params: with posteriors.
      weights: what `sample_weights` drew from them.
      prior: as in `weights_kl`.

    Returns:
      `[]` in nats per data set.

    Raises:
      ValueError: no part of `params` has a posterior, or the prior is over others.
      TypeError: `weights` has no draw in place of a posterior.

    Source: Algorithm 2, Appendix F.

    >>> q = weight_posterior(jnp.zeros(2), scale=1.0)  # the prior
    >>> print(sampled_weights_kl(q, sample_weights(jax.random.key(0), q)))
    0.0
    """
    pairs = _with_prior(params, prior)
    treedef: Any = jax.tree.structure(params, is_leaf=_is_posterior)
    drawn = zip(
        jax.tree.leaves(params, is_leaf=_is_posterior),
        treedef.flatten_up_to(weights),
        strict=True,
    )
    thetas = [theta for node, theta in drawn if _is_posterior(node)]
    terms = []
    for (name, (q, p)), theta in zip(pairs.items(), thetas, strict=True):
        structure: Any = jax.tree.structure(theta)
        if structure != jax.tree.structure(q.loc):
            raise TypeError(
                f"the weights of {name} are {type(theta).__name__}, expected a draw of "
                "them with the structure of the posterior's mean: where activations "
                "are drawn in place of weights, use aevb.weights_kl"
            )
        log_p = check_scalar(p.log_prob(theta), f"the prior's log_prob of {name}")
        terms.append(q.log_prob(theta) - log_p)
    return jax.tree.reduce(jnp.add, terms)


def noise_distribution(
    params: PyTree, reparameterization: Reparameterization
) -> Product:
    """p(ζ) of all posteriors of `params`, a dict by their names."""
    named = posteriors(params)
    return Product({name: reparameterization.noise(q) for name, q in named.items()})


def insert_noise(
    params: PyTree, noise: Mapping[str, PyTree], reparameterization: Reparameterization
) -> PyTree:
    """The parameters with h(ζ) in place of each posterior."""

    def node(path: tuple, node: Any) -> PyTree:
        if not _is_posterior(node):
            return node
        return reparameterization.weights(node, noise[_name(path)])

    return jax.tree.map_with_path(node, params, is_leaf=_is_posterior)


def posteriors(params: PyTree) -> dict[str, DiagNormal]:
    """The posteriors of `params` by name, in the order of its leaves.

    Raises:
      ValueError: there is none.
    """
    nodes = jax.tree.leaves_with_path(params, is_leaf=_is_posterior)
    found = {_name(path): node for path, node in nodes if _is_posterior(node)}
    if not found:
        raise ValueError(
            "no part of params has a posterior, expected an aevb.DiagNormal in place "
            "of the weights that have one: pass {'encoder': ..., 'decoder': "
            "aevb.weight_posterior(weights, scale=...)}, or use aevb.map_objective "
            "where all parameters are points"
        )
    return found


def _with_prior(
    params: PyTree, prior: Callable[[PyTree], PyTree]
) -> dict[str, tuple[DiagNormal, Posterior]]:
    found = posteriors(params)
    nodes = jax.tree.leaves_with_path(
        prior(params), is_leaf=lambda node: hasattr(node, "log_prob")
    )
    priors = {_name(path): node for path, node in nodes}
    if priors.keys() != found.keys():
        raise ValueError(
            f"the prior is over {', '.join(priors) or 'nothing'}, expected over "
            f"{', '.join(found)}, which have a posterior: return the tree of params "
            "with a distribution in place of each posterior, and None elsewhere"
        )
    return {name: (q, priors[name]) for name, q in found.items()}


def _is_posterior(node: object) -> bool:
    return isinstance(node, DiagNormal)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "params"


def _check_scale(scale: float | jax.Array) -> None:
    if not isinstance(scale, jax.core.Tracer) and not np.all(np.asarray(scale) > 0):
        raise ValueError(
            f"scale is {scale}, expected a positive standard deviation: pass its "
            "exponential if it is a logarithm"
        )
