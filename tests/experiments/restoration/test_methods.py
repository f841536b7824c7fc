"""Every method has an answer of one shape, from one problem, for every channel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_models import bernoulli_decoder, standard_normal

import aevb
from experiments.restoration.methods import METHODS, guesses
from experiments.restoration.problem import (
    NUM_DRAWS,
    Budget,
    Problem,
    curve_steps,
    found_by_chains,
)

DIM = 6
BUDGET = Budget(num_chains=4, num_steps=8, num_leapfrog_steps=2, num_temperatures=5)
DECODE = bernoulli_decoder(2, data_dim=DIM)
X = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


def problem(observe) -> Problem:
    return Problem(
        encode=lambda x: aevb.DiagNormal(x[:2] - x[2:4], jnp.full(2, -0.2)),
        decode=DECODE,
        prior=standard_normal(2),
        observe=observe,
        y=X,
        average=aevb.Bernoulli(jnp.linspace(-1.0, 1.0, DIM)),
        train=jnp.arange(30 * DIM, dtype=jnp.uint8).reshape(30, DIM),
        scale=255,
        step_sizes=jnp.full(3, 0.1),
    )


MASKED = problem(aevb.masked(jnp.arange(DIM) % 2 == 0))


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_has_its_shapes(name):
    method = METHODS[name]
    answer = partial(method.answer, budget=BUDGET)
    channels = {"masked": MASKED, "flipped": problem(aevb.flipped(0.2))}
    for asked in channels.values():
        found = jax.eval_shape(lambda key: answer(asked, key, X), jax.random.key(0))  # noqa: B023
        assert found.mean.shape == (DIM,)
        assert found.log_prob.shape == ()
        assert found.draws.shape == (NUM_DRAWS, DIM)
        steps = len(curve_steps(BUDGET.num_steps)) if method.has_chains else 0
        assert found.curve.shape == (steps, DIM)
        assert all(value.shape == () for value in found.diagnostics.values())


def test_the_nearest_image_is_the_one_whose_y_is_nearest():
    train = np.zeros((5, DIM), np.uint8)
    train[2] = [255, 255, 0, 255, 255, 255]  # as X where X is seen
    train[4] = [0, 0, 0, 255, 255, 0]  # as X elsewhere, and nearer in all
    asked = MASKED._replace(train=jnp.asarray(train))
    found = METHODS["nearest"].answer(asked, jax.random.key(0), X, BUDGET)
    np.testing.assert_allclose(found.mean, [1, 1, 0, 1, 1, 1], atol=2e-3)


def test_chains_are_told_by_the_second_half_of_their_steps():
    """z stands still for the first half, and elsewhere for the second."""
    zs = jnp.concatenate([jnp.full((3, 4, 2), -2.0), jnp.full((3, 4, 2), 1.0)], axis=1)
    found = found_by_chains(MASKED, jax.random.key(0), X, zs, jnp.ones(3))
    first, last = (
        MASKED.observe.restore(DECODE(jnp.full(2, z)), X) for z in (-2.0, 1.0)
    )
    np.testing.assert_allclose(found.mean, last.mean, rtol=1e-5)
    np.testing.assert_allclose(found.log_prob, last.log_prob(X), rtol=1e-5)
    np.testing.assert_allclose(found.curve[:3], jnp.tile(first.mean, (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(found.curve[3], last.mean, rtol=1e-5)


def test_guesses_weigh_out_to_p_of_y(z_score):
    """E[p(y, z) / q(z)] = p(y), for whatever the short runs have filled in."""
    truth = aevb.quadrature(MASKED.decode_y, X, latent_dim=2, num_points=61, limit=6)

    @jax.jit
    @jax.vmap
    def weight(key):
        guess_key, draw_key = jax.random.split(key)
        q = guesses(MASKED, guess_key, BUDGET)
        z = q.sample(draw_key)
        log_p = aevb.log_joint(MASKED.decode_y, z, X, prior=MASKED.prior)
        return jnp.exp(log_p - q.log_prob(z) - truth.log_likelihood)

    assert abs(z_score(weight(jax.random.split(jax.random.key(1), 4000)), 1.0)) < 4.9


def off(name, z_score):
    """The largest error of an answer about what is missing, in standard errors.

    The encoder knows nothing of this decoder.
    """
    axis = jnp.linspace(-6.0, 6.0, 121)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_joint = partial(aevb.log_joint, MASKED.decode_y, x=X, prior=MASKED.prior)
    weights = jax.nn.softmax(jax.vmap(lambda z: log_joint(z=z))(grid))
    restored = jax.vmap(lambda z: MASKED.observe.restore(DECODE(z), X))(grid)
    mean = weights @ jax.vmap(lambda p: p.mean)(restored)
    prob = weights @ jnp.exp(jax.vmap(lambda p: p.log_prob(X))(restored))

    asked = MASKED._replace(
        encode=lambda x: aevb.DiagNormal(x[:2] + 1, jnp.zeros(2)),
        step_sizes=jnp.full(18, 0.7),
    )
    budget = Budget(
        num_chains=16, num_steps=64, num_leapfrog_steps=3, num_temperatures=20
    )
    answer = partial(METHODS[name].answer, asked, x=X, budget=budget)
    keys = jax.random.split(jax.random.key(2), 32)
    found = jax.jit(jax.vmap(lambda key: answer(key=key)))(keys)
    probs = jnp.exp(found.log_prob)[:, None]
    draws = jnp.concatenate([found.mean[:, 1::2], probs], axis=1)
    return np.max(np.abs(z_score(draws, jnp.append(mean[1::2], prob))))


@pytest.mark.parametrize("name", ["hmc", "sir", "ais"])
def test_methods_that_start_from_guesses_find_the_truth(name, z_score):
    assert off(name, z_score) < 4.9


def test_a_wrong_encoder_once_does_not(z_score):
    assert off("encoder", z_score) > 20
