"""Weighted draws of p(z|y), and resampling: SIR, and its latent-adaptive form."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_decode, call_encode, check_count, prior_or_normal
from aevb.estimators import weighted_draw
from aevb.imputation.chains import ChainInfo, Chains, Kernel, restorer, starter
from aevb.imputation.proposals import encoder_mixture
from aevb.marginal.diagnostics import log_mean_weight, pareto_k
from aevb.observations.channel import Channel
from aevb.types import Decode, Encode, Posterior, PyTree

__all__ = [
    "WeightedDraws",
    "latent_adaptive_resampling",
    "resample",
    "weighted_draws",
]


class WeightedDraws(NamedTuple):
    """Draws of a proposal, with the weights that make them draws of p(z|y).

    Attributes:
      zs: `[K, J]`, or a pytree of such.
      log_weights: `[K]` log p(y, z) − log q(z), in nats.
      log_likelihood: `[]` log (1/K) Σ_k w_k, in nats: below log p(y) in expectation.
      ess: `[]` effective sample size of the weights, between 1 and K.
      std_error: `[]` of `log_likelihood`, in nats.
      pareto_k: `[]` k-hat; see `aevb.pareto_k`.
    """

    zs: PyTree
    log_weights: jax.Array
    log_likelihood: jax.Array
    ess: jax.Array
    std_error: jax.Array
    pareto_k: jax.Array


def weighted_draws(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    y: PyTree,
    *,
    prior: Posterior | None = None,
    num_samples: int,
) -> WeightedDraws:
    """Importance sampling of p(z|y) that keeps its draws.

    z_k ~ q(z),  w_k = p(y|z_k) p(z_k) / q(z_k)

    `resample` makes equally weighted draws of them: sampling-importance-resampling.
    For a y that is seen of x, `encode` is the encoder of some filled-in x:

        encode_y = lambda y: aevb.encoder_mixture(encode, xs)      # xs [C, D]
        decode_y = lambda z: observe(decode(z))
        draws = aevb.weighted_draws(encode_y, decode_y, key, y, num_samples=1000)
        zs = aevb.resample(other_key, draws.zs, draws.log_weights, num_samples=100)

    Args:
      encode: y -> q(z), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(y|z).
      key: consumed; draw k uses `fold_in(key, k)`.
      y: what was seen.
      prior: p(z); None is the standard normal of z's shape.
      num_samples: K, static.

    Returns:
      `WeightedDraws`.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: `num_samples` is not a positive integer; y has grey levels under a
        `Bernoulli` (seen where y is not traced).

    Source: Rubin (1988), Bayesian Statistics 3.

    >>> from aevb import DiagNormal
    >>> encode = lambda y: DiagNormal(y / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> draws = weighted_draws(
    ...     encode, decode, jax.random.key(0), jnp.zeros(1), num_samples=10)
    >>> print(f"{draws.log_likelihood:.4f} {draws.ess:.1f}")
    -1.2655 10.0
    """
    num_samples = check_count("num_samples", num_samples)
    q = call_encode(encode, y)

    def draw(index: jax.Array) -> tuple[PyTree, jax.Array]:
        own = jax.random.fold_in(key, index)
        # The same z again, which `weighted_draw` does not give away.
        weights = weighted_draw(q, decode, own, y, prior=prior, refuse_grey=True)
        return q.sample(own), weights.log_weight

    zs, log_weights = jax.vmap(draw)(jnp.arange(num_samples))
    return WeightedDraws(
        zs, log_weights, *log_mean_weight(log_weights), pareto_k(log_weights)
    )


def resample(
    key: jax.Array, values: PyTree, log_weights: jax.Array, *, num_samples: int
) -> PyTree:
    """Equally weighted draws of weighted ones, by systematic resampling.

    Draw k comes ⌊n w_k⌋ or ⌈n w_k⌉ times, with an expectation of n w_k.

    Args:
      key: consumed.
      values: a pytree with a leading axis `[K]`, such as zs `[K, J]`.
      log_weights: `[K]` in nats; they need not sum to one.
      num_samples: n, static.

    Returns:
      The pytree with a leading axis `[n]`, in the order of the draws.

    Raises:
      ValueError: `num_samples` is not a positive integer.

    Source: Kitagawa (1996), J. Comp. Graph. Stat. 5(1).

    >>> log_weights = jnp.log(jnp.array([0.5, 0.0, 0.5]))
    >>> print(resample(jax.random.key(0), jnp.arange(3), log_weights, num_samples=4))
    [0 0 2 2]
    """
    num_samples = check_count("num_samples", num_samples)
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights))
    offset = jax.random.uniform(key, dtype=cumulative.dtype)
    # Scaled by the last sum, which rounding leaves a little off one.
    points = (jnp.arange(num_samples, dtype=cumulative.dtype) + offset) / num_samples
    chosen = jnp.searchsorted(cumulative, points * cumulative[-1], side="right")
    # By rounding a point may be the whole sum, which the last weight above 0 makes.
    chosen = jnp.minimum(chosen, jnp.searchsorted(cumulative, cumulative[-1]))
    return jax.tree.map(lambda leaf: leaf[chosen], values)


def latent_adaptive_resampling(
    encode: Encode,
    decode: Decode,
    observe: Channel,
    y: PyTree,
    *,
    prior: Posterior | None = None,
    num_prior: int = 1,
) -> Kernel:
    """Importance resampling that adapts its proposal by what it has filled in (LAIR).

    From C values of x, one z of each encoder and R of the prior; all are weighed by

        w(z) = p(y|z) p(z) / q̃(z),  q̃(z) = [Σ_c q(z|x_c) + R p(z)] / (C + R),

    C of them are resampled, and each is completed: x ~ p(x|z, y). With a finite C each
    step has the bias of a self-normalised estimate, of order 1/C.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z).
      observe: a channel with `restore`, such as `aevb.masked(observed)`.
      y: what was seen.
      prior: p(z), with `sample(key)`; None is the standard normal of z's shape.
      num_prior: R, static; 0 for none.

    Returns:
      `Kernel`. The chains exchange their places with every step: their R-hat says
      nothing. `info.ess` is that of the weights.

    Raises:
      TypeError: as `pseudo_gibbs`.
      ValueError: `num_prior` is not a whole number.

    Source: Simkus and Gutmann, arXiv 2308.09078, section 4.2.

    >>> from aevb import DiagNormal, masked
    >>> encode = lambda x: DiagNormal(x[:1], jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> kernel = latent_adaptive_resampling(
    ...     encode, decode, masked(jnp.array([True, False])), jnp.array([1.0, 0.0]))
    >>> chains = kernel.init(jax.random.key(0), jnp.zeros((9, 2)))
    >>> chains, info = jax.jit(kernel.step)(jax.random.key(1), chains)
    >>> bool(1 <= info.ess <= 10)
    True
    """
    restore = restorer(observe)
    num_prior = check_count("num_prior", num_prior, least=0)

    def step(key: jax.Array, chains: Chains) -> tuple[Chains, ChainInfo]:
        num_chains = len(jax.tree.leaves(chains.xs)[0])
        keys = jax.random.split(key, 4)

        share = num_prior / (num_chains + num_prior)
        proposal = encoder_mixture(encode, chains.xs, prior=prior, prior_share=share)
        split = jax.random.split(keys[0], num_chains)
        zs = jax.vmap(lambda key, q: q.sample(key))(split, proposal.components)
        p: Any = prior_or_normal(prior, jax.tree.map(lambda leaf: leaf[0], zs))
        if num_prior:
            drawn = jax.vmap(p.sample)(jax.random.split(keys[1], num_prior))
            zs = jax.tree.map(lambda *parts: jnp.concatenate(parts), zs, drawn)

        def weigh(z: PyTree) -> tuple[jax.Array, Any]:
            likelihood = call_decode(decode, z)
            log_p = observe(likelihood).log_prob(y) + p.log_prob(z)
            return log_p - proposal.log_prob(z), likelihood

        log_weights, likelihoods = jax.vmap(weigh)(zs)
        zs, likelihoods = resample(
            keys[2], (zs, likelihoods), log_weights, num_samples=num_chains
        )
        split = jax.random.split(keys[3], num_chains)
        xs = jax.vmap(lambda key, p: restore(p, y).sample(key))(split, likelihoods)
        info = ChainInfo(jnp.ones(num_chains), log_mean_weight(log_weights).ess)
        return Chains(zs, xs, likelihoods), info

    return Kernel(starter(encode, decode, restore, y), step)
