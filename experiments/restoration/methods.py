"""Methods: from what is seen of an image to what the rest of it may be.

A method is a function of one `Problem`. To be scored, it is given the truth, of which
its answer knows nothing.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import aevb
from aevb.imputation import Kernel

__all__ = [
    "METHODS",
    "NUM_DRAWS",
    "Budget",
    "Found",
    "Method",
    "Problem",
    "curve_steps",
    "guesses",
]

NUM_DRAWS = 100
"""Draws of x that each method makes, for intervals and pictures."""

# Of proposals: what no short run has found, the prior may.
_PRIOR_SHARE = 0.2

# Weighted draws of which each chain of HMC is given one to start from.
_STARTS_A_CHAIN = 32

# A grey level is never certain, and no distance between images tells a probability.
_NEAREST = 1e-3


class Budget(NamedTuple):
    """How much work the samplers do for an image.

    Attributes:
      num_chains: of Markov chains, and of what is annealed.
      num_steps: of each chain, the first half of which is burn-in: a power of two.
      num_leapfrog_steps: of each transition of HMC.
      num_temperatures: of annealed importance sampling.
    """

    num_chains: int
    num_steps: int
    num_leapfrog_steps: int
    num_temperatures: int


class Problem(NamedTuple):
    """What is asked about one image.

    Attributes:
      encode: x `[D]` -> q(z|x).
      decode: z -> p(x|z).
      prior: p(z), to sample from.
      observe: the channel.
      y: what is seen.
      average: p(x) with independent pixels, from the training images.
      train: `[N, D]` uint8, the training images.
      scale: of their bytes.
      step_sizes: `[T - 2]` of annealing from `guesses` to p(z|y).
    """

    encode: Callable[[jax.Array], Any]
    decode: Callable[[Any], Any]
    prior: Any
    observe: Any
    y: jax.Array
    average: Any
    train: jax.Array
    scale: int
    step_sizes: jax.Array

    def filled(self) -> jax.Array:
        """y with the training mean for what is not known. `[D]`"""
        return self.observe.restore(self.average, self.y).mean

    def starts(self, key: jax.Array, num: int) -> jax.Array:
        """y with draws of independent pixels for what is not known. `[num, D]`"""
        keys = jax.random.split(key, num)
        return jax.vmap(self.observe.restore(self.average, self.y).sample)(keys)

    def decode_y(self, z: Any) -> Any:
        """p(y|z)."""
        return self.observe(self.decode(z))


class Found(NamedTuple):
    """What a method says of one image.

    Attributes:
      mean: `[D]` its expectation of x.
      log_prob: `[]` the log density that it gives the truth, in nats; NaN if none.
      draws: `[NUM_DRAWS, D]` of x.
      curve: `[T, D]` the mean that its chains had after `curve_steps`, of the second
        half of the steps; `[0, D]` where there are no chains.
      diagnostics: scalars: "acceptance", "ess", ...: those there are.
    """

    mean: jax.Array
    log_prob: jax.Array
    draws: jax.Array
    curve: jax.Array
    diagnostics: Mapping[str, jax.Array]


Answer = Callable[[Problem, jax.Array, jax.Array, Budget], Found]
"""`answer(problem, key, x, budget)`: x is the truth, to be scored alone."""


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      name: of files.
      label: for a person.
      answer: what it does.
      is_baseline: whether it is not ours.
      has_chains: whether it has an error against steps.
    """

    name: str
    label: str
    answer: Answer
    is_baseline: bool = False
    has_chains: bool = False


def curve_steps(num_steps: int) -> list[int]:
    """The numbers of steps at which the error of chains is told.

    >>> curve_steps(8)
    [1, 2, 4, 8]
    """
    return [2**power for power in range(num_steps.bit_length())]


def _training_mean(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """Independent pixels: the best that can be said without any dependence."""
    return _of_one(problem, problem.average, key, x, scored=True)


def _nearest_neighbour(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """The training image whose y would be nearest."""

    def distance(image: jax.Array) -> jax.Array:
        t = image.astype(jnp.float32) / problem.scale
        return jnp.sum((problem.y - problem.observe.given(t).mean) ** 2)

    distances = jax.lax.map(distance, problem.train, batch_size=2000)
    image = problem.train[jnp.argmin(distances)] / jnp.float32(problem.scale)
    if isinstance(problem.average, aevb.Bernoulli):
        image = jnp.clip(image, _NEAREST, 1 - _NEAREST)
        likelihood: Any = aevb.Bernoulli(jnp.log(image) - jnp.log1p(-image))
    else:
        likelihood = aevb.DiagNormal(image, problem.average.log_scale)
    return _of_one(problem, likelihood, key, x, scored=False)


def _encoder_once(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """z of the encoder of the filled image: no y enters but through it."""
    q = problem.encode(problem.filled())
    num = budget.num_chains * budget.num_steps // 2
    keys = jax.random.split(key, num + 1)
    return _of_draws(problem, keys[0], x, jax.vmap(q.sample)(keys[1:]))


def guesses(problem: Problem, key: jax.Array, budget: Budget) -> aevb.EncoderMixture:
    """A proposal for p(z|y): the encoder of images that two short runs fill in.

    LAIR finds the mode that counts, and gathers there; pseudo-Gibbs stays spread out.
    Weights correct either.

    Args:
      problem: of one image.
      key: consumed.
      budget: a quarter of its steps is taken for each.
    """
    gibbs_key, lair_key = jax.random.split(key)
    lair = partial(aevb.latent_adaptive_resampling, prior=problem.prior)
    ends = [
        _short_run(problem, aevb.pseudo_gibbs, gibbs_key, budget),
        _short_run(problem, lair, lair_key, budget),
    ]
    return aevb.encoder_mixture(
        problem.encode,
        jnp.concatenate(ends),
        prior=problem.prior,
        prior_share=_PRIOR_SHARE,
    )


def _short_run(
    problem: Problem, make: Callable[..., Kernel], key: jax.Array, budget: Budget
) -> jax.Array:
    """The images that chains have filled in after a quarter of the steps. `[C, D]`"""
    start_key, run_key = jax.random.split(key)
    draws = aevb.sample_imputations(
        make(problem.encode, problem.decode, problem.observe, problem.y),
        run_key,
        problem.starts(start_key, budget.num_chains),
        num_samples=max(4, budget.num_steps // 4),
        num_burn_in=0,
    )
    return draws.xs[:, -1]


def _resampling(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """Sampling-importance-resampling from `guesses`."""
    guess_key, draw_key, show_key = jax.random.split(key, 3)
    proposal = guesses(problem, guess_key, budget)
    draws = aevb.weighted_draws(
        lambda _: proposal,
        problem.decode_y,
        draw_key,
        problem.y,
        prior=problem.prior,
        num_samples=budget.num_chains * budget.num_steps,
    )
    found = _of_draws(problem, show_key, x, draws.zs, draws.log_weights)
    return found._replace(diagnostics={"ess": draws.ess, "pareto_k": draws.pareto_k})


def _annealing(problem: Problem, key: jax.Array, x: jax.Array, budget: Budget) -> Found:
    """AIS from `guesses`; what it says of log p(y) is kept, less log p(y|x)."""
    guess_key, draw_key, show_key = jax.random.split(key, 3)
    proposal = guesses(problem, guess_key, budget)
    estimate = aevb.annealed_log_likelihood(
        lambda _: proposal,
        problem.decode_y,
        draw_key,
        problem.y,
        prior=problem.prior,
        temperatures=aevb.sigmoid_temperatures(budget.num_temperatures),
        num_chains=budget.num_chains,
        num_leapfrog_steps=budget.num_leapfrog_steps,
        step_size=problem.step_sizes,
    )
    found = _of_draws(problem, show_key, x, estimate.zs, estimate.log_weights)
    given = problem.observe.given(x).log_prob(problem.y)
    diagnostics = {
        "ess": estimate.ess,
        "acceptance": estimate.acceptance,
        "seen": estimate.log_likelihood - given,
        "seen_std_error": estimate.std_error,
    }
    return found._replace(diagnostics=diagnostics)


def _hamiltonian(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """HMC on p(z|y), from resampled draws of `guesses`: it seldom goes from one mode to
    another, and must begin in each as often as that one deserves.

    Step sizes come from chains of their own, so that all steps can be looked at.
    """
    guess_key, draw_key, pick_key, pilot_key, run_key, show_key = jax.random.split(
        key, 6
    )
    proposal = guesses(problem, guess_key, budget)
    draws = aevb.weighted_draws(
        lambda _: proposal,
        problem.decode_y,
        draw_key,
        problem.y,
        prior=problem.prior,
        num_samples=_STARTS_A_CHAIN * budget.num_chains,
    )
    starts = aevb.resample(
        pick_key, draws.zs, draws.log_weights, num_samples=budget.num_chains
    )
    run = partial(
        aevb.sample_posterior,
        problem.decode_y,
        x=problem.y,
        prior=problem.prior,
        num_leapfrog_steps=budget.num_leapfrog_steps,
    )
    pilot = run(key=pilot_key, starts=starts[:4], num_samples=1, num_burn_in=100)
    chains = run(
        key=run_key,
        starts=starts,
        num_samples=budget.num_steps,
        num_burn_in=0,
        step_size=jnp.exp(jnp.mean(jnp.log(pilot.step_size))),
    )
    return _of_chains(problem, show_key, x, chains.zs, chains.acceptance)


def _pseudo_gibbs(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """The encoder taken for the posterior."""
    start_key, run_key = jax.random.split(key)
    starts = problem.starts(start_key, budget.num_chains)
    return _by_kernel(problem, aevb.pseudo_gibbs, starts, run_key, x, budget)


def _metropolis(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """After pseudo-Gibbs, as its authors advise: from a start that is like no image the
    chain accepts next to nothing.
    """
    start_key, run_key = jax.random.split(key)
    starts = _short_run(problem, aevb.pseudo_gibbs, start_key, budget)
    make = partial(aevb.metropolis_within_gibbs, prior=problem.prior)
    return _by_kernel(problem, make, starts, run_key, x, budget)


def _collapsed(problem: Problem, key: jax.Array, x: jax.Array, budget: Budget) -> Found:
    """From the same start as Metropolis-within-Gibbs."""
    start_key, run_key = jax.random.split(key)
    starts = _short_run(problem, aevb.pseudo_gibbs, start_key, budget)
    make = partial(aevb.collapsed_metropolis_within_gibbs, prior=problem.prior)
    return _by_kernel(problem, make, starts, run_key, x, budget)


def _adaptive(problem: Problem, key: jax.Array, x: jax.Array, budget: Budget) -> Found:
    """LAIR; its chains exchange places, so that what counts is the ESS of weights."""
    start_key, run_key = jax.random.split(key)
    starts = problem.starts(start_key, budget.num_chains)
    make = partial(aevb.latent_adaptive_resampling, prior=problem.prior)
    return _by_kernel(problem, make, starts, run_key, x, budget)


def _by_kernel(
    problem: Problem,
    make: Callable[..., Kernel],
    starts: jax.Array,
    key: jax.Array,
    x: jax.Array,
    budget: Budget,
) -> Found:
    run_key, show_key = jax.random.split(key)
    draws = aevb.sample_imputations(
        make(problem.encode, problem.decode, problem.observe, problem.y),
        run_key,
        starts,
        num_samples=budget.num_steps,
        num_burn_in=0,
    )
    found = _of_chains(problem, show_key, x, draws.zs, draws.acceptance)
    resampled = ~jnp.isnan(draws.weight_ess)
    diagnostics = {
        name: jnp.where(resampled, jnp.nan, value)
        for name, value in found.diagnostics.items()
    }
    diagnostics["ess"] = jnp.where(
        resampled, draws.weight_ess, found.diagnostics["ess"]
    )
    return found._replace(diagnostics=diagnostics)


METHODS = {
    method.name: method
    for method in (
        Method("mean", "training mean", _training_mean, is_baseline=True),
        Method("nearest", "nearest neighbour", _nearest_neighbour, is_baseline=True),
        Method("encoder", "encoder, once", _encoder_once, is_baseline=True),
        Method("pseudo-gibbs", "pseudo-Gibbs", _pseudo_gibbs, has_chains=True),
        Method("mwg", "Metropolis-within-Gibbs", _metropolis, has_chains=True),
        Method("ac-mwg", "adaptive collapsed MWG", _collapsed, has_chains=True),
        Method("lair", "LAIR", _adaptive, has_chains=True),
        Method("hmc", "HMC", _hamiltonian, has_chains=True),
        Method("sir", "SIR", _resampling),
        Method("ais", "AIS", _annealing),
    )
}
"""Every method by its name, in the order of the table."""


def _of_one(
    problem: Problem, likelihood: Any, key: jax.Array, x: jax.Array, *, scored: bool
) -> Found:
    """The answer of one distribution of x."""
    p = problem.observe.restore(likelihood, problem.y)
    log_prob = p.log_prob(x) if scored else jnp.float32(jnp.nan)
    draws = jax.vmap(p.sample)(jax.random.split(key, NUM_DRAWS))
    return Found(p.mean, log_prob, draws, jnp.zeros((0, *p.mean.shape)), {})


def _of_draws(
    problem: Problem,
    key: jax.Array,
    x: jax.Array,
    zs: jax.Array,
    log_weights: jax.Array | None = None,
) -> Found:
    """The answer of draws of z, weighted or not."""
    model = (problem.decode, problem.observe)
    mean = aevb.posterior_mean(*model, problem.y, zs, log_weights=log_weights)
    log_prob = aevb.predictive_log_prob(
        *model, problem.y, zs, x, log_weights=log_weights
    )
    pick_key, draw_key = jax.random.split(key)
    if log_weights is None:
        log_weights = jnp.zeros(len(zs))
    shown = aevb.resample(pick_key, zs, log_weights, num_samples=NUM_DRAWS)
    draws = aevb.restored_draws(*model, draw_key, problem.y, shown)
    return Found(mean, log_prob, draws, jnp.zeros((0, *mean.shape)), {})


def _of_chains(
    problem: Problem,
    key: jax.Array,
    x: jax.Array,
    zs: jax.Array,
    acceptance: jax.Array,
) -> Found:
    """The answer of the second half of the chains' steps, `[C, L, J]`."""
    num_steps = zs.shape[1]

    def look(zs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean over the chains of a step, and the log density that it gives."""

        def one(z: jax.Array) -> tuple[jax.Array, jax.Array]:
            p = problem.observe.restore(problem.decode(z), problem.y)
            return p.mean, p.log_prob(x)

        means, scores = jax.vmap(one)(zs)
        return jnp.mean(means, axis=0), jax.nn.logsumexp(scores) - jnp.log(len(zs))

    by_step = jnp.swapaxes(zs, 0, 1)
    means, scores = jax.lax.map(look, by_step)
    half = scores[num_steps // 2 :]
    # After t steps: the mean of the steps from t/2 on.
    segments = [means[end // 2 : end] for end in curve_steps(num_steps)]
    curve = jnp.stack([jnp.mean(segment, axis=0) for segment in segments])
    log_prob = jax.nn.logsumexp(half) - jnp.log(len(half))
    kept = zs[:, num_steps // 2 :]
    last = by_step[num_steps // 2 :].reshape(-1, *zs.shape[2:])
    evenly = jnp.arange(NUM_DRAWS) * len(last) // NUM_DRAWS
    draws = aevb.restored_draws(
        problem.decode, problem.observe, key, problem.y, last[evenly]
    )
    diagnostics = {
        "acceptance": jnp.mean(acceptance),
        "ess": jnp.min(aevb.effective_sample_size(kept)),
        "r_hat": jnp.max(aevb.split_r_hat(kept)),
    }
    return Found(curve[-1], log_prob, draws, curve, diagnostics)
