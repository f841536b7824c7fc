"""Posterior draws p(z|x) by Hamiltonian Monte Carlo (Appendix D and E).

The one module that imports blackjax; `import aevb` does not load it:

    from aevb import hmc

    q = encode(x)
    starts = jax.vmap(q.sample)(jax.random.split(start_key, num_chains))
    draws = hmc.sample_posterior(
        decode, key, x, starts, num_samples=50, num_burn_in=200)
    estimate = aevb.reciprocal_log_likelihood(decode, x, draws.zs)
"""

from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp

from aevb.marginal import log_joint
from aevb.types import Decode, Posterior

__all__ = ["PosteriorDraws", "sample_posterior"]

# A trajectory whose length is near a period of the target returns to where it began.
_STEP_SIZE_JITTER = 0.2


class PosteriorDraws(NamedTuple):
    """Draws of p(z|x) from C chains, and what is needed to judge them.

    Attributes:
      zs: `[C, L, J]`.
      acceptance: `[C]` the mean acceptance probability after burn-in.
      energy_error: `[C]` the root mean square of H(proposal) − H(start) after burn-in,
        in nats: of the order of the step size squared. Not finite where a trajectory
        diverged; such proposals are rejected.
      step_size: `[C]` each chain's, as burn-in left it.
      r_hat: `[J]` the split R-hat of Gelman and Rubin; near 1 where chains agree.
    """

    zs: jax.Array
    acceptance: jax.Array
    energy_error: jax.Array
    step_size: jax.Array
    r_hat: jax.Array


def sample_posterior(
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    starts: jax.Array,
    *,
    prior: Posterior | None = None,
    num_samples: int,
    num_burn_in: int,
    num_leapfrog_steps: int = 4,
    thinning: int = 1,
    step_size: float | jax.Array = 0.1,
    target_acceptance: float = 0.8,
) -> PosteriorDraws:
    """Draws z ~ p(z|x) ∝ p(z) p(x|z) of one datapoint by HMC, from several chains.

    Each chain adapts its step size ε in burn-in only, towards the target acceptance,

        log ε ← log ε + t^{−0.6} (acceptance − target),

    and keeps it fixed afterwards, at its average over the second half of burn-in: the
    draws are then those of one Markov chain with p(z|x) invariant. Step sizes are
    jittered by a fifth.

    Args:
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed; chain c uses `fold_in(key, c)`.
      x: `[D]` one datapoint; binary under a `Bernoulli`.
      starts: `[C, J]` where the chains start: draws of the encoder or of the prior.
      prior: p(z); None is the standard normal of z's shape.
      num_samples: L draws of each chain, static.
      num_burn_in: transitions before the first draw, static; 0 keeps `step_size`.
      num_leapfrog_steps: of each transition, static; 4 in Appendix E.
      thinning: transitions a draw, static.
      step_size: `[]` the first one.
      target_acceptance: what adaptation aims at; 0.9 in Appendix E.

    Returns:
      `PosteriorDraws`.

    Raises:
      TypeError: `decode` does not return a distribution.
      ValueError: a count is not positive; x has grey levels under a `Bernoulli` (seen
        where x is not traced).

    Source: Appendix D and E; Neal (2011), arXiv 1206.1901. The kernel is blackjax's.

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # p(z|x=0) = N(0, 1/2)
    >>> draws = sample_posterior(decode, jax.random.key(0), jnp.zeros(1),
    ...                          jnp.zeros((4, 1)), num_samples=500, num_burn_in=100)
    >>> print(f"{jnp.var(draws.zs):.1f}")
    0.5
    """
    for name, count, least in (
        ("num_samples", num_samples, 1),
        ("num_burn_in", num_burn_in, 0),
        ("thinning", thinning, 1),
        ("num_leapfrog_steps", num_leapfrog_steps, 1),
    ):
        if count < least:
            raise ValueError(f"{name} is {count}, expected at least {least}")
    hmc_kernel = blackjax.hmc.build_kernel()
    unit_mass = jnp.ones(starts.shape[-1], starts.dtype)
    first_log_step = jnp.log(jnp.asarray(step_size, starts.dtype))

    def log_density(z: jax.Array) -> jax.Array:
        return log_joint(decode, z, x, prior=prior)

    def transition(key: jax.Array, state: Any, log_step: jax.Array) -> tuple:
        jitter_key, hmc_key = jax.random.split(key)
        jitter = jax.random.uniform(jitter_key, dtype=starts.dtype, minval=-1, maxval=1)
        new, info = hmc_kernel(
            hmc_key,
            state,
            log_density,
            jnp.exp(log_step) * (1 + _STEP_SIZE_JITTER * jitter),
            unit_mass,
            num_leapfrog_steps,
        )
        start_energy = -state.logdensity + 0.5 * info.momentum @ info.momentum
        return new, info.acceptance_rate, info.energy - start_energy

    def burn_in(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        state, log_step = carry
        key, rate = inputs
        state, acceptance, _ = transition(key, state, log_step)
        log_step += rate * (acceptance - target_acceptance)
        return (state, log_step), log_step

    def chain(index: jax.Array, start: jax.Array) -> tuple:
        burn_key, draw_key = jax.random.split(jax.random.fold_in(key, index))
        state = blackjax.hmc.init(start, log_density)
        log_step = first_log_step
        if num_burn_in:
            times = jnp.arange(num_burn_in)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(burn_key, times)
            rates = (1 + times.astype(starts.dtype)) ** -0.6
            (state, _), log_steps = jax.lax.scan(
                burn_in, (state, log_step), (keys, rates)
            )
            log_step = jnp.mean(log_steps[num_burn_in // 2 :])

        def one(state: Any, key: jax.Array) -> tuple[Any, Any]:
            state, acceptance, error = transition(key, state, log_step)
            return state, (acceptance, error)

        def draw(state: Any, index: jax.Array) -> tuple[Any, Any]:
            keys = jax.random.split(jax.random.fold_in(draw_key, index), thinning)
            state, infos = jax.lax.scan(one, state, keys)
            return state, (state.position, infos)

        _, (zs, (acceptance, error)) = jax.lax.scan(
            draw, state, jnp.arange(num_samples)
        )
        rms_error = jnp.sqrt(jnp.mean(error**2))
        return zs, jnp.mean(acceptance), rms_error, jnp.exp(log_step)

    zs, acceptance, energy_error, step_sizes = jax.vmap(chain)(
        jnp.arange(len(starts)), starts
    )
    return PosteriorDraws(zs, acceptance, energy_error, step_sizes, _split_r_hat(zs))


def _split_r_hat(zs: jax.Array) -> jax.Array:
    """Between- against within-chain variance, of the halves of each chain. `[J]`"""
    half = zs.shape[1] // 2
    halves = jnp.concatenate([zs[:, :half], zs[:, -half:]]) if half else zs
    within = jnp.mean(jnp.var(halves, axis=1, ddof=1), axis=0)
    between = jnp.var(jnp.mean(halves, axis=1), axis=0, ddof=1)
    return jnp.sqrt((half - 1) / half + between / within) if half else within
