"""Methods: from what is seen of an image to what the rest of it may be.

A method is a function of one `Problem`. To be scored, it is given the truth, of which
its answer knows nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import aevb
from aevb.imputation import Kernel
from experiments.restoration.problem import (
    Answer,
    Budget,
    Found,
    Problem,
    found_by_chains,
    found_by_draws,
    found_by_one,
)

__all__ = ["METHODS", "Method", "guesses"]

# Of proposals: what no short run has found, the prior may.
_PRIOR_SHARE = 0.2

# Weighted draws of which each chain of HMC is given one to start from.
_STARTS_A_CHAIN = 32

# A grey level is never certain, and no distance between images tells a probability.
_NEAREST = 1e-3


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


def _training_mean(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """Independent pixels: the best that can be said without any dependence."""
    return found_by_one(problem, problem.average, key, x, scored=True)


def _nearest_neighbour(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """The training image whose y would be nearest."""

    def distance(image: jax.Array) -> jax.Array:
        t = image.astype(jnp.float32) / problem.scale
        return jnp.sum((problem.y - problem.observe.given(t).mean) ** 2)

    distances = jax.lax.map(distance, problem.train, batch_size=2000)
    image = problem.train[jnp.argmin(distances)].astype(jnp.float32) / problem.scale
    if isinstance(problem.average, aevb.Bernoulli):
        image = jnp.clip(image, _NEAREST, 1 - _NEAREST)
        likelihood: Any = aevb.Bernoulli(jnp.log(image) - jnp.log1p(-image))
    else:
        likelihood = aevb.DiagNormal(image, problem.average.log_scale)
    return found_by_one(problem, likelihood, key, x, scored=False)


def _encoder_once(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """z of the encoder of the filled image: no y enters but through it."""
    q = problem.encode(problem.filled())
    num = budget.num_chains * budget.num_steps // 2
    keys = jax.random.split(key, num + 1)
    return found_by_draws(problem, keys[0], x, jax.vmap(q.sample)(keys[1:]))


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


def _weighted_guesses(
    problem: Problem,
    guess_key: jax.Array,
    draw_key: jax.Array,
    budget: Budget,
    num: int,
) -> aevb.WeightedDraws:
    """Draws of `guesses`, weighted for p(z|y)."""
    proposal = guesses(problem, guess_key, budget)
    return aevb.weighted_draws(
        lambda _: proposal,
        problem.decode_y,
        draw_key,
        problem.y,
        prior=problem.prior,
        num_samples=num,
    )


def _resampling(
    problem: Problem, key: jax.Array, x: jax.Array, budget: Budget
) -> Found:
    """Sampling-importance-resampling from `guesses`."""
    guess_key, draw_key, show_key = jax.random.split(key, 3)
    num = budget.num_chains * budget.num_steps
    draws = _weighted_guesses(problem, guess_key, draw_key, budget, num)
    found = found_by_draws(problem, show_key, x, draws.zs, draws.log_weights)
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
    found = found_by_draws(problem, show_key, x, estimate.zs, estimate.log_weights)
    given = problem.observe.given(x).log_prob(problem.y)
    diagnostics = {
        "ess": estimate.ess,
        "acceptance": estimate.acceptance,
        "seen_log_likelihood": estimate.log_likelihood - given,
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
    num = _STARTS_A_CHAIN * budget.num_chains
    draws = _weighted_guesses(problem, guess_key, draw_key, budget, num)
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
    return found_by_chains(problem, show_key, x, chains.zs, chains.acceptance)


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
    found = found_by_chains(problem, show_key, x, draws.zs, draws.acceptance)
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
