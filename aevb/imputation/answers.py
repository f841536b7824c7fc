"""Draws of what is missing, and the best answers about it.

Each answer is the best one under a loss:

- `posterior_mean`: squared error; of binary pixels it is P(x = 1|y).
- `marginal_mode`: the number of wrong binary pixels.
- `credible_interval`: of each dimension, by quantiles; its middle is the median, which
  is best under the absolute error.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_decode, check_count, check_scalar
from aevb.imputation.chains import ChainInfo, Chains, Kernel, restorer
from aevb.marginal.diagnostics import effective_sample_size, split_r_hat
from aevb.observations.channel import Channel
from aevb.products import matmul
from aevb.types import Decode, PyTree

__all__ = [
    "Imputations",
    "Interval",
    "credible_interval",
    "marginal_mode",
    "posterior_mean",
    "predictive_log_prob",
    "restored_draws",
    "sample_imputations",
]


class Imputations(NamedTuple):
    """Draws of p(z, x|y) from C chains, and what is needed to judge them.

    Attributes:
      zs: `[C, L, J]`, or a pytree with two such leading axes.
      xs: `[C, L, D]` the whole x: what was seen, and a draw of what was not.
      acceptance: `[C]` the mean acceptance probability after burn-in.
      r_hat: `[J]` `split_r_hat(zs)`: near 1 where the chains agree.
      ess: `[J]` `effective_sample_size(zs)`.
      weight_ess: `[]` mean effective number of the weights that a step resamples; NaN
        with a kernel that has none.
    """

    zs: PyTree
    xs: PyTree
    acceptance: jax.Array
    r_hat: PyTree
    ess: PyTree
    weight_ess: jax.Array


def sample_imputations(
    kernel: Kernel,
    key: jax.Array,
    xs: PyTree,
    *,
    num_samples: int,
    num_burn_in: int,
    thinning: int = 1,
) -> Imputations:
    """Draws z, x ~ p(z, x|y) with a kernel, from several chains.

    Args:
      kernel: such as `aevb.metropolis_within_gibbs(encode, decode, observe, y)`.
      key: consumed; step t uses `fold_in(key, t)`.
      xs: `[C, D]` where the chains start: y, with something filled in.
      num_samples: L draws of each chain, static; at least 4.
      num_burn_in: steps before the first draw, static.
      thinning: steps a draw, static.

    Returns:
      `Imputations`.

    Raises:
      ValueError: a count is not as said.

    >>> from aevb import DiagNormal, masked, metropolis_within_gibbs
    >>> encode = lambda x: DiagNormal(x[:1] / 2, jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> kernel = metropolis_within_gibbs(
    ...     encode, decode, masked(jnp.array([True, False])), jnp.array([2.0, jnp.nan]))
    >>> draws = sample_imputations(kernel, jax.random.key(0), jnp.zeros((4, 2)),
    ...                            num_samples=2000, num_burn_in=10)
    >>> print(f"{jnp.mean(draws.xs[..., 1]):.1f} {jnp.var(draws.xs[..., 1]):.1f}")
    1.0 1.5
    """
    num_samples = check_count("num_samples", num_samples, least=4)
    num_burn_in = check_count("num_burn_in", num_burn_in, least=0)
    thinning = check_count("thinning", thinning)

    def step(chains: Chains, index: jax.Array) -> tuple[Chains, ChainInfo]:
        return kernel.step(jax.random.fold_in(key, index), chains)

    def draw(chains: Chains, index: jax.Array) -> tuple[Chains, Any]:
        first = num_burn_in + 1 + index * thinning
        chains, infos = jax.lax.scan(step, chains, first + jnp.arange(thinning))
        return chains, (chains.zs, chains.xs, infos)

    start = kernel.init(jax.random.fold_in(key, 0), xs)
    start, _ = jax.lax.scan(step, start, 1 + jnp.arange(num_burn_in))
    _, (zs, draws, infos) = jax.lax.scan(draw, start, jnp.arange(num_samples))
    zs, draws = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (zs, draws))
    return Imputations(
        zs=zs,
        xs=draws,
        acceptance=jnp.mean(infos.acceptance, axis=(0, 1)),
        r_hat=split_r_hat(zs),
        ess=effective_sample_size(zs),
        weight_ess=jnp.mean(infos.ess),
    )


def restored_draws(
    decode: Decode, observe: Channel, key: jax.Array, y: PyTree, zs: PyTree
) -> PyTree:
    """Draws x ~ p(x|z, y) for draws of z: p(x|y) from any sampler of p(z|y).

    Args:
      decode: z `[J]` -> p(x|z).
      observe: a channel with `restore`, such as `aevb.masked(observed)`.
      key: consumed.
      y: what was seen.
      zs: `[N, J]` draws of p(z|y), or a pytree of such.

    Returns:
      `[N, D]`, one x a z.

    Raises:
      TypeError: `observe` has no `restore`, `decode` returns no distribution.

    >>> from aevb import Bernoulli, masked
    >>> decode = lambda z: Bernoulli(jnp.tile(z, 2))
    >>> observe = masked(jnp.array([True, False]))
    >>> zs, y = jnp.full((3, 1), 50.0), jnp.zeros(2)
    >>> print(restored_draws(decode, observe, jax.random.key(0), y, zs))
    [[0. 1.]
     [0. 1.]
     [0. 1.]]
    """
    restore = restorer(observe)

    def one(key: jax.Array, z: PyTree) -> PyTree:
        return restore(call_decode(decode, z), y).sample(key)

    keys = jax.random.split(key, len(jax.tree.leaves(zs)[0]))
    return jax.vmap(one)(keys, zs)


def posterior_mean(
    decode: Decode,
    observe: Channel,
    y: PyTree,
    zs: PyTree,
    *,
    log_weights: jax.Array | None = None,
) -> PyTree:
    """E[x|y], the answer of the smallest expected squared error.

    E[x|y] ≈ Σ_n w_n E[x|z_n, y]: the mean of means has less noise than that of draws.

    Args:
      decode: z `[J]` -> p(x|z).
      observe: a channel whose `restore` has a `mean`, such as `aevb.masked(observed)`.
      y: what was seen.
      zs: `[N, J]` draws of p(z|y), or a pytree of such.
      log_weights: `[N]` of the draws, in nats; None is equal weights.

    Returns:
      `[D]`; of binary pixels P(x = 1|y).

    Raises:
      TypeError: as `restored_draws`.

    >>> from aevb import Bernoulli, masked
    >>> decode = lambda z: Bernoulli(jnp.tile(z, 2))
    >>> observe = masked(jnp.array([True, False]))
    >>> print(posterior_mean(decode, observe, jnp.ones(2), jnp.zeros((3, 1))))
    [1.  0.5]
    """
    restore = restorer(observe)
    means = jax.vmap(lambda z: restore(call_decode(decode, z), y).mean)(zs)
    weights = None if log_weights is None else jax.nn.softmax(log_weights)
    first = 0 if weights is None else jnp.argmax(weights)

    def average(leaf: jax.Array) -> jax.Array:
        # About one of them, so that what is seen is exact, whatever the weights sum to.
        rest = (leaf - leaf[first][None]).reshape(len(leaf), -1)
        mean = jnp.mean(rest, axis=0) if weights is None else matmul(weights, rest)
        return leaf[first] + mean.reshape(leaf.shape[1:])

    return jax.tree.map(average, means)


def marginal_mode(mean: PyTree) -> PyTree:
    """The likelier value of each binary pixel: the fewest wrong ones on average.

    Args:
      mean: `[D]` P(x = 1|y), such as `posterior_mean`.

    Returns:
      `[D]` 0 or 1, of the same dtype.

    >>> print(marginal_mode(jnp.array([0.2, 0.7])))
    [0. 1.]
    """
    return jax.tree.map(lambda leaf: (leaf > 0.5).astype(leaf.dtype), mean)


class Interval(NamedTuple):
    """A credible interval of each dimension.

    Attributes:
      lower: `[D]`.
      median: `[D]` the answer of the smallest expected absolute error.
      upper: `[D]`.
    """

    lower: PyTree
    median: PyTree
    upper: PyTree


def credible_interval(xs: PyTree, *, mass: float = 0.9) -> Interval:
    """The central credible interval of each dimension of x, from draws.

    Args:
      xs: `[N, D]` equally weighted draws of p(x|y), or a pytree of such.
      mass: its probability, in (0, 1).

    Returns:
      `Interval`: the quantiles (1 − mass)/2, 1/2 and (1 + mass)/2 of the draws.

    Raises:
      ValueError: `mass` is not between 0 and 1.

    >>> interval = credible_interval(jnp.arange(101.0)[:, None], mass=0.8)
    >>> print(*interval)
    [10.] [50.] [90.]
    """
    if not 0 < mass < 1:
        raise ValueError(f"mass is {mass}, expected strictly between 0 and 1")
    shares = (0.5 - mass / 2, 0.5, 0.5 + mass / 2)

    def quantile(share: float) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.quantile(leaf, share, axis=0), xs)

    return Interval(*map(quantile, shares))


def predictive_log_prob(
    decode: Decode,
    observe: Channel,
    y: PyTree,
    zs: PyTree,
    x: PyTree,
    *,
    log_weights: jax.Array | None = None,
) -> jax.Array:
    """The log density that draws of z give to the x that was really there.

    log p̂(x|y) = log Σ_n w_n p(x|z_n, y)

    A score of draws, whatever made them: its expectation is below log p(x|y), and
    reaches it with many draws of p(z|y). In many dimensions of z "many" is out of
    reach, and `aevb.conditional_log_likelihood` is the number to ask for.

    Args:
      decode: z `[J]` -> p(x|z).
      observe: a channel whose `restore` has a `log_prob`.
      y: what was seen.
      zs: `[N, J]` draws of p(z|y), or a pytree of such.
      x: `[D]` the whole truth.
      log_weights: `[N]` of the draws, in nats; None is equal weights.

    Returns:
      `[]` in nats. With `aevb.masked` it is the density of the dimensions not seen.

    Raises:
      TypeError: as `restored_draws`.

    >>> from aevb import Bernoulli, masked
    >>> decode = lambda z: Bernoulli(jnp.tile(z, 2))
    >>> observe, x = masked(jnp.array([True, False])), jnp.ones(2)
    >>> print(f"{predictive_log_prob(decode, observe, x, jnp.zeros((3, 1)), x):.4f}")
    -0.6931
    """
    restore = restorer(observe)

    def score(z: PyTree) -> jax.Array:
        value = restore(call_decode(decode, z), y).log_prob(x)
        return check_scalar(value, "restore(decode(z), y).log_prob(x)")

    scores = jax.vmap(score)(zs)
    if log_weights is None:
        log_weights = jnp.zeros_like(scores)
    return jax.nn.logsumexp(scores + jax.nn.log_softmax(log_weights))
