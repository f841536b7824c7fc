"""Hamiltonian Monte Carlo: a kernel, and posterior draws made with it.

The kernel is this package's own, and the only one: annealed importance sampling needs a
density whose temperature changes from step to step, at one gradient a step; z may be a
pytree; and nothing but JAX is imported. Its oracle in the tests is blackjax.

`hmc_step` moves one chain once. Persistent chains, thousands at once, are its `vmap`:

    step = partial(aevb.hmc_step, [log_density], jnp.ones(1), num_leapfrog_steps=10)
    points = jax.vmap(partial(aevb.point_at, [log_density]))(zs)        # zs [C, J]
    points, infos = jax.vmap(step, (0, 0, None))(keys, points, step_size)

What is kept from one E-step of MCEM to the next is `points.z`: when the parameters of
the density have changed, `point_at` evaluates it anew.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from aevb.calls import check_count
from aevb.estimators import log_joint
from aevb.marginal.diagnostics import split_r_hat
from aevb.products import matmul
from aevb.types import Decode, Posterior, PyTree

__all__ = [
    "Point",
    "PosteriorDraws",
    "Transition",
    "hmc_step",
    "jittered_hmc_step",
    "point_at",
    "sample_posterior",
]

LogDensity = Callable[[PyTree], jax.Array]

# A trajectory whose length is near a period of the target returns to where it began.
_STEP_SIZE_JITTER = 0.2


class Point(NamedTuple):
    """A position, with the log densities there and their gradients.

    Attributes:
      z: `[J]`, or a pytree of J numbers in all.
      values: `[T]` one a log density, in nats.
      grads: `[T, J]` over the dimensions of z, in the order of its raveled leaves.
    """

    z: PyTree
    values: jax.Array
    grads: jax.Array


class Transition(NamedTuple):
    """Diagnostics of one transition.

    Attributes:
      acceptance: `[]` the probability with which the proposal was accepted.
      energy_error: `[]` H(proposal) − H(start): the integrator's error, in nats; of the
        order of the step size squared.
    """

    acceptance: jax.Array
    energy_error: jax.Array


def point_at(log_densities: Sequence[LogDensity], z: PyTree) -> Point:
    """Evaluates log densities and their gradients at z.

    Args:
      log_densities: T functions z -> log f_t(z) `[]`, in nats.
      z: `[J]`, or a pytree.

    Returns:
      `Point`.

    >>> point = point_at([lambda z: -0.5 * z @ z], jnp.ones(2))
    >>> print(point.values, point.grads)
    [-1.] [[-1. -1.]]
    """
    flat_densities, flat, _ = _ravel(log_densities, z)
    values, grads = zip(
        *(jax.value_and_grad(f)(flat) for f in flat_densities), strict=True
    )
    return Point(z, jnp.stack(values), jnp.stack(grads))


def _ravel(
    log_densities: Sequence[LogDensity], z: PyTree
) -> tuple[list[LogDensity], jax.Array, Callable[[jax.Array], PyTree]]:
    """The densities as functions of z's leaves in one vector, that vector, and back."""
    flat, unravel = ravel_pytree(z)

    def of_flat(log_density: LogDensity) -> LogDensity:
        return lambda flat: log_density(unravel(flat))

    return [of_flat(f) for f in log_densities], flat, unravel


def hmc_step(
    log_densities: Sequence[LogDensity],
    coefficients: jax.Array,
    key: jax.Array,
    point: Point,
    step_size: jax.Array | float,
    *,
    num_leapfrog_steps: int,
) -> tuple[Point, Transition]:
    """One HMC transition that leaves exp(Σ_t c_t log f_t(z)) invariant, and reversible.

    Momentum r ~ N(0, I); `num_leapfrog_steps` steps of the leapfrog integrator of
    H(z, r) = −Σ_t c_t log f_t(z) + ½ rᵀr; accepted with probability
    min(1, exp(H(start) − H(proposal))). A proposal of non-finite energy is rejected.

    The terms f_t are kept apart in `Point`, so that the gradient at the start serves
    the next transition when the coefficients have changed: one evaluation a step. A
    fixed density is one term with the coefficient 1.

    Args:
      log_densities: T functions z -> log f_t(z) `[]`, in nats.
      coefficients: `[T]` c_t; may be traced.
      key: consumed.
      point: the start, from `point_at` or an earlier transition.
      step_size: `[]` may be traced, but not depend on `point`.
      num_leapfrog_steps: static.

    Returns:
      The next `Point`, and the `Transition`.

    Raises:
      ValueError: `num_leapfrog_steps` is not a positive integer.

    Source: Neal (2011), arXiv 1206.1901, section 5.3.

    >>> from functools import partial
    >>> normal = [lambda z: -0.5 * z @ z]
    >>> step = partial(hmc_step, normal, jnp.ones(1), num_leapfrog_steps=10)
    >>> point = point_at(normal, jnp.zeros(2))
    >>> point, info = step(jax.random.key(0), point, 1e-3)
    >>> print(f"{info.acceptance:.4f}")
    1.0000

    A thousand persistent chains, each with its own key and point:

    >>> points = jax.vmap(partial(point_at, normal))(jnp.zeros((1000, 2)))
    >>> keys = jax.random.split(jax.random.key(1), 1000)
    >>> points, infos = jax.vmap(step, (0, 0, None))(keys, points, 0.15)
    >>> print(points.z.shape, f"{jnp.var(points.z):.1f}")
    (1000, 2) 1.0
    """
    num_leapfrog_steps = check_count("num_leapfrog_steps", num_leapfrog_steps)
    flat_densities, flat, unravel = _ravel(log_densities, point.z)
    start = point._replace(z=flat)
    momentum_key, accept_key = jax.random.split(key)
    start_momentum = jax.random.normal(momentum_key, flat.shape, flat.dtype)

    def energy(point: Point, momentum: jax.Array) -> jax.Array:
        return matmul(-coefficients, point.values) + matmul(0.5 * momentum, momentum)

    def leap(carry: tuple[jax.Array, jax.Array], _: None) -> tuple:
        z, momentum = carry
        z += step_size * momentum
        grads = jnp.stack([jax.grad(f)(z) for f in flat_densities])
        return (z, momentum + matmul(step_size * coefficients, grads)), None

    # The momentum is half a step ahead of the position; the last step gives it the
    # other half, and alone needs the values of the densities too.
    ahead = start_momentum + matmul(0.5 * step_size * coefficients, start.grads)
    (z, momentum), _ = jax.lax.scan(
        leap, (flat, ahead), None, length=num_leapfrog_steps - 1
    )
    end = point_at(flat_densities, z + step_size * momentum)
    momentum += matmul(0.5 * step_size * coefficients, end.grads)

    energy_error = energy(end, momentum) - energy(start, start_momentum)
    acceptance = jnp.where(
        jnp.isnan(energy_error), 0, jnp.exp(-jnp.maximum(energy_error, 0))
    )
    uniform = jax.random.uniform(accept_key, dtype=acceptance.dtype)
    moved: Point = jax.tree.map(
        lambda new, old: jnp.where(uniform < acceptance, new, old), end, start
    )
    return moved._replace(z=unravel(moved.z)), Transition(acceptance, energy_error)


def jittered_hmc_step(
    log_densities: Sequence[LogDensity],
    coefficients: jax.Array,
    key: jax.Array,
    point: Point,
    step_size: jax.Array,
    *,
    num_leapfrog_steps: int,
) -> tuple[Point, Transition]:
    """`hmc_step` with a step size that is drawn within a fifth of the given one.

    >>> normal = [lambda z: -0.5 * z @ z]
    >>> point, info = jittered_hmc_step(
    ...     normal, jnp.ones(1), jax.random.key(0), point_at(normal, jnp.zeros(2)),
    ...     1e-3, num_leapfrog_steps=10)
    >>> print(f"{info.acceptance:.4f}")
    1.0000
    """
    jitter_key, hmc_key = jax.random.split(key)
    jitter = jax.random.uniform(
        jitter_key, dtype=point.grads.dtype, minval=-1, maxval=1
    )
    return hmc_step(
        log_densities,
        coefficients,
        hmc_key,
        point,
        step_size * (1 + _STEP_SIZE_JITTER * jitter),
        num_leapfrog_steps=num_leapfrog_steps,
    )


class PosteriorDraws(NamedTuple):
    """Draws of p(z|x) from C chains, and what is needed to judge them.

    Attributes:
      zs: `[C, L, J]`, or a pytree with two such leading axes.
      acceptance: `[C]` the mean acceptance probability after burn-in.
      energy_error: `[C]` the root mean square of H(proposal) − H(start) after burn-in,
        in nats: of the order of the step size squared. Not finite where a trajectory
        diverged; such proposals are rejected.
      step_size: `[C]` each chain's, as burn-in left it.
      r_hat: `[J]` `split_r_hat(zs)`: near 1 where the chains agree.
    """

    zs: PyTree
    acceptance: jax.Array
    energy_error: jax.Array
    step_size: jax.Array
    r_hat: PyTree


def sample_posterior(
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    starts: PyTree,
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
      starts: `[C, J]` where the chains start, draws of the encoder or of the prior; or
        a pytree of z with a leading axis `[C]`.
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
      ValueError: a count is not a positive integer; x has grey levels under a
        `Bernoulli` (seen where x is not traced).

    Source: Appendix D and E; Neal (2011), arXiv 1206.1901.

    >>> from aevb import DiagNormal
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # p(z|x=0) = N(0, 1/2)
    >>> draws = sample_posterior(decode, jax.random.key(0), jnp.zeros(1),
    ...                          jnp.zeros((4, 1)), num_samples=500, num_burn_in=100)
    >>> print(f"{jnp.var(draws.zs):.1f}")
    0.5
    """
    num_samples = check_count("num_samples", num_samples)
    num_burn_in = check_count("num_burn_in", num_burn_in, least=0)
    thinning = check_count("thinning", thinning)
    num_leapfrog_steps = check_count("num_leapfrog_steps", num_leapfrog_steps)
    log_densities = [lambda z: log_joint(decode, z, x, prior=prior)]

    def transition(
        key: jax.Array, point: Point, log_step: jax.Array
    ) -> tuple[Point, Transition]:
        return jittered_hmc_step(
            log_densities,
            jnp.ones(1, point.values.dtype),
            key,
            point,
            jnp.exp(log_step),
            num_leapfrog_steps=num_leapfrog_steps,
        )

    def burn_in(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        point, log_step = carry
        key, rate = inputs
        point, info = transition(key, point, log_step)
        log_step += rate * (info.acceptance - target_acceptance)
        return (point, log_step), log_step

    def chain(index: jax.Array, start: PyTree) -> tuple:
        burn_key, draw_key = jax.random.split(jax.random.fold_in(key, index))
        point = point_at(log_densities, start)
        dtype = point.grads.dtype
        log_step = jnp.log(jnp.asarray(step_size, dtype))
        if num_burn_in:
            times = jnp.arange(num_burn_in)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(burn_key, times)
            rates = (1 + times.astype(dtype)) ** -0.6
            (point, _), log_steps = jax.lax.scan(
                burn_in, (point, log_step), (keys, rates)
            )
            log_step = jnp.mean(log_steps[num_burn_in // 2 :])

        def draw(
            point: Point, index: jax.Array
        ) -> tuple[Point, tuple[PyTree, Transition]]:
            keys = jax.random.split(jax.random.fold_in(draw_key, index), thinning)
            point, infos = jax.lax.scan(
                lambda point, key: transition(key, point, log_step), point, keys
            )
            return point, (point.z, infos)

        _, (zs, infos) = jax.lax.scan(draw, point, jnp.arange(num_samples))
        rms_error = jnp.sqrt(jnp.mean(infos.energy_error**2))
        return zs, jnp.mean(infos.acceptance), rms_error, jnp.exp(log_step)

    num_chains = len(jax.tree.leaves(starts)[0])
    zs, acceptance, energy_error, step_sizes = jax.vmap(chain)(
        jnp.arange(num_chains), starts
    )
    return PosteriorDraws(zs, acceptance, energy_error, step_sizes, split_r_hat(zs))
