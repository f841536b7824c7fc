"""Draws of p(z, x|y) stay draws of it; and what is missing is calibrated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from exact_answers import (
    LATENT_DIM,
    OBSERVED,
    WRONG,
    linear_case,
    linear_kernel,
    steps,
)
from exact_models import bernoulli_decoder, standard_normal

import aevb

LINEAR = linear_case("masked")

# Invariance: where (z, x) is a draw of p(z, x|y), so it is after some steps.


def moments(chains, y):
    """Of each chain, of it with y, and of the first chain with two of the others."""
    us = jnp.concatenate([chains.zs, chains.xs], axis=1)
    with_y = jnp.concatenate([us, jnp.tile(y, (len(us), 1))], axis=1)
    others = us[jnp.array([len(us) // 2, -1])]
    return us, jnp.einsum("ci,cj->cij", us, with_y), jnp.einsum("i,cj", us[0], others)


def distances(z_score, before, after):
    """Of the differences in standard errors, where there are any."""
    for start, end in zip(before, after, strict=True):
        difference = np.asarray(end - start).reshape(len(start), -1)
        yield z_score(difference[:, difference.std(axis=0) > 0], 0.0)


@partial(jax.jit, static_argnames=("kernel", "channel", "num_chains"))
def linear_steps(key, kernel, channel, num_chains):
    case = linear_case(channel)

    def one(key):
        z_key, x_key, y_key, key = jax.random.split(key, 4)
        x = case.decode(case.prior.sample(z_key)).sample(x_key)
        y = case.observe.given(x).sample(y_key)
        posterior = case.of_y.encode(case.measured(y))

        def draw(key):
            z_key, x_key = jax.random.split(key)
            z = posterior.sample(z_key)
            p = case.decode(z)
            return aevb.Chains(z, case.observe.restore(p, y).sample(x_key), p)

        start_key, key = jax.random.split(key)
        start = jax.vmap(draw)(jax.random.split(start_key, num_chains))
        end, infos = steps(linear_kernel(kernel, WRONG, y, case), key, start, 3)
        return moments(start, y), moments(end, y), infos.acceptance

    return jax.vmap(one)(jax.random.split(key, 5000))


@pytest.mark.parametrize(
    ("kernel", "channel", "num_chains"),
    [
        ("Metropolis", "masked", 1),
        ("Metropolis", "pooled", 1),
        ("collapsed", "masked", 4),
        ("collapsed", "pooled", 3),
    ],
)
def test_draws_of_a_linear_model_stay_draws(kernel, channel, num_chains, z_score):
    before, after, acceptance = linear_steps(
        jax.random.key(0), kernel, channel, num_chains
    )
    assert 0.2 < jnp.mean(acceptance) < 0.8  # refusals are part of the test
    for distance in distances(z_score, before, after):
        assert np.all(np.abs(distance) < 4.9)


def test_three_steps_of_pseudo_gibbs_are_seen(z_score):
    before, after, _ = linear_steps(jax.random.key(0), "pseudo-Gibbs", "masked", 1)
    assert max(np.max(np.abs(d)) for d in distances(z_score, before, after)) > 20


def test_draws_of_a_pixel_model_stay_draws(z_score):
    """z ~ p(z), x ~ p(x|z), y ~ p(y|x): (z, x) is a draw of p(z, x|y)."""
    prior, observe = standard_normal(2), aevb.flipped(0.2)
    decode = bernoulli_decoder(2, data_dim=4)
    encode = lambda x: aevb.DiagNormal(x[:2] - x[2:] / 2, jnp.full(2, -0.2))  # noqa: E731

    def one(key):
        z_key, x_key, y_key, key = jax.random.split(key, 4)
        z = prior.sample(z_key)
        x = decode(z).sample(x_key)
        y = observe.given(x).sample(y_key)
        kernel = aevb.metropolis_within_gibbs(encode, decode, observe, y)
        start = jax.tree.map(lambda leaf: leaf[None], aevb.Chains(z, x, decode(z)))
        end, infos = steps(kernel, key, start, 3)
        return moments(start, y), moments(end, y), infos.acceptance

    before, after, acceptance = jax.jit(jax.vmap(one))(
        jax.random.split(jax.random.key(1), 5000)
    )
    assert 0.2 < jnp.mean(acceptance) < 0.8
    for distance in distances(z_score, before, after):
        assert np.all(np.abs(distance) < 4.9)


# Calibration: x_missing and independent draws of p(x_missing|y) can change places.


def last_by_hmc(key, y):
    start_key, key, x_key = jax.random.split(key, 3)
    draws = aevb.sample_posterior(
        lambda z: LINEAR.observe(LINEAR.decode(z)), key, y,
        jax.random.normal(start_key, (19, LATENT_DIM)), prior=LINEAR.prior,
        num_samples=1, num_burn_in=40, step_size=0.3,
    )  # fmt: skip
    return aevb.restored_draws(LINEAR.decode, LINEAR.observe, x_key, y, draws.zs[:, 0])


def last_of_chains(kernel, key, y):
    init_key, key = jax.random.split(key)
    kernel = linear_kernel(kernel, WRONG, y, LINEAR)
    starts = jnp.tile(jnp.where(OBSERVED, y, 0), (19, 1))
    return steps(kernel, key, kernel.init(init_key, starts), 25)[0].xs


def p_values(sample):
    """Of uniform ranks, of each dimension that is not seen."""

    def rank(key):
        z_key, x_key, key = jax.random.split(key, 3)
        x = LINEAR.decode(LINEAR.prior.sample(z_key)).sample(x_key)
        xs = sample(key, jnp.where(OBSERVED, x, jnp.nan))
        return jnp.sum(xs < x[None], axis=0)

    ranks = jax.jit(jax.vmap(rank))(jax.random.split(jax.random.key(2), 1000))
    for dim in np.flatnonzero(~OBSERVED):
        counts = np.bincount(np.asarray(ranks[:, dim]), minlength=20)
        yield scipy.stats.chisquare(counts).pvalue


@pytest.mark.parametrize("sampler", ["hmc", "Metropolis", "collapsed"])
def test_what_is_missing_is_calibrated(sampler):
    sample = last_by_hmc if sampler == "hmc" else partial(last_of_chains, sampler)
    assert all(1e-4 < p < 1 - 1e-4 for p in p_values(sample))


def test_calibration_sees_the_encoder_of_pseudo_gibbs():
    assert all(p < 1e-4 for p in p_values(partial(last_of_chains, "pseudo-Gibbs")))
