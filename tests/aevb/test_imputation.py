"""Every way to p(z, x|y) against the closed form, and against quadrature."""

from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import exact_answers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_models import bernoulli_decoder

import aevb

ERRORS = {"exact": exact_answers.EXACT, "wrong": exact_answers.WRONG}


class Problem(NamedTuple):
    encode: Callable
    encode_y: Callable
    decode: Callable
    observe: Any
    y: jax.Array
    start: jax.Array
    prior: Any = None

    def decode_y(self, z):
        return self.observe(self.decode(z))


# Each sampler gives draws of independent replications: zs [R, N, J] and xs [R, N, D].


def restored(problem, key, zs):
    run = partial(aevb.restored_draws, problem.decode, problem.observe)
    flat = run(key, problem.y, zs.reshape(-1, zs.shape[-1]))
    return zs, flat.reshape(*zs.shape[:2], -1)


def hmc(problem, key):
    start_key, key, x_key = jax.random.split(key, 3)
    draws = aevb.sample_posterior(
        problem.decode_y, key, problem.y, jax.random.normal(start_key, (500, 2)),
        prior=problem.prior, num_samples=5, num_burn_in=60, thinning=2,
    )  # fmt: skip
    return restored(problem, x_key, draws.zs)


def importance_resampling(problem, key):
    def one(key):
        key, resample_key = jax.random.split(key)
        draws = aevb.weighted_draws(
            problem.encode_y, problem.decode_y, key, problem.y,
            prior=problem.prior, num_samples=500,
        )  # fmt: skip
        return aevb.resample(resample_key, draws.zs, draws.log_weights, num_samples=10)

    key, x_key = jax.random.split(key)
    return restored(problem, x_key, jax.vmap(one)(jax.random.split(key, 400)))


def annealed_resampling(problem, key):
    def one(key):
        key, resample_key = jax.random.split(key)
        estimate = aevb.annealed_log_likelihood(
            problem.encode_y, problem.decode_y, key, problem.y, prior=problem.prior,
            temperatures=aevb.linear_temperatures(20), num_chains=50,
            num_leapfrog_steps=3, step_size=0.4,
        )  # fmt: skip
        return aevb.resample(
            resample_key, estimate.zs, estimate.log_weights, num_samples=10
        )

    key, x_key = jax.random.split(key)
    return restored(problem, x_key, jax.vmap(one)(jax.random.split(key, 300)))


def chains(problem, key, make):
    """A thousand that know nothing of one another."""
    kernel = make(problem.encode, problem.decode, problem.observe, problem.y)
    starts = jnp.tile(problem.start, (1000, 1))
    draws = aevb.sample_imputations(
        kernel, key, starts, num_samples=5, num_burn_in=50, thinning=3
    )
    return draws.zs, draws.xs


def ensembles(problem, key, make, *, replications, num_chains, num_steps):
    """Chains that propose for one another are one replication together."""
    kernel = make(
        problem.encode, problem.decode, problem.observe, problem.y, prior=problem.prior
    )

    def one(key):
        init_key, key = jax.random.split(key)
        start = kernel.init(init_key, jnp.tile(problem.start, (num_chains, 1)))
        end, _ = exact_answers.steps(kernel, key, start, num_steps)
        return end.zs, end.xs

    return jax.vmap(one)(jax.random.split(key, replications))


def pseudo_gibbs(problem, key):
    return chains(problem, key, aevb.pseudo_gibbs)


def metropolis(problem, key):
    make = partial(aevb.metropolis_within_gibbs, prior=problem.prior)
    return chains(problem, key, make)


SAMPLERS = {
    "hmc": hmc,
    "importance resampling": importance_resampling,
    "annealed resampling": annealed_resampling,
    "pseudo-Gibbs": pseudo_gibbs,
    "Metropolis": metropolis,
    "collapsed": partial(
        ensembles,
        make=partial(aevb.collapsed_metropolis_within_gibbs, prior_share=0.1),
        replications=800,
        num_chains=6,
        num_steps=40,
    ),
    # Its bias, of the order of 1/100, is below what 300 replications can tell.
    "LAIR": partial(
        ensembles,
        make=partial(aevb.latent_adaptive_resampling, num_prior=5),
        replications=300,
        num_chains=100,
        num_steps=10,
    ),
}


@cache
def linear_draws(channel, sampler):
    """One program for every error of the encoders."""
    case = exact_answers.linear_case(channel)

    def run(key, error):
        problem = Problem(
            lambda x: case.of_x.diagonal(x, *error),
            lambda y: case.of_y.diagonal(case.measured(y), *error),
            case.decode,
            case.observe,
            case.y,
            jnp.zeros(4),
            case.prior,
        )
        return SAMPLERS[sampler](problem, key)

    return case, jax.jit(run)


def distances(z_score, channel, sampler, error):
    """Of the means and second moments of (z, x), in standard errors."""
    case, run = linear_draws(channel, sampler)
    zs, xs = run(jax.random.key(1), ERRORS[error])
    centred = np.concatenate([zs, xs], axis=2) - case.of_y.mean(case.measured(case.y))
    centred = centred[:, :, case.free]
    covariance = case.of_y.covariance[np.ix_(case.free, case.free)]
    second = np.einsum("rni,rnj->rij", centred, centred) / centred.shape[1]
    return z_score(centred.mean(axis=1), 0.0), z_score(second, covariance)


LINEAR = [
    ("masked", "hmc", "exact"),  # it has no encoder
    ("masked", "importance resampling", "wrong"),
    ("masked", "pseudo-Gibbs", "exact"),
    ("masked", "Metropolis", "exact"),
    ("masked", "Metropolis", "wrong"),
    ("masked", "collapsed", "exact"),
    ("masked", "collapsed", "wrong"),
    ("masked", "LAIR", "exact"),
    ("masked", "LAIR", "wrong"),
    ("noisy", "Metropolis", "wrong"),
]


@pytest.mark.parametrize(("channel", "sampler", "error"), LINEAR)
def test_draws_have_the_closed_form(channel, sampler, error, z_score):
    for distance in distances(z_score, channel, sampler, error):
        assert np.all(np.abs(distance) < 4.9)


def test_pseudo_gibbs_is_as_wrong_as_its_encoder(z_score):
    of_mean, of_second = distances(z_score, "masked", "pseudo-Gibbs", "wrong")
    assert np.all(np.abs(of_mean) > 8)
    assert np.all(np.abs(np.diag(of_second)) > 8)


def encode_pixels(x):
    """Not the posterior of anything: for what needs an encoder of six pixels."""
    loc = jnp.array([[0.4, -0.3], [0.2, 0.5]]) @ (x[:2] - x[2:4])
    return aevb.DiagNormal(loc, jnp.array([-0.2, 0.1]))


def encode_filled_in(y):
    xs = jnp.stack([y, 1 - y, jnp.zeros(6), jnp.ones(6)])
    return aevb.encoder_mixture(encode_pixels, xs, prior_share=0.2)


DECODE_PIXELS = bernoulli_decoder(2, data_dim=6)
PIXEL_CHANNELS = {
    "masked": aevb.masked(jnp.arange(6) % 2 == 1),
    "flipped": aevb.flipped(jnp.linspace(0.1, 0.4, 6)),
}
SEEN_PIXELS = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


@cache
def images():
    """All of them, and log p(x) of each, by quadrature."""
    xs = jnp.array(list(product([0.0, 1.0], repeat=6)))
    run = partial(aevb.quadrature, DECODE_PIXELS, latent_dim=2, num_points=61, limit=6)
    return xs, jax.jit(jax.vmap(run))(xs).log_likelihood


@pytest.mark.parametrize(
    ("channel", "sampler"),
    [
        ("masked", "hmc"),
        ("flipped", "importance resampling"),
        ("masked", "annealed resampling"),
        ("flipped", "Metropolis"),
        ("masked", "collapsed"),
        ("masked", "LAIR"),
    ],
)
def test_answers_about_pixels_are_those_of_quadrature(channel, sampler, z_score):
    observe = PIXEL_CHANNELS[channel]
    problem = Problem(
        encode_pixels, encode_filled_in, DECODE_PIXELS, observe,
        SEEN_PIXELS, SEEN_PIXELS,
    )  # fmt: skip
    xs, log_p = images()
    log_p += jax.vmap(lambda x: observe.given(x).log_prob(SEEN_PIXELS))(xs)
    log_p -= jax.nn.logsumexp(log_p)  # of all x given y
    truth = jnp.exp(log_p) @ xs
    likeliest = jnp.argmax(log_p)

    def answer(zs):
        given = DECODE_PIXELS, observe, SEEN_PIXELS, zs
        score = aevb.predictive_log_prob(*given, xs[likeliest])
        return aevb.posterior_mean(*given), jnp.exp(score - log_p[likeliest])

    @jax.jit
    def run(key):
        zs, draws = SAMPLERS[sampler](problem, key)
        return *jax.vmap(answer)(zs), draws

    means, ratios, draws = run(jax.random.key(2))
    unsure = (truth > 0) & (truth < 1)
    assert np.sum(unsure) == {"masked": 3, "flipped": 6}[channel]
    np.testing.assert_array_equal(means[:, ~unsure], draws[:, 0, ~unsure])
    truth = truth[unsure]
    assert np.all(np.abs(z_score(means[:, unsure], truth)) < 4.9)
    assert np.all(np.abs(z_score(jnp.mean(draws, axis=1)[:, unsure], truth)) < 4.9)
    assert abs(z_score(ratios, 1.0)) < 4.9  # the mean of p(x|z, y) is p(x|y)
