"""One transition of Hamiltonian Monte Carlo, in JAX alone.

`aevb.annealed` needs a kernel for a density that changes from step to step; posterior
draws of a fixed density come from blackjax, in `aevb.hmc`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Point", "Transition", "hmc_step", "point_at"]

LogDensity = Callable[[jax.Array], jax.Array]


class Point(NamedTuple):
    """A position, with the log densities there and their gradients.

    Attributes:
      z: `[J]`.
      values: `[T]` one a log density, in nats.
      grads: `[T, J]`.
    """

    z: jax.Array
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


def point_at(log_densities: Sequence[LogDensity], z: jax.Array) -> Point:
    """Evaluates log densities and their gradients at z.

    >>> point = point_at([lambda z: -0.5 * z @ z], jnp.ones(2))
    >>> print(point.values, point.grads)
    [-1.] [[-1. -1.]]
    """
    values, grads = zip(*(jax.value_and_grad(f)(z) for f in log_densities), strict=True)
    return Point(z, jnp.stack(values), jnp.stack(grads))


def hmc_step(
    log_densities: Sequence[LogDensity],
    coefficients: jax.Array,
    key: jax.Array,
    point: Point,
    step_size: jax.Array,
    *,
    num_leapfrog_steps: int,
) -> tuple[Point, Transition]:
    """One HMC transition that leaves exp(Σ_t c_t log f_t(z)) invariant, and reversible.

    Momentum r ~ N(0, I); `num_leapfrog_steps` steps of the leapfrog integrator of
    H(z, r) = −Σ_t c_t log f_t(z) + ½ rᵀr; accepted with probability
    min(1, exp(H(start) − H(proposal))). A proposal of non-finite energy is rejected.

    The terms f_t are kept apart in `Point`, so that the gradient at the start serves
    the next transition when the coefficients have changed: one evaluation a step.

    Args:
      log_densities: T functions z `[J]` -> log f_t(z) `[]`, in nats.
      coefficients: `[T]` c_t; may be traced.
      key: consumed.
      point: the start, from `point_at` or an earlier transition.
      step_size: `[]` may be traced, but not depend on `point`.
      num_leapfrog_steps: static.

    Returns:
      The next `Point`, and the `Transition`.

    Source: Neal (2011), arXiv 1206.1901, section 5.3.

    >>> normal = [lambda z: -0.5 * z @ z]
    >>> point = point_at(normal, jnp.zeros(2))
    >>> point, info = hmc_step(normal, jnp.ones(1), jax.random.key(0), point, 1e-3,
    ...                        num_leapfrog_steps=10)
    >>> print(f"{info.acceptance:.4f}")
    1.0000
    """
    momentum_key, accept_key = jax.random.split(key)
    start_momentum = jax.random.normal(momentum_key, point.z.shape, point.z.dtype)

    def energy(point: Point, momentum: jax.Array) -> jax.Array:
        return -coefficients @ point.values + 0.5 * momentum @ momentum

    def leap(carry: tuple[Point, jax.Array], _: None) -> tuple:
        point, momentum = carry
        point = point_at(log_densities, point.z + step_size * momentum)
        return (point, momentum + step_size * coefficients @ point.grads), None

    # The momentum is half a step ahead of the position, and half a step too far at
    # the end.
    ahead = start_momentum + 0.5 * step_size * coefficients @ point.grads
    (end, momentum), _ = jax.lax.scan(
        leap, (point, ahead), None, length=num_leapfrog_steps
    )
    momentum -= 0.5 * step_size * coefficients @ end.grads

    energy_error = energy(end, momentum) - energy(point, start_momentum)
    acceptance = jnp.where(
        jnp.isnan(energy_error), 0, jnp.exp(-jnp.maximum(energy_error, 0))
    )
    uniform = jax.random.uniform(accept_key, dtype=acceptance.dtype)
    moved = jax.tree.map(
        lambda new, old: jnp.where(uniform < acceptance, new, old), end, point
    )
    return moved, Transition(acceptance, energy_error)
