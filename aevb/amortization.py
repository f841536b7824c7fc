"""The inference gap of an encoder, split into its two causes.

log p(x) − L(q) = [log p(x) − L(q*)] + [L(q*) − L(q)]

with q* the best Gaussian *for this x*: The first bracket is what the family of
Gaussians loses (approximation). The second is what the encoder loses (amortisation).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from aevb.calls import check_count
from aevb.distributions import DiagNormal
from aevb.estimators import Elbo, elbo
from aevb.types import Decode, Posterior

__all__ = ["InferenceGap", "LocalPosterior", "inference_gap", "optimize_posterior"]


class LocalPosterior(NamedTuple):
    """A posterior optimised for one datapoint.

    Attributes:
      posterior: the best q(z) found, averaged over the second half of the steps.
      bounds: `[num_steps]` the estimates of the bound on the way, in nats: noisy;
        flat at the end where it has converged.
    """

    posterior: DiagNormal
    bounds: jax.Array


class InferenceGap(NamedTuple):
    """How far a bound is below log p(x), in nats, and why.

    Attributes:
      approximation: `[...]` log p(x) − L(q*): the family of q.
      amortization: `[...]` L(q*) − L(q): the encoder.
    """

    approximation: jax.Array
    amortization: jax.Array


def optimize_posterior(
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    q: DiagNormal,
    *,
    prior: Posterior | None = None,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    num_samples: int = 1,
    bound: Callable[..., Elbo] = elbo,
) -> LocalPosterior:
    """Maximises the bound of one datapoint over the parameters of its own q(z).

    Gradient ascent on estimates of L(q), step t with the key `fold_in(key, t)`; the
    iterates of the second half are averaged. Evaluate the bound of the result with
    another key: `aevb.elbo(lambda x: local.posterior, decode, other_key, x, ...)`.

    Args:
      decode: z `[J]` -> p(x|z).
      key: consumed.
      x: `[D]` one datapoint.
      q: where to start, `encode(x)`; any pytree with the methods of a posterior.
      prior: p(z); None is the standard normal of z's shape.
      optimizer: any optax optimizer, such as `optax.adam(1e-2)`; one that asks for
        extra arguments, such as a line search, gets the step's value, gradient and
        function, whose noise is that of the step.
      num_steps: static.
      num_samples: draws a step, static.
      bound: `elbo`, or `elbo_generic` where q and p have no closed-form KL.

    Returns:
      `LocalPosterior`.

    Raises:
      ValueError: a count is not a positive integer.

    Source: Cremer et al., arXiv 1801.03558, section 3.

    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))  # p(z|x=2) = N(1, 1/2)
    >>> local = optimize_posterior(
    ...     decode, jax.random.key(0), jnp.full(1, 2.0),
    ...     DiagNormal(jnp.zeros(1), jnp.zeros(1)),
    ...     optimizer=optax.sgd(0.1), num_steps=1000)
    >>> print(local.posterior.loc.round(1))
    [1.]
    """
    num_steps = check_count("num_steps", num_steps)
    num_samples = check_count("num_samples", num_samples)
    extended = optax.with_extra_args_support(optimizer)

    def loss(q: DiagNormal, key: jax.Array) -> jax.Array:
        estimate = bound(
            lambda _: q, decode, key, x, prior=prior, num_samples=num_samples
        )
        return -estimate.value

    def step(carry: tuple, t: jax.Array) -> tuple[tuple, jax.Array]:
        q, opt_state, average = carry
        step_key = jax.random.fold_in(key, t)
        value, grads = jax.value_and_grad(loss)(q, step_key)
        # optax's line searches and plateau schedules ask for these; others ignore them.
        extra = {
            "value": value,
            "grad": grads,
            "value_fn": lambda q: loss(q, step_key),
        }
        updates, opt_state = extended.update(grads, opt_state, q, **extra)
        q = optax.apply_updates(q, updates)
        count = jnp.maximum(t - num_steps // 2 + 1, 1)
        average = jax.tree.map(
            lambda a, new: a + (new - a) / count.astype(a.dtype), average, q
        )
        return (q, opt_state, average), -value

    (_, _, average), bounds = jax.lax.scan(
        step, (q, extended.init(q), q), jnp.arange(num_steps)
    )
    return LocalPosterior(average, bounds)


def inference_gap(
    log_likelihood: jax.Array, local_bound: jax.Array, bound: jax.Array
) -> InferenceGap:
    """Splits log p(x) − L(q) into approximation and amortisation gap.

    Args:
      log_likelihood: `[...]` log p(x), from annealed importance sampling or quadrature.
      local_bound: `[...]` the bound of the optimised q*.
      bound: `[...]` the bound of the encoder's q.

    Returns:
      `InferenceGap`, in nats; a negative one is estimation error.

    Source: Cremer et al., arXiv 1801.03558, section 3.

    >>> gap = inference_gap(jnp.array(-85.0), jnp.array(-86.5), jnp.array(-88.0))
    >>> print(gap.approximation, gap.amortization)
    1.5 1.5
    """
    return InferenceGap(log_likelihood - local_bound, local_bound - bound)
