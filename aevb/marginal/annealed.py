"""Annealed importance sampling of log p(x): biased down, in reverse biased up."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aevb.calls import call_encode, check_count, check_scalar
from aevb.estimators import log_joint
from aevb.marginal.diagnostics import log_mean_weight
from aevb.marginal.hmc import Point, jittered_hmc_step, point_at
from aevb.marginal.temperatures import check_temperatures
from aevb.types import Decode, Encode, Posterior, PyTree

__all__ = [
    "AnnealedEstimate",
    "annealed_log_likelihood",
    "annealing_step_sizes",
    "nudge_step_size",
    "reverse_annealed_log_likelihood",
]

Adapt = Callable[[jax.Array, jax.Array], jax.Array]

_TARGET_ACCEPTANCE = 0.65
_FIRST_STEP_SIZE = 0.1
_PILOT_CHAINS = 4
_PILOT_TRANSITIONS = 200


class AnnealedEstimate(NamedTuple):
    """An annealed importance sampling estimate of log p(x), from C chains.

    Attributes:
      log_likelihood: `[]` in nats. Forward log (1/C) Σ_c w_c, below log p(x) in
        expectation; in reverse −log (1/C) Σ_c 1/w_c, above it.
      ess: `[]` effective number of chains, between 1 and C.
      std_error: `[]` delta-method standard error over chains, sqrt(1/ess − 1/C), in
        nats. Reverse chains share their start: there it is over momenta alone.
      log_weights: `[C]` log w_c, in nats.
      acceptance: `[]` the mean over chains and transitions (NaN where there is none);
        about 0.65 is meant.
      zs: `[C, J]` where the chains end, or a pytree of such. Forward: draws of p(z|x)
        with the weights w_c, see `aevb.resample`.
    """

    log_likelihood: jax.Array
    ess: jax.Array
    std_error: jax.Array
    log_weights: jax.Array
    acceptance: jax.Array
    zs: PyTree


def nudge_step_size(step_size: jax.Array, acceptance: jax.Array) -> jax.Array:
    """Wu et al.'s adaptation: times 1.02 above an acceptance of 0.65, else 0.98.

    Args:
      step_size: `[]` kept within [1e-4, 0.5].
      acceptance: `[]` the chain's moving average, with decay 0.9.

    Returns:
      `[]` the next step size.

    Source: Wu et al., arXiv 1611.04273, and its code.

    >>> print(f"{nudge_step_size(jnp.array(0.1), jnp.array(0.7)):.3f}")
    0.102
    """
    factor = jnp.where(acceptance > _TARGET_ACCEPTANCE, 1.02, 0.98)
    return jnp.clip(step_size * factor, 1e-4, 0.5)


def annealed_log_likelihood(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    temperatures: jax.Array,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    step_size: jax.Array | float | None = None,
    adapt: Adapt | None = None,
) -> AnnealedEstimate:
    """Estimates log p(x) by annealed importance sampling, from q(z|x) to the posterior.

    log w = Σ_t (β_{t+1} − β_t) log [p(x, z_t) / q(z_t|x)],  z_0 ~ q(z|x)

    where z_t comes from z_{t−1} by one HMC transition that leaves
    q(z|x)^{1−β_t} p(x, z)^{β_t} invariant. E[w] = p(x), for any schedule and any step
    sizes that do not depend on the chain; so E[log p̂] ≤ log p(x), and p̂ is above p(x)
    by a factor e^b with a probability below e^{−b}. Two temperatures, 0 and 1, are
    importance sampling. Pass `lambda x: prior` as `encode` to start from the prior.

    By default the step sizes, one a temperature, come from a preliminary run of a few
    chains with a key of its own (`annealing_step_sizes`), and E[w] = p(x) is exact.
    With `adapt` each chain adapts its own as it goes, as Wu et al. do: a transition
    then depends on the chain's past, and E[w] = p(x) holds only nearly.

    Args:
      encode: x `[D]` -> the start of the path, with `sample(key)` and `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed; chain c uses `fold_in(key, c)`.
      x: `[D]` one datapoint; binary under a `Bernoulli` p(x|z).
      prior: p(z); None is the standard normal of z's shape.
      temperatures: `[T]` from 0 to 1, such as `sigmoid_temperatures(1000)`.
      num_chains: C, static.
      num_leapfrog_steps: of each transition, static.
      step_size: `[]` or `[T - 2]`, one a transition; None is a preliminary run. With
        `adapt` it is the first step size, `[]` (None is 0.1).
      adapt: `adapt(step_size, acceptance) -> step_size`, such as `nudge_step_size`,
        where `acceptance` is the chain's moving average; None is fixed step sizes.

    Returns:
      `AnnealedEstimate`.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar, temperatures do not increase from 0 to
        1, a count is not a positive integer, or x has grey levels under a `Bernoulli`
        (seen where x is not traced).

    Source: Neal (2001), arXiv physics/9803008; Wu et al., arXiv 1611.04273.

    >>> from aevb import DiagNormal, linear_temperatures
    >>> encode = lambda x: DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> estimate = annealed_log_likelihood(
    ...     encode, decode, jax.random.key(0), jnp.zeros(1),
    ...     temperatures=linear_temperatures(5), step_size=0.5)
    >>> print(f"{estimate.log_likelihood:.4f} {estimate.ess:.1f}")
    -1.2655 16.0
    """
    check_temperatures(temperatures)
    num_chains = check_count("num_chains", num_chains)
    num_leapfrog_steps = check_count("num_leapfrog_steps", num_leapfrog_steps)
    path = _path(encode, decode, x, prior)
    if adapt is not None:
        step_size = _FIRST_STEP_SIZE if step_size is None else step_size
    elif step_size is None:
        step_size = _tune(path, _pilot_key(key), temperatures, num_leapfrog_steps)

    def chain(index: jax.Array) -> _Walk:
        start_key, walk_key = jax.random.split(jax.random.fold_in(key, index))
        return _walk(
            path,
            walk_key,
            path.start.sample(start_key),
            levels=temperatures[1:-1],
            gaps=jnp.diff(temperatures),
            step_sizes=jnp.broadcast_to(step_size, temperatures[1:-1].shape),
            num_leapfrog_steps=num_leapfrog_steps,
            adapt=adapt,
        )

    walks = jax.vmap(chain)(jnp.arange(num_chains))
    mean, acceptance = log_mean_weight(walks.log_ratio), jnp.mean(walks.acceptance)
    return AnnealedEstimate(*mean, walks.log_ratio, acceptance, walks.end)


def reverse_annealed_log_likelihood(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    z: PyTree,
    *,
    prior: Posterior | None = None,
    temperatures: jax.Array,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    step_size: jax.Array | float | None = None,
) -> AnnealedEstimate:
    """Annealed importance sampling backwards, from an exact draw z ~ p(z|x).

    log 1/w = Σ_t (β_t − β_{t+1}) log [p(x, z_t) / q(z_t|x)],  t = T − 2 .. 0

    The same transitions in the opposite order. E[1/w] = 1 / p(x) over the draw z and
    the chain, so E[log p̂] ≥ log p(x). With a z that is *not* an exact posterior draw it
    is no bound. All chains start from the one z.

    Args:
      encode: x `[D]` -> the end of the path, as in `annealed_log_likelihood`.
      decode: z `[J]` -> p(x|z).
      key: consumed.
      x: `[D]` one datapoint.
      z: `[J]`, or a pytree: an exact draw of p(z|x): what x was simulated from.
      prior: p(z); None is the standard normal of z's shape.
      temperatures: `[T]` from 0 to 1, as forward.
      num_chains: C, static.
      num_leapfrog_steps: of each transition, static.
      step_size: `[]` or `[T - 2]`, in the order of forward; None is a preliminary run,
        which does not see z.

    Returns:
      `AnnealedEstimate`.

    Raises:
      TypeError, ValueError: as `annealed_log_likelihood`.

    Source: Grosse et al., arXiv 1511.02543 (bidirectional Monte Carlo).

    >>> from aevb import DiagNormal, linear_temperatures
    >>> encode = lambda x: DiagNormal(x / 2, jnp.full(1, -0.5 * jnp.log(2.0)))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # encode is its exact posterior
    >>> z = encode(jnp.zeros(1)).sample(jax.random.key(1))
    >>> estimate = reverse_annealed_log_likelihood(
    ...     encode, decode, jax.random.key(0), jnp.zeros(1), z,
    ...     temperatures=linear_temperatures(5), step_size=0.5)
    >>> print(f"{estimate.log_likelihood:.4f}")
    -1.2655
    """
    check_temperatures(temperatures)
    num_chains = check_count("num_chains", num_chains)
    num_leapfrog_steps = check_count("num_leapfrog_steps", num_leapfrog_steps)
    path = _path(encode, decode, x, prior)
    if step_size is None:
        step_size = _tune(path, _pilot_key(key), temperatures, num_leapfrog_steps)

    def chain(index: jax.Array) -> _Walk:
        return _walk(
            path,
            jax.random.fold_in(key, index),
            z,
            levels=temperatures[1:-1][::-1],
            gaps=jnp.diff(temperatures[::-1]),
            step_sizes=jnp.broadcast_to(step_size, temperatures[1:-1].shape)[::-1],
            num_leapfrog_steps=num_leapfrog_steps,
        )

    walks = jax.vmap(chain)(jnp.arange(num_chains))  # of log 1/w
    mean, acceptance = log_mean_weight(walks.log_ratio), jnp.mean(walks.acceptance)
    log_weights, zs = -walks.log_ratio, walks.end
    return AnnealedEstimate(-mean.value, *mean[1:], log_weights, acceptance, zs)


def annealing_step_sizes(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    temperatures: jax.Array,
    num_leapfrog_steps: int = 10,
) -> jax.Array:
    """The step sizes of a preliminary run, to be fixed in the runs that count.

    Four chains warm up for 200 transitions at the first temperature between 0 and 1,
    then anneal, in 200 transitions or more, each with its step size adapted by
    `nudge_step_size`; the geometric mean over what was used at a temperature is taken.

    Args:
      encode: x `[D]` -> the start of the path.
      decode: z `[J]` -> p(x|z).
      key: consumed; not the key of the runs that count.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      temperatures: `[T]` from 0 to 1.
      num_leapfrog_steps: of each transition, static.

    Returns:
      `[T - 2]` one a transition.

    Raises:
      TypeError, ValueError: as `annealed_log_likelihood`.

    >>> from aevb import DiagNormal, linear_temperatures
    >>> encode = lambda x: DiagNormal(jnp.zeros(1), jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> step_sizes = annealing_step_sizes(
    ...     encode, decode, jax.random.key(0), jnp.zeros(1),
    ...     temperatures=linear_temperatures(5), num_leapfrog_steps=3)
    >>> print(step_sizes.shape)
    (3,)
    """
    check_temperatures(temperatures)
    num_leapfrog_steps = check_count("num_leapfrog_steps", num_leapfrog_steps)
    path = _path(encode, decode, x, prior)
    return _tune(path, key, temperatures, num_leapfrog_steps)


class _Path(NamedTuple):
    """Where a path starts, and the two log densities between which it leads."""

    start: Posterior
    log_densities: tuple[Callable, Callable]


class _Walk(NamedTuple):
    log_ratio: jax.Array
    acceptance: jax.Array
    step_sizes: jax.Array
    end: PyTree


def _path(
    encode: Encode, decode: Decode, x: jax.Array, prior: Posterior | None
) -> _Path:
    start = call_encode(encode, x)

    def log_start(z: PyTree) -> jax.Array:
        return check_scalar(start.log_prob(z), "encode(x).log_prob(z)")

    def log_end(z: PyTree) -> jax.Array:
        return log_joint(decode, z, x, prior=prior)

    return _Path(start, (log_start, log_end))


def _walk(
    path: _Path,
    key: jax.Array,
    z: PyTree,
    *,
    levels: jax.Array,
    gaps: jax.Array,
    step_sizes: jax.Array,
    num_leapfrog_steps: int,
    adapt: Adapt | None = None,
) -> _Walk:
    """Sums gaps[t] log [end(z_t) / start(z_t)] over z_0 = z, z_t ~ K_{levels[t-1]}."""

    def log_ratio(point: Point) -> jax.Array:
        return point.values[1] - point.values[0]

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        point, total, lost, own_step_size, mean_acceptance = carry
        index, level, gap, given_step_size = inputs
        step_size = given_step_size if adapt is None else own_step_size
        point, info = jittered_hmc_step(
            path.log_densities,
            jnp.stack([1 - level, level]),
            jax.random.fold_in(key, index),
            point,
            step_size,
            num_leapfrog_steps=num_leapfrog_steps,
        )
        # Kahan's sum: thousands of small terms would drift in float32.
        addend = gap * log_ratio(point) - lost
        new_total = total + addend
        lost = (new_total - total) - addend
        mean_acceptance = 0.9 * mean_acceptance + 0.1 * info.acceptance
        if adapt is not None:
            own_step_size = adapt(step_size, mean_acceptance)
        carry = (point, new_total, lost, own_step_size, mean_acceptance)
        return carry, (info.acceptance, step_size)

    point = point_at(path.log_densities, z)
    dtype = point.grads.dtype
    levels, gaps, step_sizes = (a.astype(dtype) for a in (levels, gaps, step_sizes))
    first = step_sizes[0] if len(levels) else jnp.zeros((), dtype)
    target = jnp.full((), _TARGET_ACCEPTANCE, dtype)
    total = gaps[0] * log_ratio(point)
    start: tuple = (point, total, jnp.zeros_like(total), first, target)
    inputs = (jnp.arange(len(levels)), levels, gaps[1:], step_sizes)
    final, (acceptance, used) = jax.lax.scan(step, start, inputs)
    return _Walk(final[1], jnp.mean(acceptance), used, final[0].z)


def _tune(
    path: _Path, key: jax.Array, temperatures: jax.Array, num_leapfrog_steps: int
) -> jax.Array:
    num_levels = len(temperatures) - 2
    if not num_levels:
        return temperatures[1:-1]
    # A nudge is 2%: a short schedule needs several transitions a temperature.
    repeats = -(-_PILOT_TRANSITIONS // num_levels)
    levels = jnp.repeat(temperatures[1:-1], repeats)
    levels = jnp.concatenate([jnp.full(_PILOT_TRANSITIONS, levels[0]), levels])

    def chain(index: jax.Array) -> jax.Array:
        start_key, walk_key = jax.random.split(jax.random.fold_in(key, index))
        walk = _walk(
            path,
            walk_key,
            path.start.sample(start_key),
            levels=levels,
            gaps=jnp.zeros(len(levels) + 1),
            step_sizes=jnp.full(len(levels), _FIRST_STEP_SIZE),
            num_leapfrog_steps=num_leapfrog_steps,
            adapt=nudge_step_size,
        )
        return jnp.log(walk.step_sizes[_PILOT_TRANSITIONS:])

    log_step_sizes = jax.vmap(chain)(jnp.arange(_PILOT_CHAINS))
    return jnp.exp(
        jnp.mean(log_step_sizes.reshape(-1, num_levels, repeats), axis=(0, 2))
    )


def _pilot_key(key: jax.Array) -> jax.Array:
    """Of no chain: chains fold in 0, 1, ..."""
    return jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF))
