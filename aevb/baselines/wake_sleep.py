"""The wake-sleep algorithm: what the paper compares AEVB with in Fig. 2 and 3.

It trains the same encoder and decoder as AEVB, with two objectives:

- wake: z ~ q(z|x) of a datapoint; the decoder and the prior go up log p(x, z).
- sleep: (z, x) ~ p(z) p(x|z), a dream; the encoder goes up log q(z|x).

Neither draw is differentiated. The sleep phase lowers KL(p(z|x) ‖ q(z|x)) over dreams,
the bound has KL(q(z|x) ‖ p(z|x)) over the data: no function has both gradients, and
where q cannot be the posterior the fixed point is not the bound's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aevb.calls import call_decode, call_encode, check_scalar, prior_or_normal
from aevb.divergences import kl_divergence
from aevb.estimators import Elbo
from aevb.objectives import map_objective
from aevb.train import gradient_algorithm
from aevb.types import Algorithm, Decode, Encode, Model, Posterior, PyTree

__all__ = [
    "Dream",
    "WakeSleep",
    "sample_dream",
    "sleep_phase",
    "wake_phase",
    "wake_sleep",
    "wake_sleep_step",
]


class WakeSleep(NamedTuple):
    """The two objectives of a step on one datapoint and one dream.

    Attributes:
      value: `[]` wake + sleep; its gradient is both phases' at once.
      wake: `[]` log p(x, z), z ~ q(z|x), in nats.
      sleep: `[]` log q(z|x), (z, x) ~ p, in nats.
      bound: of the datapoint, `elbo`'s estimate on the same draw; without a gradient.
    """

    value: jax.Array
    wake: jax.Array
    sleep: jax.Array
    bound: Elbo


def sample_dream(key: jax.Array, likelihood: Any) -> jax.Array:
    """x ~ p(x|z), an exact draw.

    Args:
      key: consumed.
      likelihood: p(x|z), with `sample(key)`.

    Returns:
      x `[D]`.

    Raises:
      TypeError: p(x|z) cannot sample.

    >>> from aevb import Bernoulli
    >>> print(sample_dream(jax.random.key(0), Bernoulli(jnp.full(3, 50.0))))
    [1. 1. 1.]
    """
    if not hasattr(likelihood, "sample"):
        raise TypeError(
            f"decode(z) returned {type(likelihood).__name__}, which has no "
            "sample(key): a dream x ~ p(x|z) needs one, or pass dream=..."
        )
    return likelihood.sample(key)


Dream = Callable[[jax.Array, Any], jax.Array]


def wake_phase(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    kl: Callable[..., jax.Array] = kl_divergence,
) -> tuple[jax.Array, Elbo]:
    """log p(x, z) of one draw z ~ q(z|x), to be maximised in the decoder and the prior.

    Args:
      encode: x `[D]` -> q(z|x), with `sample(key)`; it gets no gradient.
      decode: z `[J]` -> p(x|z), with `log_prob(x)`.
      key: consumed: the draw is the first one that `elbo` makes with this key.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      kl: `kl(q, p) -> []` in nats, of the bound alone; where it has no closed form for
        the pair, the bound is that of `elbo_generic`.

    Returns:
      `[]` log p(x, z) in nats, and the bound of x estimated with the same draw.

    Raises:
      TypeError: `encode` or `decode` does not return a distribution.
      ValueError: a log density is not a scalar.

    Source: Hinton et al. (1995), "The wake-sleep algorithm"; section 5 of the paper.

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x, jnp.full(1, -jnp.inf))  # z = x
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> print(f"{wake_phase(encode, decode, jax.random.key(0), jnp.zeros(1))[0]:.4f}")
    -1.8379
    """
    q = call_encode(encode, x)
    z = jax.lax.stop_gradient(q.sample(jax.random.fold_in(key, 0)))
    p = prior_or_normal(prior, z)
    log_likelihood = check_scalar(
        call_decode(decode, z).log_prob(x), "decode(z).log_prob(x)"
    )
    log_prior = check_scalar(p.log_prob(z), "prior.log_prob(z)")
    try:
        divergence = kl(q, p)
    except TypeError:  # no closed form for the pair
        divergence = q.log_prob(z) - log_prior
    bound = Elbo(log_likelihood - divergence, log_likelihood, divergence)
    return log_likelihood + log_prior, jax.lax.stop_gradient(bound)


def sleep_phase(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    like: PyTree,
    *,
    prior: Posterior | None = None,
    dream: Dream = sample_dream,
) -> jax.Array:
    """log q(z|x) of a dream, z ~ p(z), x ~ p(x|z), to be maximised in the encoder.

    Args:
      encode: x `[D]` -> q(z|x), with `log_prob(z)`.
      decode: z `[J]` -> p(x|z), with `sample(key)`; it gets no gradient.
      key: consumed.
      like: `[J]` any z: where `prior` is None, gives its shape and dtype.
      prior: p(z); None is the standard normal of z's shape. It gets no gradient.
      dream: `dream(key, p(x|z)) -> x`, by default an exact draw. The author's code
        keeps the probability of a pixel from 0 and 1 by 0.001: such noise makes an
        encoder that does not break on what no dream has.

    Returns:
      `[]` in nats. With exact draws its expectation is, up to a constant,
      −E_{p(x)} KL(p(z|x) ‖ q(z|x)).

    Raises:
      TypeError: `encode` or `decode` does not return a distribution, or p(x|z) cannot
        sample.
      ValueError: the log density is not a scalar.

    Source: Hinton et al. (1995), "The wake-sleep algorithm".

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(jnp.zeros(1), jnp.full(1, 5.0))
    >>> decode = lambda z: DiagNormal(z, jnp.zeros(1))
    >>> print(f"{sleep_phase(encode, decode, jax.random.key(0), jnp.zeros(1)):.3f}")
    -5.919
    """
    z_key, x_key = jax.random.split(jax.random.fold_in(key, 1))
    z = jax.lax.stop_gradient(prior_or_normal(prior, like).sample(z_key))
    x = jax.lax.stop_gradient(dream(x_key, call_decode(decode, z)))
    q = call_encode(encode, x)
    return check_scalar(q.log_prob(z), "encode(x).log_prob(z)")


def wake_sleep_step(
    encode: Encode,
    decode: Decode,
    key: jax.Array,
    x: jax.Array,
    *,
    prior: Posterior | None = None,
    kl: Callable[..., jax.Array] = kl_divergence,
    dream: Dream = sample_dream,
) -> WakeSleep:
    """Both phases, of one datapoint and one dream.

    Args:
      encode: x `[D]` -> q(z|x).
      decode: z `[J]` -> p(x|z), with `sample(key)`.
      key: consumed.
      x: `[D]` one datapoint.
      prior: p(z); None is the standard normal of z's shape.
      kl: as in `wake_phase`.
      dream: as in `sleep_phase`.

    Returns:
      `WakeSleep`. `value` is no bound of anything: it is what a gradient is taken of.

    Raises:
      TypeError: as in the two phases.
      ValueError: as in the two phases.

    Source: Hinton et al. (1995), "The wake-sleep algorithm"; section 5 of the paper.

    >>> from aevb import DiagNormal
    >>> encode = lambda x: DiagNormal(x[:1], jnp.zeros(1))
    >>> decode = lambda z: DiagNormal(jnp.tile(z, 2), jnp.zeros(2))
    >>> found = wake_sleep_step(encode, decode, jax.random.key(0), jnp.zeros(2))
    >>> bool(found.value == found.wake + found.sleep)
    True
    """
    wake, bound = wake_phase(encode, decode, key, x, prior=prior, kl=kl)
    z = jax.eval_shape(lambda x: call_encode(encode, x).sample(key), x)
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), z)
    sleep = sleep_phase(encode, decode, key, like, prior=prior, dream=dream)
    return WakeSleep(wake + sleep, wake, sleep, bound)


def wake_sleep(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_datapoints: int,
    log_prior: Callable[[PyTree], jax.Array] | None = None,
    dream: Dream = sample_dream,
    axis_name: str | None = None,
) -> Algorithm:
    """Wake-sleep with both phases in one step, and a prior on the parameters (MAP).

    A step makes as many dreams as the minibatch has datapoints. Encoder and decoder
    have separate sums in every optimizer that works coordinate by coordinate, such as
    Adagrad.

    Args:
      model: encoder, decoder and prior.
      optimizer: any optax optimizer that needs no more than the gradient: there is no
        function of which it is one, so a line search has nothing to search.
      num_datapoints: N, the size of the training set.
      log_prior: `log_prior(params) -> []` in nats, such as `log_weight_prior`; it acts
        on both phases as in `map_objective`.
      dream: `dream(key, p(x|z)) -> x`, as in `sleep_phase`.
      axis_name: of `jax.shard_map`, as in `gradient_algorithm`.

    Returns:
      `Algorithm`. The aux of its `Info` is `{"bound", "reconstruction", "kl", "wake",
      "sleep"}`, in nats per datapoint.

    Source: section 5; Hinton et al. (1995).

    >>> from aevb import DiagNormal
    >>> model = Model(
    ...     init=lambda key, x: {"a": jnp.zeros(1), "b": jnp.zeros(1)},
    ...     encode=lambda params, x: DiagNormal(params["a"] + x, jnp.zeros(1)),
    ...     decode=lambda params, z: DiagNormal(params["b"] + z, jnp.zeros(1)))
    >>> algorithm = wake_sleep(model, optax.sgd(0.1), num_datapoints=8)
    >>> state = algorithm.init(model.init(jax.random.key(0), jnp.zeros(1)))
    >>> state, info = algorithm.update(jax.random.key(1), state, jnp.ones((8, 1)))
    >>> sorted(info.aux)
    ['bound', 'kl', 'reconstruction', 'sleep', 'wake']
    """

    def of_datapoint(
        params: PyTree, key: jax.Array, x: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        found = wake_sleep_step(
            partial(model.encode, params),
            partial(model.decode, params),
            key,
            x,
            prior=model.prior(params),
            dream=dream,
        )
        return found.value, {
            "bound": found.bound.value,
            "reconstruction": found.bound.reconstruction,
            "kl": found.bound.kl,
            "wake": found.wake,
            "sleep": found.sleep,
        }

    objective = map_objective(
        of_datapoint,
        num_datapoints=num_datapoints,
        log_prior=log_prior,
        axis_name=axis_name,
    )
    return gradient_algorithm(objective, optimizer, axis_name=axis_name)
