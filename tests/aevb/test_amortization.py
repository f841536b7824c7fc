"""A posterior optimised for one datapoint, and the gap to log p(x)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from exact_models import linear_model

import aevb

LINEAR = linear_model(6, 2)
X = jnp.linspace(-1.0, 2.0, 6)


def test_local_posterior_closes_the_amortisation_gap(standard_promotion):
    encode = lambda x: aevb.DiagNormal(jnp.full(2, 1.5), jnp.zeros(2))  # noqa: E731

    def bounds(key):
        local = aevb.optimize_posterior(
            LINEAR.decode, key, X, encode(X),
            optimizer=optax.adam(0.02), num_steps=2000,
        )  # fmt: skip
        evaluate = partial(aevb.elbo, num_samples=100)
        return local.posterior, evaluate(encode, LINEAR.decode, key, X).value

    posterior, poor = jax.jit(bounds)(jax.random.key(11))
    best = LINEAR.best_encode(X)
    # The bound is quadratic around its maximum: these are a hundredth of a nat.
    np.testing.assert_allclose(posterior.loc, best.loc, atol=0.05)
    np.testing.assert_allclose(posterior.log_scale, best.log_scale, atol=0.05)
    gap = aevb.inference_gap(LINEAR.log_likelihood(X), LINEAR.best_bound(X), poor)
    assert gap.approximation > 0.01
    assert gap.amortization > 1


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(15)),
        optax.chain(optax.adam(0.02), optax.contrib.reduce_on_plateau(patience=50)),
    ],
    ids=["lbfgs", "linesearch", "plateau"],
)
def test_an_optimizer_gets_the_extra_arguments_it_asks_for(
    optimizer, standard_promotion
):
    """The value, the gradient and the function of the step, as in training."""

    def bound(encode, decode, key, x, **options):
        # Without noise: a line search that saw another key's noise would not matter.
        return aevb.elbo(encode, decode, jax.random.key(0), x, **options)

    run = partial(
        aevb.optimize_posterior,
        LINEAR.decode,
        optimizer=optimizer,
        num_steps=400,
        num_samples=50,
        bound=bound,
    )
    start = aevb.DiagNormal(jnp.full(2, 1.5), jnp.zeros(2))
    local = jax.jit(run)(jax.random.key(11), X, start)
    np.testing.assert_allclose(local.posterior.loc, LINEAR.best_encode(X).loc, atol=0.3)
    assert local.bounds[-1] > local.bounds[0] + 0.5


def test_the_function_of_a_step_has_the_noise_of_the_step():
    """`value_fn` at the parameters of the step is the step's value."""

    def init(params):
        return jnp.zeros(())

    def update(grads, state, params=None, *, value, grad, value_fn, **extra):
        again = jax.value_and_grad(value_fn)(params)
        pairs = zip(jax.tree.leaves(again), jax.tree.leaves((value, grad)), strict=True)
        difference = sum(jnp.sum(jnp.abs(a - b)) for a, b in pairs)
        # A difference would show as a step away from where it is.
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, difference), grads), state

    start = aevb.DiagNormal(jnp.full(2, 1.5), jnp.zeros(2))
    local = aevb.optimize_posterior(
        LINEAR.decode,
        jax.random.key(0),
        X,
        start,
        optimizer=optax.GradientTransformationExtraArgs(init, update),
        num_steps=4,
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3),
        local.posterior,
        start,
    )
    assert jnp.std(local.bounds) > 0  # each step has noise of its own
