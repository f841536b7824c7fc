"""Markov chains of p(z, x|y): the two of the literature, and one that mixes.

A kernel moves C chains at once:

    kernel = aevb.metropolis_within_gibbs(encode, decode, aevb.masked(observed), y)
    chains = kernel.init(key, xs)                 # xs [C, D]: y, filled in
    chains, info = kernel.step(key, chains)

and `aevb.sample_imputations` makes draws with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_decode, call_encode, prior_or_normal
from aevb.imputation.proposals import EncoderMixture, encoder_mixture
from aevb.observations.channel import Channel
from aevb.types import Decode, Encode, Posterior, PyTree

__all__ = [
    "ChainInfo",
    "Chains",
    "Kernel",
    "collapsed_metropolis_within_gibbs",
    "metropolis_within_gibbs",
    "pseudo_gibbs",
    "restorer",
    "starter",
]

Restore = Callable[[Any, PyTree], Any]


class Chains(NamedTuple):
    """C chains over z and the whole x.

    Attributes:
      zs: `[C, J]`, or a pytree of such.
      xs: `[C, D]` each a draw of p(x|z, y) of its z.
      likelihoods: p(x|z) of each z, its leaves with a leading axis `[C]`: a proposal
        that is refused costs no second call of `decode`.
    """

    zs: PyTree
    xs: PyTree
    likelihoods: Any


class ChainInfo(NamedTuple):
    """Diagnostics of one step.

    Attributes:
      acceptance: `[C]` the probability with which each proposal was accepted; 1 where
        none is ever refused.
      ess: `[]` effective number of the weights that are resampled, NaN where there are
        none.
    """

    acceptance: jax.Array
    ess: jax.Array


class Kernel(NamedTuple):
    """A Markov chain of p(z, x|y), as a pair of pure functions.

    Attributes:
      init: `init(key, xs) -> Chains`, from `[C, D]` values of x: y with something
        filled in for what is not known.
      step: `step(key, chains) -> (chains, ChainInfo)`; the key is consumed.
    """

    init: Callable[[jax.Array, PyTree], Chains]
    step: Callable[[jax.Array, Chains], tuple[Chains, ChainInfo]]


def pseudo_gibbs(encode: Encode, decode: Decode, observe: Channel, y: PyTree) -> Kernel:
    """The chain that takes the encoder for the posterior: **biased** where it is not.

    z ~ q(z|x),  x ~ p(x|z, y)

    Its stationary distribution is p(z, x|y) if q(z|x) is p(z|x), and no known one
    otherwise.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)`.
      decode: z `[J]` -> p(x|z).
      observe: a channel with `restore`, such as `aevb.masked(observed)`.
      y: what was seen.

    Returns:
      `Kernel`.

    Raises:
      TypeError: `observe` has no `restore`; `encode` or `decode` does not return a
        distribution (when the kernel is called).

    Source: Rezende, Mohamed and Wierstra, arXiv 1401.4082, appendix F.

    >>> from aevb import DiagNormal, masked
    >>> encode = lambda x: DiagNormal(x[:1], jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> kernel = pseudo_gibbs(encode, decode, masked(jnp.array([True, False])),
    ...                       jnp.array([1.0, jnp.nan]))
    >>> chains = kernel.init(jax.random.key(0), jnp.array([[1.0, 0.0]]))
    >>> chains, info = jax.jit(kernel.step)(jax.random.key(1), chains)
    >>> print(chains.xs[0, 0], info.acceptance)
    1.0 [1.]
    """
    restore = restorer(observe)

    def move(key: jax.Array, chain: Chains) -> Chains:
        z_key, x_key = jax.random.split(key)
        z = call_encode(encode, chain.xs).sample(z_key)
        likelihood: Any = call_decode(decode, z)
        return Chains(z, restore(likelihood, y).sample(x_key), likelihood)

    def step(key: jax.Array, chains: Chains) -> tuple[Chains, ChainInfo]:
        chains = jax.vmap(move)(_split(key, chains), chains)
        ones = jnp.ones(_num_chains(chains))
        return chains, ChainInfo(ones, jnp.array(jnp.nan))

    return Kernel(starter(encode, decode, restore, y), step)


def metropolis_within_gibbs(
    encode: Encode,
    decode: Decode,
    observe: Channel,
    y: PyTree,
    *,
    prior: Posterior | None = None,
) -> Kernel:
    """Pseudo-Gibbs with each z accepted or refused, which makes it exact.

    z' ~ q(z|x), accepted with min(1, [p(x|z') p(z') q(z|x)] / [p(x|z) p(z) q(z'|x)]);
    x ~ p(x|z, y)

    p(z, x|y) is invariant, whatever q. It accepts often, and may all the same move
    slowly: z is drawn given the *whole* x, what was filled in for the missing part
    included, so that a chain leaves the mode where it began only by luck. Start the
    chains apart, and look at R-hat; or see `collapsed_metropolis_within_gibbs`.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      observe: a channel with `restore`, such as `aevb.masked(observed)`.
      y: what was seen.
      prior: p(z); None is the standard normal of z's shape.

    Returns:
      `Kernel`. A step costs one call of `encode` and one of `decode`.

    Raises:
      TypeError: as `pseudo_gibbs`.

    Source: Mattei and Frellsen, arXiv 1802.04826, algorithm 1.

    >>> from aevb import DiagNormal, masked
    >>> encode = lambda x: DiagNormal(x[:1], jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> kernel = metropolis_within_gibbs(
    ...     encode, decode, masked(jnp.array([True, False])), jnp.array([1.0, 0.0]))
    >>> chains = kernel.init(jax.random.key(0), jnp.array([[1.0, 0.0]]))
    >>> chains, info = jax.jit(kernel.step)(jax.random.key(1), chains)
    >>> bool(0 < info.acceptance[0] <= 1)
    True
    """
    restore = restorer(observe)

    def move(key: jax.Array, chain: Chains) -> tuple[Chains, jax.Array]:
        z_key, accept_key, x_key = jax.random.split(key, 3)
        q: Any = call_encode(encode, chain.xs)
        p = prior_or_normal(prior, chain.zs)

        def log_ratio(z: PyTree, likelihood: Any) -> jax.Array:
            """log p(x, z) / q(z|x)."""
            return likelihood.log_prob(chain.xs) + p.log_prob(z) - q.log_prob(z)

        z = q.sample(z_key)
        new, old = (z, call_decode(decode, z)), (chain.zs, chain.likelihoods)
        (z, likelihood), acceptance = _accept(
            accept_key, log_ratio(*new) - log_ratio(*old), new, old
        )
        x = restore(likelihood, y).sample(x_key)
        return Chains(z, x, likelihood), acceptance

    def step(key: jax.Array, chains: Chains) -> tuple[Chains, ChainInfo]:
        chains, acceptance = jax.vmap(move)(_split(key, chains), chains)
        return chains, ChainInfo(acceptance, jnp.array(jnp.nan))

    return Kernel(starter(encode, decode, restore, y), step)


def collapsed_metropolis_within_gibbs(
    encode: Encode,
    decode: Decode,
    observe: Channel,
    y: PyTree,
    *,
    prior: Posterior | None = None,
    prior_share: float = 0.05,
) -> Kernel:
    """The adaptive collapsed chain: z is judged by y alone, proposed by other chains.

    z' ~ q̃(z) = (1 − ε) mean_c q(z|x_c) + ε p(z), x_c of the chains of the other half,
    accepted with min(1, [p(y|z') p(z') q̃(z)] / [p(y|z) p(z) q̃(z')]);  x ~ p(x|z, y)

    What is missing is integrated out of the acceptance, so that a chain may leave its
    own x behind. The source proposes from one x of the chain's own past, and is exact
    as the past grows. Here the halves of the ensemble move in turn, each with the other
    held fixed: p(z, x|y) is invariant at every step. The mixture over all x of the
    other half is known to contain where a chain is, when one alone is not.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z).
      observe: a channel with `restore`, such as `aevb.masked(observed)`.
      y: what was seen.
      prior: p(z), with `sample(key)`; None is the standard normal of z's shape.
      prior_share: ε in (0, 1), the share of proposals from the prior.

    Returns:
      `Kernel` of two chains or more. A step costs one call of `encode` and one of
      `decode` a chain.

    Raises:
      TypeError: as `pseudo_gibbs`.
      ValueError: `prior_share` is not between 0 and 1; there is one chain alone.

    Source: Simkus and Gutmann, arXiv 2308.09078, section 4.1 (AC-MWG); two halves that
    propose for each other: Goodman and Weare (2010), CAMCoS 5(1).

    >>> from aevb import DiagNormal, masked
    >>> encode = lambda x: DiagNormal(x[:1], jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> kernel = collapsed_metropolis_within_gibbs(
    ...     encode, decode, masked(jnp.array([True, False])), jnp.array([1.0, 0.0]))
    >>> chains = kernel.init(jax.random.key(0), jnp.zeros((4, 2)))
    >>> chains, info = jax.jit(kernel.step)(jax.random.key(1), chains)
    >>> info.acceptance.shape
    (4,)
    """
    restore = restorer(observe)
    if not 0 < prior_share < 1:
        raise ValueError(
            f"prior_share is {prior_share}, expected strictly between 0 and 1: the "
            "prior reaches what no other chain proposes"
        )

    def move(
        key: jax.Array, chain: Chains, proposal: EncoderMixture
    ) -> tuple[Chains, jax.Array]:
        z_key, accept_key, x_key = jax.random.split(key, 3)

        def log_ratio(z: PyTree, likelihood: Any) -> jax.Array:
            """log p(y, z) / q̃(z)."""
            log_prior = prior_or_normal(prior, z).log_prob(z)
            return observe(likelihood).log_prob(y) + log_prior - proposal.log_prob(z)

        z = proposal.sample(z_key)
        new, old = (z, call_decode(decode, z)), (chain.zs, chain.likelihoods)
        (z, likelihood), acceptance = _accept(
            accept_key, log_ratio(*new) - log_ratio(*old), new, old
        )
        return Chains(z, restore(likelihood, y).sample(x_key), likelihood), acceptance

    def moved(
        keys: jax.Array, chains: Chains, others: PyTree
    ) -> tuple[Chains, jax.Array]:
        proposal = encoder_mixture(encode, others, prior=prior, prior_share=prior_share)
        return jax.vmap(move, (0, 0, None))(keys, chains, proposal)

    def step(key: jax.Array, chains: Chains) -> tuple[Chains, ChainInfo]:
        num_chains = _num_chains(chains)
        if num_chains < 2:
            raise ValueError(
                "there is 1 chain, expected 2 or more: the halves propose for each "
                "other"
            )
        half = num_chains // 2
        keys = _split(key, chains)
        first = jax.tree.map(lambda leaf: leaf[:half], chains)
        second = jax.tree.map(lambda leaf: leaf[half:], chains)
        first, of_first = moved(keys[:half], first, second.xs)
        second, of_second = moved(keys[half:], second, first.xs)
        joined = jax.tree.map(lambda *halves: jnp.concatenate(halves), first, second)
        acceptance = jnp.concatenate([of_first, of_second])
        return joined, ChainInfo(acceptance, jnp.array(jnp.nan))

    return Kernel(starter(encode, decode, restore, y), step)


def restorer(observe: Any) -> Restore:
    """`restore(p(x|z), y) -> p(x|z, y)` of a channel.

    Raises:
      TypeError: the channel has none.

    >>> from aevb import flipped
    >>> restorer(flipped(0.1)).__name__
    'restore'
    """
    if not hasattr(observe, "restore"):
        raise TypeError(
            f"observe is {getattr(observe, '__name__', type(observe).__name__)}, which "
            "has no restore(p(x|z), y): expected a channel such as "
            "aevb.masked(observed); with a function alone there is p(z|y) "
            "(aevb.sample_posterior), and p(x|z, y) is yours to give"
        )
    return observe.restore


def starter(
    encode: Encode, decode: Decode, restore: Restore, y: PyTree
) -> Callable[[jax.Array, PyTree], Chains]:
    """The `init` of a kernel: z of the encoder of each x, then a new x of that z.

    >>> from aevb import DiagNormal, flipped, Bernoulli
    >>> init = starter(lambda x: DiagNormal(x, x), Bernoulli, flipped(0.1).restore,
    ...                jnp.ones(3))
    >>> init(jax.random.key(0), jnp.zeros((2, 3))).zs.shape
    (2, 3)
    """

    def init(key: jax.Array, xs: PyTree) -> Chains:
        def one(key: jax.Array, x: PyTree) -> Chains:
            z_key, x_key = jax.random.split(key)
            z = call_encode(encode, x).sample(z_key)
            likelihood = call_decode(decode, z)
            return Chains(z, restore(likelihood, y).sample(x_key), likelihood)

        return jax.vmap(one)(_split(key, xs), xs)

    return init


def _accept(
    key: jax.Array, log_ratio: jax.Array, new: PyTree, old: PyTree
) -> tuple[PyTree, jax.Array]:
    """Metropolis and Hastings; a ratio that is no number is refused."""
    acceptance = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    uniform = jax.random.uniform(key, dtype=acceptance.dtype)
    return _where(uniform < acceptance, new, old), acceptance


def _where(condition: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _num_chains(chains: PyTree) -> int:
    return len(jax.tree.leaves(chains)[0])


def _split(key: jax.Array, chains: PyTree) -> jax.Array:
    return jax.random.split(key, _num_chains(chains))
