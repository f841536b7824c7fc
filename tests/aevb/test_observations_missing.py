"""`masked`: against sums and integrals over what is missing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from channel_cases import (
    DIM,
    EVERY_X,
    KEY,
    OBSERVED,
    bernoulli,
    dense,
    log_density,
    multivariate,
    normal,
)
from exact_models import standard_normal

import aevb

in_float64 = pytest.mark.usefixtures("float64")


@in_float64
def test_masked_pixels_are_summed_over():
    p, y = bernoulli(), EVERY_X[9]
    agree = EVERY_X[np.all(EVERY_X[:, OBSERVED] == y[OBSERVED], axis=1)]
    assert len(agree) == 4
    truth = scipy.special.logsumexp([p.log_prob(x) for x in agree])
    found = aevb.masked(OBSERVED)(p).log_prob(y)
    np.testing.assert_allclose(found, truth, rtol=1e-12)


@in_float64
def test_masked_reals_are_integrated_out():
    p, y = normal(), np.array([0.3, np.nan, -2.0, np.nan])
    mean, covariance = dense(p)
    truth = log_density(
        y[OBSERVED], mean[OBSERVED], covariance[np.ix_(OBSERVED, OBSERVED)]
    )
    found = aevb.masked(OBSERVED)(p).log_prob(y)
    np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize("likelihood", [bernoulli, normal])
def test_what_is_not_seen_is_never_looked_at(likelihood):
    @jax.jit
    def evaluate(p, y):
        def of_y(p, y):
            return aevb.masked(OBSERVED)(p).log_prob(y)

        def of_x(p, x):
            return aevb.masked(~OBSERVED).restore(p, x).log_prob(x)

        return [jax.value_and_grad(f, argnums=(0, 1))(p, y) for f in (of_y, of_x)]

    expected = evaluate(likelihood(), np.array([1.0, 0.0, 1.0, 0.0]))
    for other in (np.nan, np.inf, 0.5):
        found = evaluate(likelihood(), np.array([1.0, other, 1.0, other]))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    for value, grads in expected:
        assert np.isfinite(value)
        for leaf in jax.tree.leaves(grads):
            assert np.all(np.isfinite(leaf))
            np.testing.assert_array_equal(leaf != 0, OBSERVED)


@in_float64
@pytest.mark.parametrize("likelihood", [bernoulli, normal])
def test_the_factors_of_a_masked_likelihood(likelihood):
    p, x = likelihood(), EVERY_X[9]
    seen = aevb.masked(OBSERVED)(p)
    rest = aevb.masked(OBSERVED).restore(p, x)
    each = np.asarray(p.log_probs(x))
    np.testing.assert_array_equal(seen.log_probs(x), np.where(OBSERVED, each, 0))
    np.testing.assert_array_equal(rest.log_probs(x), np.where(OBSERVED, 0, each))
    for d in (seen, rest):
        np.testing.assert_allclose(d.log_prob(x), d.log_probs(x).sum(), rtol=1e-14)


@pytest.mark.parametrize("likelihood", [bernoulli, normal])
def test_masked_draws_and_means(likelihood):
    p, y = likelihood(), np.array([1.0, np.nan, 0.0, np.nan])
    channel = aevb.masked(OBSERVED)
    x = p.sample(KEY)
    equal = np.testing.assert_array_equal
    equal(channel(p).sample(KEY), np.where(OBSERVED, x, 0))
    equal(channel(p).mean, np.where(OBSERVED, p.mean, 0))
    restored = channel.restore(p, y)
    equal(restored.sample(KEY), np.where(OBSERVED, y, x))
    equal(restored.mean, np.where(OBSERVED, y, p.mean))
    given = channel.given(x)
    equal(given.sample(KEY), np.where(OBSERVED, x, 0))
    equal(given.mean, np.where(OBSERVED, x, 0))
    assert given.log_prob(np.where(OBSERVED, x, np.nan)) == 0
    assert given.log_prob(np.where(OBSERVED, x + 1, x)) == -np.inf


def test_what_is_seen_may_be_rounded_otherwise():
    """As by a compiler that makes x twice; any other y has no density."""
    x = np.array([1e-9, np.nan, -3.0, 0.5], np.float32)
    given = aevb.masked(OBSERVED).given(x)
    away = np.array([3e-7, 0.0, 3e-7, 0.0], np.float32)
    assert given.log_prob(x + away) == 0
    for other in (1e3 * away, np.nan * away, np.inf):
        assert given.log_prob(x + other) == -np.inf


@pytest.mark.usefixtures("standard_promotion")
def test_whole_numbers_that_are_seen_are_the_same_or_not():
    whole = aevb.masked(True).given(np.array([0, 1, 255]))
    assert whole.log_prob(np.array([0, 1, 255])) == 0
    assert whole.log_prob(np.array([0, 1, 254])) == -np.inf


TREE = {
    "image": {"left": np.arange(6.0).reshape(2, 3), "right": np.arange(3.0)},
    "label": np.arange(DIM) / 2,
}
TREE_MASKS = {
    "whole": {
        "image": {"left": np.arange(6).reshape(2, 3) % 2 == 0, "right": np.ones(1) > 0},
        "label": OBSERVED,
    },
    "prefix": {"image": np.bool_(False), "label": OBSERVED},
    "one": True,
}


@pytest.mark.parametrize("name", TREE_MASKS)
def test_x_and_its_mask_may_be_pytrees(name):
    mask = TREE_MASKS[name]
    each = {
        "whole": mask,
        "prefix": {"image": {"left": False, "right": False}, "label": OBSERVED},
        "one": {"image": {"left": True, "right": True}, "label": True},
    }[name]
    p = aevb.DiagNormal(
        jax.tree.map(lambda leaf: jnp.asarray(leaf / 3), TREE),
        {"image": {"left": jnp.full((), 0.1), "right": -0.3}, "label": jnp.zeros(DIM)},
    )
    # What is not seen is NaN in y, and what is seen is NaN where x alone is looked at.
    y = jax.tree.map(lambda m, leaf: np.where(m, leaf, np.nan), each, TREE)
    channel = aevb.masked(mask)

    terms = p.log_probs(TREE)
    seen = jax.tree.map(lambda m, t: np.sum(np.where(m, t, 0)), each, terms)
    rest = jax.tree.map(lambda m, t: np.sum(np.where(m, 0, t)), each, terms)
    restored = channel.restore(p, y)
    close = partial(np.testing.assert_allclose, rtol=1e-5)
    close(channel(p).log_prob(y), sum(jax.tree.leaves(seen)))
    close(restored.log_prob(TREE), sum(jax.tree.leaves(rest)))
    assert channel.given(TREE).log_prob(y) == 0

    equal = partial(jax.tree.map, np.testing.assert_array_equal)
    x = p.sample(KEY)
    fill = partial(jax.tree.map, lambda m, a, b: np.where(m, a, b), each)
    equal(restored.sample(KEY), fill(jax.tree.map(jnp.asarray, y), x))
    equal(channel(p).sample(KEY), fill(x, jax.tree.map(np.zeros_like, x)))
    equal(channel(p).mean, fill(p.mean, jax.tree.map(np.zeros_like, x)))


@pytest.mark.parametrize(
    "observed", [np.ones(4), np.ones(4, int), 1, {"a": np.array(True), "b": 0.0}]
)
def test_a_mask_that_is_not_boolean_is_refused(observed):
    with pytest.raises(TypeError, match=r"observed has the dtype .*expected bool"):
        aevb.masked(observed)


def test_masked_refuses_dimensions_that_depend_on_each_other():
    channel = aevb.masked(OBSERVED)
    for call in (channel, partial(channel.restore, y=np.zeros(DIM))):
        with pytest.raises(TypeError, match=r"log_probs.*got MultivariateNormal"):
            call(multivariate())


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"observed has the shape \(4, 1\), expected"):
        aevb.masked(OBSERVED[:, None])(bernoulli()).log_prob(EVERY_X[1])


def encode(y):
    return standard_normal(1)


LOG_LIKELIHOODS = {
    "log_joint": lambda decode, y: aevb.log_joint(decode, jnp.zeros(1), y),
    "jit": lambda decode, y: jax.jit(lambda z: aevb.log_joint(decode, z, y))(
        jnp.zeros(1)
    ),
    "importance": lambda decode, y: aevb.importance_log_likelihood(
        encode, decode, KEY, y, num_samples=2
    ),
}


@pytest.mark.parametrize("name", LOG_LIKELIHOODS)
def test_grey_pixels_are_refused_where_they_are_seen(name):
    run = LOG_LIKELIHOODS[name]

    def decode(z):
        return aevb.masked(OBSERVED)(bernoulli())

    with pytest.raises(ValueError, match=r"x has 1 values such as 0\.5"):
        run(decode, np.array([1.0, 0.25, 0.5, np.nan]))
    found = run(decode, np.array([1.0, 0.25, 0.0, np.nan]))
    assert np.all(np.isfinite(jax.tree.leaves(found)[0]))
