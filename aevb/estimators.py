"""SGVB estimators of the lower bound, for one datapoint (section 2.3).

Every estimator takes `encode` and `decode`, a key that it consumes, and *one* x; it
returns scalars in nats. The caller batches:

    batched = jax.vmap(partial(aevb.elbo, encode, decode))
    bounds = batched(jax.random.split(key, len(xs)), xs)

Noise draw l of a datapoint uses the key `fold_in(key, l)` in `elbo`, `elbo_generic`,
`iwae` and `importance_log_likelihood`, so that they can be compared on common random
numbers, draw for draw. `log_weight` makes one draw and uses its key as it is: with
`fold_in(key, l)` it is the weight of draw l of the others.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import (
    call_decode,
    call_encode,
    check_count,
    check_scalar,
    prior_or_normal,
)
from aevb.divergences import kl_divergence
from aevb.types import Decode, Encode, Posterior, PyTree

__all__ = [
    "Elbo",
    "WeightedDraw",
    "elbo",
    "elbo_generic",
    "iwae",
    "log_joint",
    "log_weight",
    "weighted_draw",
]


class Elbo(NamedTuple):
    """An estimate of the lower bound of one datapoint, and its two parts.

    Attributes:
      value: `[]` the bound, in nats: reconstruction − kl. It goes up.
      reconstruction: `[]` the estimate of E_q[log p(x|z)], in nats.
      kl: `[]` KL(q(z|x) ‖ p(z)) in nats: exact in `elbo`, estimated in `elbo_generic`.
    """

    value: jax.Array
    reconstruction: jax.Array
    kl: jax.Array


class WeightedDraw(NamedTuple):
    """The three log densities of one draw z ~ q(z|x), in nats.

    Attributes:
      likelihood: `[]` log p(x|z).
      prior: `[]` log p(z).
      posterior: `[]` log q(z|x).
    """

    likelihood: jax.Array
    prior: jax.Array
    posterior: jax.Array

    @property
    def log_weight(self) -> jax.Array:
        """The log importance weight log p(x, z) − log q(z|x). `[]`"""
        return self.likelihood + self.prior - self.posterior


def elbo(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    num_samples: int = 1,
    kl: Callable[..., jax.Array] = kl_divergence,
) -> Elbo:
    """The estimator with an analytic KL, L^B.

    L^B(x) = −KL(q(z|x) ‖ p(z)) + (1/L) Σ_l log p(x|z_l),  z_l ~ q(z|x)

    With Gaussian q and p it is eq. 10. It usually has a lower variance than
    `elbo_generic`; where q is the exact posterior, `elbo_generic` is the constant
    log p(x) and this one is not.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      num_samples: L, static; 1 suffices with minibatches of about 100 (section 2.3).
      kl: `kl(q, p) -> []` in nats; by default the closed forms of this package.

    Returns:
      `Elbo` of scalars, in nats.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution, or the pair
        (q, p) has no closed-form KL.
      ValueError: a log density is not a scalar, or `num_samples` is not a positive
        integer.

    Source: eq. 7 and 10, section 2.3.

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x[:1], jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> print(elbo(encode, decode, jax.random.key(0), jnp.zeros(2)).kl)
    0.0
    """
    num_samples = check_count("num_samples", num_samples)
    q = call_encode(encode, x)

    def reconstruct(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = q.sample(key)
        return z, _log_likelihood(decode, z, x)

    zs, log_likelihoods = _over_samples(reconstruct, key, num_samples)
    p = prior_or_normal(prior, jax.tree.map(lambda z: z[0], zs))
    divergence = check_scalar(kl(q, p), "kl(q, p)")
    reconstruction = jnp.mean(log_likelihoods)
    return Elbo(reconstruction - divergence, reconstruction, divergence)


def elbo_generic(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    num_samples: int = 1,
    stop_score: bool = False,
) -> Elbo:
    """The generic estimator, L^A: needs densities only, no closed-form KL.

    L^A(x) = (1/L) Σ_l log p(x, z_l) − log q(z_l|x),  z_l ~ q(z|x)

    With `stop_score` the value is the same and the gradient leaves out the score term
    ∂ log q_φ(z|x) / ∂φ at fixed z, whose expectation is zero ("sticking the landing",
    Roeder et al., arXiv 1703.09194): the gradient with respect to φ is then zero, for
    every draw, where q is the exact posterior.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      num_samples: L, static.
      stop_score: drop the score term from the gradient; q must be a pytree.

    Returns:
      `Elbo` of scalars, in nats; `kl` is the estimate (1/L) Σ_l log q − log p.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar, or `num_samples` is not a positive
        integer.

    Source: eq. 6, section 2.3.

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> x, log_p = jnp.zeros(1), -0.5 * jnp.log(4 * jnp.pi)
    >>> bool(jnp.allclose(elbo_generic(encode, decode, jax.random.key(0), x)[0], log_p))
    True
    """
    num_samples = check_count("num_samples", num_samples)
    q = call_encode(encode, x)
    draws = _over_samples(
        lambda key: weighted_draw(
            q, decode, key, x, prior=prior, stop_score=stop_score
        ),
        key,
        num_samples,
    )
    return Elbo(
        value=jnp.mean(draws.log_weight),
        reconstruction=jnp.mean(draws.likelihood),
        kl=jnp.mean(draws.posterior - draws.prior),
    )


def log_weight(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    stop_score: bool = False,
) -> jax.Array:
    """The log importance weight of one draw: log w = log p(x, z) − log q(z|x).

    E[w] = p(x). Every bound here is a function of such weights: their mean log is
    `elbo_generic`, their log mean `iwae`. Where q is the exact posterior log w is
    log p(x), whatever the draw.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed by the one draw (the other estimators pass `fold_in(key, l)`).
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      stop_score: drop the score term from the gradient, as in `elbo_generic`.

    Returns:
      `[]` log w, in nats.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar.

    Source: eq. 2 and 6; Burda et al., arXiv 1509.00519, eq. 8.

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(jnp.zeros(1), jnp.zeros(1))  # the prior
    >>> decode = lambda z: DiagNormal(jnp.zeros(2), jnp.zeros(2))  # x ignores z
    >>> print(f"{log_weight(encode, decode, jax.random.key(0), jnp.zeros(2)):.4f}")
    -1.8379
    """
    q = call_encode(encode, x)
    draw = weighted_draw(q, decode, key, x, prior=prior, stop_score=stop_score)
    return draw.log_weight


def iwae(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    num_samples: int,
) -> jax.Array:
    """The importance-weighted bound with K samples.

    L_K(x) = log (1/K) Σ_k w_k,  w_k = p(x, z_k) / q(z_k|x),  z_k ~ q(z|x)

    K = 1 is `elbo_generic`. It rises with K towards log p(x) in expectation. Its
    gradient is Σ_k w̃_k ∂ log w_k with normalised weights w̃. For an evaluation with
    large K use `importance_log_likelihood`: the same number in bounded memory.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      num_samples: K, static.

    Returns:
      `[]` the bound, in nats.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar, or `num_samples` is not a positive
        integer.

    Source: Burda, Grosse and Salakhutdinov, arXiv 1509.00519, eq. 8.

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> bound = iwae(encode, decode, jax.random.key(0), jnp.zeros(1), num_samples=7)
    >>> print(f"{bound:.4f}")
    -1.2655
    """
    num_samples = check_count("num_samples", num_samples)
    q = call_encode(encode, x)
    draws = _over_samples(
        lambda key: weighted_draw(q, decode, key, x, prior=prior), key, num_samples
    )
    return jax.nn.logsumexp(draws.log_weight) - jnp.log(num_samples)


def log_joint(
    decode: Decode, z: PyTree, x: jax.Array, *, prior: Posterior | None = None
) -> jax.Array:
    """The log joint density log p(x, z) = log p(x|z) + log p(z).

    Args:
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      z: `[J]`, or a pytree.
      x: `[D]` one datapoint; binary under a `Bernoulli`.
      prior: p(z); None is the standard normal of z's shape.

    Returns:
      `[]` in nats.

    Raises:
      TypeError: `decode` does not return a distribution.
      ValueError: a log density is not a scalar; x has grey levels under a `Bernoulli`
        (seen where x is not traced: see `check_binary`).

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> print(f"{log_joint(decode, jnp.zeros(1), jnp.zeros(1)):.4f}")
    -1.8379
    """
    likelihood = _log_likelihood(decode, z, x, refuse_grey=True)
    return likelihood + _log_prior(prior, z)


def weighted_draw(
    q: Posterior,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    stop_score: bool = False,
    refuse_grey: bool = False,
) -> WeightedDraw:
    """One draw z ~ q(z|x) and its log densities: what every log weight is made of.

    Args:
      q: q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed by the draw.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      stop_score: drop the score term from the gradient, as in `elbo_generic`.
      refuse_grey: check x under a `Bernoulli`, as an estimate of log p(x) must.

    Returns:
      `WeightedDraw` of scalars, in nats.
    """
    z = q.sample(key)
    if stop_score and jax.tree_util.all_leaves([q]):
        raise TypeError(
            f"stop_score needs encode(x) to be a pytree, got {type(q).__name__}: "
            "register it, or decorate it with aevb.records.record"
        )
    scored = jax.lax.stop_gradient(q) if stop_score else q
    return WeightedDraw(
        likelihood=_log_likelihood(decode, z, x, refuse_grey=refuse_grey),
        prior=_log_prior(prior, z),
        posterior=check_scalar(scored.log_prob(z), "encode(x).log_prob(z)"),
    )


def _log_likelihood(
    decode: Decode, z: PyTree, x: jax.Array, *, refuse_grey: bool = False
) -> jax.Array:
    likelihood = call_decode(decode, z)
    if refuse_grey and hasattr(likelihood, "check_value"):
        likelihood.check_value(x)
    return check_scalar(likelihood.log_prob(x), "decode(z).log_prob(x)")


def _log_prior(prior: Posterior | None, z: PyTree) -> jax.Array:
    return check_scalar(prior_or_normal(prior, z).log_prob(z), "prior.log_prob(z)")


def _over_samples(draw, key, num_samples):
    """Runs `draw` on the keys of samples 0 .. num_samples - 1: leading axis added."""
    if num_samples == 1:
        # Under an axis of one, XLA transposes what a gradient is the product of: 5 %.
        return jax.tree.map(lambda leaf: leaf[None], draw(jax.random.fold_in(key, 0)))
    indices = jnp.arange(num_samples)
    return jax.vmap(lambda index: draw(jax.random.fold_in(key, index)))(indices)
