"""Channels p(y|x): against enumerations, dense Gaussians, and the chain rule."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from exact_models import bernoulli_decoder, standard_normal
from jax import export

import aevb
from aevb import testing

KEY = jax.random.key(0)
DIM = 4
OBSERVED = np.array([True, False, True, False])
EVERY_X = np.array(list(itertools.product([0.0, 1.0], repeat=DIM)))
BLOCKS = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]])
OVERLAPPING = np.random.default_rng(3).normal(size=(3, DIM))

in_float64 = pytest.mark.usefixtures("float64")


def bernoulli(seed=0):
    return aevb.Bernoulli(jnp.asarray(2 * np.random.default_rng(seed).normal(size=DIM)))


def normal(seed=0):
    loc, log_scale = np.random.default_rng(seed).normal(size=(2, DIM))
    return aevb.DiagNormal(jnp.asarray(loc), jnp.asarray(log_scale / 2))


def multivariate(seed=0):
    rng = np.random.default_rng(seed)
    scale_tril = np.tril(rng.normal(size=(DIM, DIM)), -1) + np.diag([0.3, 1, 0.5, 2])
    return aevb.MultivariateNormal(
        jnp.asarray(rng.normal(size=DIM)), jnp.asarray(scale_tril)
    )


def dense(p):
    """The mean and the covariance of a Gaussian, for NumPy."""
    if isinstance(p, aevb.DiagNormal):
        variances = np.exp(2 * np.asarray(p.log_scale, np.float64))
        return np.asarray(p.loc), np.diag(np.broadcast_to(variances, p.loc.shape))
    root = np.asarray(p.scale_tril, np.float64)
    return np.asarray(p.loc), root @ root.T


def log_density(value, mean, covariance):
    return scipy.stats.multivariate_normal.logpdf(value, mean, covariance)


# Three parameters of each channel, one a datapoint, and the likelihood it is behind.
CHANNELS = {
    "masked pixels": (aevb.masked, [OBSERVED, ~OBSERVED, EVERY_X[7] > 0], bernoulli),
    "masked reals": (aevb.masked, [OBSERVED, ~OBSERVED, EVERY_X[7] > 0], normal),
    "flipped": (aevb.flipped, [0.1, 0.3, 0.8], bernoulli),
    "flipped by pixel": (aevb.flipped, [0.1 * np.arange(1, 5)] * 3, bernoulli),
    "noisy": (aevb.noisy, [0.1, 1.0, 3.0], normal),
    "noisy by dimension": (aevb.noisy, [0.1 * np.arange(1, 5)] * 3, normal),
    "blocks": (partial(aevb.pooled, BLOCKS), [0.1, 1.0, 3.0], normal),
    "overlapping": (
        partial(aevb.pooled, OVERLAPPING),
        [np.array([0.1, 1.0, 3.0])] * 3,
        normal,
    ),
    "multivariate": (partial(aevb.pooled, OVERLAPPING), [0.1, 1.0, 3.0], multivariate),
}


def everything(channel, p, key):
    """All that a channel says, of an x and its y."""
    x_key, y_key, key = jax.random.split(key, 3)
    x = p.sample(x_key)
    given = channel.given(x)
    y = given.sample(y_key)
    of_y, restored = channel(p), channel.restore(p, y)
    return {
        "p(x|z)": p.log_prob(x),
        "p(y|x)": given.log_prob(y),
        "p(y|z)": of_y.log_prob(y),
        "p(x|z, y)": restored.log_prob(x),
        "means": (given.mean, of_y.mean, restored.mean),
        "draws": (y, of_y.sample(key), restored.sample(key)),
    }


def everything_made(make, parameter, p, key):
    return everything(make(parameter), p, key)


def rows(name):
    """The parameters, likelihoods and keys of three datapoints, stacked."""
    _, parameters, likelihood = CHANNELS[name]
    ps = [likelihood(seed) for seed in range(3)]
    return (
        jnp.asarray(np.stack(parameters)),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *ps),
        jax.random.split(KEY, 3),
    )


@in_float64
@pytest.mark.parametrize("name", CHANNELS)
def test_the_joint_density_is_the_same_in_either_order(name):
    make, parameters, likelihood = CHANNELS[name]
    logs = everything(make(parameters[0]), likelihood(), KEY)
    np.testing.assert_allclose(
        logs["p(x|z)"] + logs["p(y|x)"], logs["p(y|z)"] + logs["p(x|z, y)"], rtol=1e-12
    )


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_is_a_pytree(name):
    make, parameters, likelihood = CHANNELS[name]
    channel = make(parameters[0])
    leaves, treedef = jax.tree.flatten(channel)
    assert any(np.array_equal(leaf, parameters[0]) for leaf in leaves)
    same = jax.tree.unflatten(treedef, leaves)
    assert type(same) is type(channel)
    jax.tree.map(
        np.testing.assert_array_equal,
        everything(same, likelihood(), KEY),
        everything(channel, likelihood(), KEY),
    )


@pytest.mark.parametrize("name", CHANNELS)
def test_rows_of_a_vmap_are_the_single_calls(name):
    """With a channel of each datapoint, passed in or made inside."""
    make = CHANNELS[name][0]
    parameters, ps, keys = rows(name)
    channels = [make(parameter) for parameter in parameters]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *channels)
    passed = jax.jit(jax.vmap(everything))(stacked, ps, keys)
    made = jax.jit(jax.vmap(partial(everything_made, make)))(parameters, ps, keys)
    for row in range(3):
        at_row = partial(jax.tree.map, lambda leaf, row=row: leaf[row])
        single = everything(channels[row], at_row(ps), keys[row])
        for batch in (passed, made):
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
                at_row(batch),
                single,
            )


@in_float64
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *itertools.product(
            ["masked reals", "flipped", "noisy"], ["bfloat16", "float32", "float64"]
        ),
        ("multivariate", "float32"),  # no Cholesky factor in bfloat16
        ("multivariate", "float64"),
    ],
)
def test_the_dtype_is_that_of_the_likelihood(name, dtype):
    make, parameters, likelihood = CHANNELS[name]
    if name == "multivariate":
        make = partial(aevb.pooled, OVERLAPPING.astype(dtype))
    p = jax.tree.map(lambda leaf: leaf.astype(dtype), likelihood())
    found = jax.eval_shape(lambda p: everything(make(parameters[0]), p, KEY), p)
    for name, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert leaf.dtype == dtype, name


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_lower_for_tpu_and_cuda_without_the_host(name):
    function = jax.vmap(partial(everything_made, CHANNELS[name][0]))
    exported = export.export(jax.jit(function), platforms=["tpu", "cuda"])(*rows(name))
    assert exported.platforms == ("tpu", "cuda")
    text = exported.mlir_module()
    assert "callback" not in text
    calls = {"cu_threefry2x32_ffi", "Sharding"}  # on the device, as in test_export
    if name in ("overlapping", "multivariate"):
        calls.add("cusolver_potrf_ffi")
    assert set(re.findall(r"custom_call @(\w+)", text)) <= calls


# Masked


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


@pytest.mark.parametrize("make", [aevb.flipped, aevb.noisy])
def test_a_rate_or_a_scale_of_another_shape_is_refused(make):
    """It would broadcast to D² dimensions."""
    channel = make(jnp.full((4, 1), 0.1))
    likelihood = bernoulli() if make is aevb.flipped else normal()
    for call in (channel, partial(channel.restore, y=np.zeros(DIM))):
        with pytest.raises(ValueError, match=r"the shape \(4, 1\), expected \(4,\)"):
            call(likelihood)


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


# Flipped

RATES = [0.2, np.array([0.01, 0.3, 0.5, 0.9])]


def log_flips(x, y, rate):
    """log p(y|x), one a pixel."""
    return np.log(np.where(x == y, 1 - rate, rate))


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


@pytest.mark.parametrize("scale", [0, -1.0, np.array([1.0, 0.0]), np.nan])
@pytest.mark.parametrize("make", [aevb.noisy, partial(aevb.pooled, BLOCKS)])
def test_a_scale_that_is_not_positive_is_refused(make, scale):
    with pytest.raises(ValueError, match=r"scale is .*, expected above 0"):
        make(scale)


@pytest.mark.parametrize(
    ("channel", "likelihood", "message"),
    [
        (aevb.flipped(0.1), normal, "flipped .* Bernoulli .*DiagNormal"),
        (aevb.noisy(1.0), bernoulli, "noisy .* DiagNormal .*Bernoulli"),
        (aevb.noisy(1.0), multivariate, "noisy .* DiagNormal .*MultivariateNormal"),
        (
            aevb.pooled(BLOCKS, 1.0),
            bernoulli,
            "pooled .* DiagNormal and MultivariateNormal .*Bernoulli",
        ),
    ],
)
def test_a_likelihood_of_no_closed_form_is_refused(channel, likelihood, message):
    for call in (channel, partial(channel.restore, y=np.zeros(DIM))):
        with pytest.raises(TypeError, match=message):
            call(likelihood())


# Linear measurements

POOLED = {
    "blocks": (BLOCKS, 0.3, normal),
    "blocks, noise of each": (BLOCKS, np.array([0.1, 2.0]), normal),
    "blocks of a multivariate": (BLOCKS, 0.3, multivariate),
    "overlapping": (OVERLAPPING, 0.3, normal),
    "overlapping, noise of each": (OVERLAPPING, np.array([0.1, 2.0, 0.5]), normal),
    "overlapping of a multivariate": (OVERLAPPING, 0.3, multivariate),
    "one log_scale": (
        BLOCKS,
        0.3,
        lambda: aevb.DiagNormal(normal().loc, jnp.asarray(-0.5)),
    ),
}


def measured(matrix, scale, p):
    """The mean and covariance of p(y|z), and the gain, dense."""
    mean, covariance = dense(p)
    noise = np.diag(np.broadcast_to(np.square(scale), len(matrix)))
    of_y = matrix @ covariance @ matrix.T + noise
    return matrix @ mean, of_y, covariance @ matrix.T @ np.linalg.inv(of_y)


def conditional(matrix, scale, p, y):
    """The mean and covariance of p(x|z, y), dense."""
    mean, covariance = dense(p)
    mean_of_y, _, gain = measured(matrix, scale, p)
    return mean + gain @ (y - mean_of_y), covariance - gain @ matrix @ covariance


@in_float64
@pytest.mark.parametrize("name", POOLED)
def test_pooled_is_the_dense_gaussian(name):
    matrix, scale, likelihood = POOLED[name]
    p, y = likelihood(), np.linspace(-1.0, 2.0, len(matrix))
    channel = aevb.pooled(matrix, scale)
    mean, covariance, _ = measured(matrix, scale, p)
    of_y = channel(p)
    np.testing.assert_allclose(of_y.mean, mean, rtol=1e-12)
    truth = log_density(y, mean, covariance)
    np.testing.assert_allclose(of_y.log_prob(y), truth, rtol=1e-12)
    diagonal = matrix is BLOCKS and isinstance(p, aevb.DiagNormal)
    kind = aevb.DiagNormal if diagonal else aevb.MultivariateNormal
    assert type(of_y) is kind

    x = np.linspace(-1.0, 1.0, DIM)
    truth = scipy.stats.norm.logpdf(y, matrix @ x, scale).sum()
    np.testing.assert_allclose(channel.given(x).log_prob(y), truth, rtol=1e-12)


@in_float64
@pytest.mark.parametrize("name", POOLED)
def test_pooled_is_restored_by_the_dense_conditional(name):
    matrix, scale, likelihood = POOLED[name]
    p, y = likelihood(), np.linspace(-1.0, 2.0, len(matrix))
    restored = aevb.pooled(matrix, scale).restore(p, y)
    mean, covariance = conditional(matrix, scale, p, y)
    np.testing.assert_allclose(restored.mean, mean, rtol=1e-11, atol=1e-12)
    for x in (mean, np.linspace(-1.0, 1.0, DIM)):
        truth = log_density(x, mean, covariance)
        np.testing.assert_allclose(restored.log_prob(x), truth, rtol=1e-10)


@pytest.mark.parametrize("name", POOLED)
def test_draws_of_what_was_pooled_have_the_conditional_mean_and_covariance(
    name, z_score
):
    matrix, scale, likelihood = POOLED[name]
    p, y = likelihood(), np.linspace(-1.0, 2.0, len(matrix))
    restored = aevb.pooled(matrix, scale).restore(p, y)
    draws = jax.jit(jax.vmap(restored.sample))(jax.random.split(KEY, 20_000))
    mean, covariance = conditional(matrix, scale, p, y)
    assert np.all(np.abs(z_score(draws, mean)) < 4.9)
    centred = np.asarray(draws, np.float64) - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert np.all(np.abs(z_score(products, covariance)) < 4.9)


@in_float64
@pytest.mark.parametrize("scale", [0.5, np.array([0.1, 0.5, 1.0, 2.0])])
def test_each_dimension_measured_by_itself_is_noisy(scale):
    p, y, x = normal(), np.linspace(-1.0, 2.0, DIM), np.linspace(1.0, 0.0, DIM)
    identity, noisy = aevb.pooled(np.eye(DIM), scale), aevb.noisy(scale)
    assert type(identity(p)) is aevb.DiagNormal
    restored, expected = identity.restore(p, y), noisy.restore(p, y)
    for found, truth in [
        (identity(p).mean, noisy(p).mean),
        (identity(p).log_prob(y), noisy(p).log_prob(y)),
        (identity.given(x).log_prob(y), noisy.given(x).log_prob(y)),
        (restored.mean, expected.mean),
        (restored.log_prob(x), expected.log_prob(x)),
    ]:
        np.testing.assert_allclose(found, truth, rtol=1e-11)


@in_float64
def test_a_traced_matrix_is_the_same_channel():
    y = np.array([0.5, -1.0])

    def log_p(matrix):
        channel = aevb.pooled(matrix, 0.3)
        return channel(normal()).log_prob(y), channel.restore(normal(), y).mean

    traced, seen = jax.jit(log_p)(BLOCKS), log_p(BLOCKS)
    for found, truth in zip(traced, seen, strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-11)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 4), ()])
def test_a_matrix_without_two_axes_is_refused(shape):
    with pytest.raises(ValueError, match=r"matrix has the shape .*, expected \[M, D\]"):
        aevb.pooled(np.ones(shape), 0.3)


# log p(y) of a model


def quadrature(decode, y, latent_dim):
    run = partial(
        aevb.quadrature, decode, latent_dim=latent_dim, num_points=201, limit=7.0
    )
    return jax.jit(run)(y).log_likelihood


@pytest.mark.parametrize("name", ["masked", "noisy", "blocks", "overlapping"])
def test_quadrature_behind_a_channel_is_exact_on_linear_gaussian(name):
    weights = np.random.default_rng(4).normal(size=(DIM, 2))
    bias, sigma = np.linspace(-1.0, 1.0, DIM), 0.6
    model = testing.linear_gaussian(
        jnp.asarray(weights), jnp.asarray(bias), np.log(sigma)
    )
    matrix, scale, channel = {
        "masked": (np.eye(DIM)[OBSERVED], 0.0, aevb.masked(OBSERVED)),
        "noisy": (np.eye(DIM), 0.5, aevb.noisy(0.5)),
        "blocks": (BLOCKS, 0.5, aevb.pooled(BLOCKS, 0.5)),
        "overlapping": (OVERLAPPING, 0.5, aevb.pooled(OVERLAPPING, 0.5)),
    }[name]
    y = seen = np.linspace(-1.0, 0.5, len(matrix))
    covariance = matrix @ (weights @ weights.T + sigma**2 * np.eye(DIM)) @ matrix.T
    truth = log_density(y, matrix @ bias, covariance + scale**2 * np.eye(len(matrix)))
    if name == "masked":
        y = np.full(DIM, np.nan)
        y[OBSERVED] = seen
    found = quadrature(lambda z: channel(model.decode(z)), y, latent_dim=2)
    np.testing.assert_allclose(found, truth, rtol=1e-5)


ERASED = 0.3


def erased(p):
    """A channel of one's own: each pixel becomes 0 with some probability."""
    return aevb.Bernoulli(
        p.logits + np.log1p(-ERASED) - jax.nn.softplus(p.logits + np.log(ERASED))
    )


class Enumerated:
    """p(y|z) as the sum over every x of p(x|z) p(y|x)."""

    def __init__(self, p, log_given):
        self.p, self.log_given = p, log_given

    def log_prob(self, y):
        log_p = jax.vmap(self.p.log_prob)(jnp.asarray(EVERY_X))
        return jax.nn.logsumexp(log_p + self.log_given)


def log_erasures(x, y):
    table = np.array([[1.0, 0.0], [ERASED, 1 - ERASED]])  # p(y|x) of a pixel: x, y
    with np.errstate(divide="ignore"):
        return np.log(table[x.astype(int), y.astype(int)])


@pytest.mark.parametrize(
    ("channel", "log_given"),
    [(erased, log_erasures), (aevb.flipped(0.2), partial(log_flips, rate=0.2))],
    ids=["a function", "flipped"],
)
def test_quadrature_and_annealing_behind_a_channel_of_pixels(channel, log_given):
    decode, y = bernoulli_decoder(1, DIM), EVERY_X[6]
    table = np.sum(log_given(EVERY_X, y), axis=1)
    truth = quadrature(lambda z: Enumerated(decode(z), table), y, latent_dim=1)

    def decode_y(z):
        return channel(decode(z))

    np.testing.assert_allclose(quadrature(decode_y, y, latent_dim=1), truth, rtol=1e-5)
    estimate = jax.jit(
        partial(
            aevb.annealed_log_likelihood,
            encode,
            decode_y,
            temperatures=aevb.sigmoid_temperatures(20),
            num_chains=1000,
            num_leapfrog_steps=3,
            step_size=0.5,
        )
    )(KEY, y)
    assert abs(estimate.log_likelihood - truth) < 4.9 * estimate.std_error
    assert estimate.std_error < 0.02
