"""`flipped` and `noisy`: against enumerations and convolutions, and at extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from channel_cases import DIM, EVERY_X, KEY, bernoulli, log_flips, normal

import aevb

in_float64 = pytest.mark.usefixtures("float64")

RATES = [0.2, np.array([0.01, 0.3, 0.5, 0.9])]


@in_float64
@pytest.mark.parametrize("rate", RATES)
def test_flipped_pixels_are_summed_over(rate):
    p, y = bernoulli(), EVERY_X[5]
    channel = aevb.flipped(rate)
    prior = np.array([p.log_prob(x) for x in EVERY_X])
    flips = log_flips(EVERY_X, y, rate).sum(axis=1)
    given = [channel.given(x).log_prob(y) for x in EVERY_X]
    np.testing.assert_allclose(given, flips, rtol=1e-12)

    log_p = scipy.special.logsumexp(prior + flips)
    np.testing.assert_allclose(channel(p).log_prob(y), log_p, rtol=1e-12)

    # Bayes' rule.
    posterior = prior + flips - log_p
    restored = channel.restore(p, y)
    found = [restored.log_prob(x) for x in EVERY_X]
    np.testing.assert_allclose(found, posterior, rtol=1e-11)
    np.testing.assert_allclose(restored.mean, np.exp(posterior) @ EVERY_X, rtol=1e-12)


def test_flipped_is_exact_at_extreme_logits_and_rates():
    grid = np.meshgrid(
        [-1e4, -200.0, -1.0, 0.0, 1.0, 200.0, 1e4], [1e-6, 0.1, 0.5, 0.9, 1 - 1e-6]
    )
    logits, rates = (np.float32(axis.ravel()) for axis in grid)

    @jax.jit
    @jax.vmap
    def evaluate(logit, rate):
        def of_y(logit, rate):
            return aevb.flipped(rate)(aevb.Bernoulli(logit)).logits

        def restored(logit, rate):
            channel = aevb.flipped(rate)
            return channel.restore(aevb.Bernoulli(logit), jnp.ones(())).logits

        of_y_and_grads = jax.value_and_grad(of_y, argnums=(0, 1))(logit, rate)
        return of_y_and_grads, jax.value_and_grad(restored, argnums=(0, 1))(logit, rate)

    results = evaluate(logits, rates)
    for leaf in jax.tree.leaves(results):
        assert np.all(np.isfinite(leaf))
    (found, (slope, _)), (restored, _) = results
    logit, r = np.float64(logits), np.float64(rates)
    yes, no = scipy.special.log_expit(logit), scipy.special.log_expit(-logit)
    one = np.logaddexp(np.log1p(-r) + yes, np.log(r) + no)
    zero = np.logaddexp(np.log(r) + yes, np.log1p(-r) + no)
    np.testing.assert_allclose(found, one - zero, rtol=1e-6, atol=1e-6)
    truth = (1 - 2 * r) * np.exp(yes + no - one - zero)
    np.testing.assert_allclose(slope, truth, rtol=1e-4, atol=1e-6)
    truth = logit + np.log1p(-r) - np.log(r)
    np.testing.assert_allclose(restored, truth, rtol=1e-6, atol=1e-6)


def test_flips_of_every_other_pixel_say_nothing():
    np.testing.assert_allclose(aevb.flipped(0.5)(bernoulli()).logits, 0, atol=1e-7)
    restored = aevb.flipped(0.5).restore(bernoulli(), EVERY_X[3])
    np.testing.assert_allclose(restored.logits, bernoulli().logits, rtol=1e-6)


@in_float64
@pytest.mark.parametrize("rate", RATES)
def test_two_flips_are_a_flip(rate):
    p, second = bernoulli(), 0.3
    both = rate * (1 - second) + second * (1 - rate)
    np.testing.assert_allclose(
        aevb.flipped(second)(aevb.flipped(rate)(p)).logits,
        aevb.flipped(both)(p).logits,
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize("rate", RATES)
def test_flips_come_at_their_rate(rate, z_score):
    x = EVERY_X[5]
    given = aevb.flipped(rate).given(x)
    np.testing.assert_allclose(given.mean, np.abs(x - rate), rtol=1e-5)
    draws = jax.jit(jax.vmap(given.sample))(jax.random.split(KEY, 20_000))
    assert np.all(np.abs(z_score(np.asarray(draws) != x, rate)) < 4.9)


@pytest.mark.parametrize("rate", [0, 1, 1.5, np.array([0.1, 1.0]), -0.1, np.nan])
def test_a_rate_that_is_not_between_zero_and_one_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate is .*, expected strictly between 0"):
        aevb.flipped(rate)


# Gaussian noise


@in_float64
@pytest.mark.parametrize("scale", [0.7, np.array([0.2, 1.0, 3.0, 0.5])])
@pytest.mark.parametrize("log_scale", [None, -0.4])
def test_noisy_is_a_convolution(scale, log_scale):
    p, y = normal(), np.array([0.3, -2.0, 1.0, 0.0])
    if log_scale is not None:
        p = aevb.DiagNormal(p.loc, log_scale)
    sigma, loc = np.exp(np.broadcast_to(p.log_scale, (DIM,))), np.asarray(p.loc)
    x = np.linspace(-30.0, 30.0, 6001)[:, None]
    joint = scipy.stats.norm.pdf(x, loc, sigma) * scipy.stats.norm.pdf(y, x, scale)
    mass = joint.sum(axis=0) * 0.01

    channel = aevb.noisy(scale)
    found = channel(p).log_prob(y)
    np.testing.assert_allclose(found, np.log(mass).sum(), rtol=1e-10)
    given = channel.given(loc).log_prob(y)
    truth = scipy.stats.norm.logpdf(y, loc, scale).sum()
    np.testing.assert_allclose(given, truth, rtol=1e-12)

    restored = channel.restore(p, y)
    mean = (joint * x).sum(axis=0) * 0.01 / mass
    np.testing.assert_allclose(restored.mean, mean, rtol=1e-9, atol=1e-12)
    variance = (joint * (x - mean) ** 2).sum(axis=0) * 0.01 / mass
    np.testing.assert_allclose(np.exp(2 * restored.log_scale), variance, rtol=1e-9)
    # The formulas of conditioning.
    gain = sigma**2 / (sigma**2 + scale**2)
    np.testing.assert_allclose(restored.mean, loc + gain * (y - loc), rtol=1e-12)
    truth = np.sqrt(1 - gain) * sigma
    np.testing.assert_allclose(np.exp(restored.log_scale), truth, rtol=1e-12)


def test_noisy_is_finite_at_extreme_scales():
    grid = np.meshgrid([1e-6, 1.0, 1e6], np.log([1e-6, 1.0, 1e6]))
    scales, log_scales = (np.float32(axis.ravel()) for axis in grid)
    loc, y = np.float32([0.5]), np.float32([0.25])

    def parts(scale, log_scale):
        p, channel = aevb.DiagNormal(loc, log_scale), aevb.noisy(scale)
        restored = channel.restore(p, y)
        return {
            "scale": channel(p).log_scale[0],
            "log p": channel(p).log_prob(y),
            "mean": restored.mean[0],
            "restored": restored.log_scale[0],
        }

    @jax.jit
    @jax.vmap
    def evaluate(scale, log_scale):
        jacobian = jax.jacobian(parts, argnums=(0, 1))(scale, log_scale)
        return parts(scale, log_scale), jacobian

    found, slopes = evaluate(scales, log_scales)
    for name, leaf in jax.tree_util.tree_leaves_with_path((found, slopes)):
        assert np.all(np.isfinite(leaf)), name
    s, sigma = np.float64(scales), np.exp(np.float64(log_scales))
    truth = np.log(s**2 + sigma**2) / 2
    np.testing.assert_allclose(found["scale"], truth, rtol=1e-6, atol=1e-6)
    truth = scipy.stats.norm.logpdf(0.25, 0.5, np.sqrt(s**2 + sigma**2))
    np.testing.assert_allclose(found["log p"], truth, rtol=1e-4)
    truth = 0.5 - 0.25 * sigma**2 / (sigma**2 + s**2)
    np.testing.assert_allclose(found["mean"], truth, rtol=1e-5)
    truth = -np.log(s**-2 + sigma**-2) / 2
    np.testing.assert_allclose(found["restored"], truth, rtol=1e-6, atol=1e-6)
