"""The objective of full variational Bayes, and its bound of the evidence."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aevb.calls import check_count, check_scalar
from aevb.full_bayes.posterior import (
    Reparameterization,
    WeightsKL,
    global_reparameterization,
    sample_weights,
    weight_prior,
    weights_kl,
)
from aevb.objectives import dataset_bound
from aevb.types import Objective, PyTree

__all__ = ["FullBayes", "evidence_bound", "full_bayes_objective"]

# Keys that no datapoint and no draw of z folds with: they count from zero.
_LAST = 0xFFFFFFFF


class FullBayes(NamedTuple):
    """The two parts of the objective, and what the bound returned beside its value.

    Attributes:
      bound: `[]` the estimate of E_q(θ)[L(x; θ)], in nats per datapoint.
      weights_kl: `[]` KL(q(θ) ‖ p(θ)), exact or estimated, in nats per *data set*.
      aux: of the bound.
    """

    bound: jax.Array
    weights_kl: jax.Array
    aux: PyTree


def full_bayes_objective(
    objective: Objective,
    *,
    num_datapoints: int | float,
    prior: Callable[[PyTree], PyTree] = weight_prior,
    weights_kl: WeightsKL = weights_kl,
    reparameterization: Reparameterization = global_reparameterization,
    num_weight_samples: int = 1,
) -> Objective:
    """Puts a posterior over the weights under an objective, or under a bound.

    value = (1/L) Σ_l objective(θ_l) − (1/N) KL(q(θ) ‖ p(θ)),  θ_l ~ q(θ)

    A bound of one datapoint has the signature of an objective, so there are two ways:

        per_batch = full_bayes_objective(map_objective(bound, ...), ...)
        per_datapoint = map_objective(full_bayes_objective(bound, ...), ...)

    The first draws θ once for a minibatch. The second draws θ for each datapoint: it is
    Algorithm 2, and N times the value of one datapoint is the paper's f(x, z, θ). Its
    gradient varies less, and the draws cost M times as much, unless activations are
    drawn in place of weights (`aevb.nets.local_reparameterization`). `elbo` under
    `weights_kl` is the form of F.1, `elbo_generic` under `sampled_weights_kl` the
    generic one. As the scales of q(θ) vanish, the first is `map_objective` with the
    log prior of the weights, up to the entropy of q(θ).

    Args:
      objective: `objective(weights, key, batch) -> (value [], aux)` in nats per
        datapoint, or `bound(weights, key, x)`; of plain weights.
      num_datapoints: N, the size of the training set, not of the minibatch.
        `math.inf` leaves the divergence out: then nothing holds q(θ) wide.
      prior: `prior(params) -> ` the tree of `params` with a distribution in place of
        each posterior, such as `partial(weight_prior, scale=0.1)`.
      weights_kl: `weights_kl` in closed form, or `sampled_weights_kl`.
      reparameterization: how weights are drawn.
      num_weight_samples: L, static.

    Returns:
      `objective(params, key, batch) -> (value [], FullBayes)`. Draw 0 passes its key to
      `objective` as it is, and draws θ with `fold_in(key, 2³² − 1)`: the noise of z is
      that of the objective without a posterior. Draw l has `fold_in(key, 2³² − 1 − l)`
      in place of the key. Devices that have one key have one θ.

    Raises:
      ValueError: a count is not a positive integer.

    Source: Algorithm 2 and F.1, Appendix F.

    >>> from aevb import map_objective, weight_posterior
    >>> bound = lambda w, key, x: (-((x - w) ** 2), None)
    >>> objective = full_bayes_objective(
    ...     map_objective(bound, num_datapoints=4), num_datapoints=4)
    >>> params = weight_posterior(jnp.zeros(()), scale=1.0)  # the prior
    >>> value, found = objective(params, jax.random.key(0), jnp.zeros(2))
    >>> print(bool(value == found.bound), found.weights_kl)
    True 0.0
    """
    if not (isinstance(num_datapoints, float) and num_datapoints == math.inf):
        num_datapoints = check_count("num_datapoints", num_datapoints)
    num_weight_samples = check_count("num_weight_samples", num_weight_samples)

    def draw(params: PyTree, key: jax.Array, data: jax.Array) -> FullBayes:
        weights = sample_weights(
            jax.random.fold_in(key, np.uint32(_LAST)),
            params,
            reparameterization=reparameterization,
        )
        value, aux = objective(weights, key, data)
        value = check_scalar(value, "the bound")
        return FullBayes(value, weights_kl(params, weights, prior=prior), aux)

    def of_posterior(
        params: PyTree, key: jax.Array, data: jax.Array
    ) -> tuple[jax.Array, FullBayes]:
        if num_weight_samples == 1:
            found = draw(params, key, data)
        else:
            others = [
                jax.random.fold_in(key, np.uint32(_LAST - index))
                for index in range(1, num_weight_samples)
            ]
            keys = jnp.stack([key, *others])
            draws = jax.vmap(lambda key: draw(params, key, data))(keys)
            found = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), draws)
        return found.bound - found.weights_kl / num_datapoints, found

    return of_posterior


def evidence_bound(
    bounds: jax.Array, weights_kl: jax.Array, *, num_datapoints: int
) -> jax.Array:
    """The lower bound of the evidence, (N/M) Σ_i E_q(θ)[L(x_i; θ)] − KL(q(θ) ‖ p(θ)).

    log p(X) ≥ it in expectation, for log p(X) = log ∫ p(θ) Π_i p(x_i|θ) dθ: the number
    by which priors and sizes of networks compare without a test set. Any L that is at
    most log p(x|θ) in expectation will do (`elbo`, `iwae`), with one θ a datapoint or
    one for all. What does not combine so are the estimates of `predictive_model`:
    Σ_i log E_q(θ)[p(x_i|θ)] − KL may be *above* log p(X).

    Args:
      bounds: `[M]` estimates of the bound at draws of θ, one a datapoint, in nats: of
        the whole data set (M = N), or of a minibatch.
      weights_kl: `[]` KL(q(θ) ‖ p(θ)) in nats.
      num_datapoints: N.

    Returns:
      `[]` in nats per *data set*.

    Raises:
      ValueError: `bounds` is not one scalar a datapoint, or N is not a count.

    Source: Appendix F.

    >>> print(evidence_bound(jnp.array([-1.0, -3.0]), jnp.ones(()), num_datapoints=10))
    -21.0
    """
    return dataset_bound(bounds, num_datapoints) - check_scalar(
        weights_kl, "weights_kl"
    )
