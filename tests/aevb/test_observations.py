"""Channels p(y|x): the chain rule, pytrees, what is refused, log p(y) behind one."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_cases import (
    BLOCKS,
    DIM,
    EVERY_X,
    KEY,
    OBSERVED,
    OVERLAPPING,
    bernoulli,
    log_density,
    log_flips,
    multivariate,
    normal,
)
from exact_models import bernoulli_decoder, standard_normal
from jax import export

import aevb
from aevb import testing

in_float64 = pytest.mark.usefixtures("float64")


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


@pytest.mark.parametrize("make", [aevb.flipped, aevb.noisy])
def test_a_rate_or_a_scale_of_another_shape_is_refused(make):
    """It would broadcast to D² dimensions."""
    channel = make(jnp.full((4, 1), 0.1))
    likelihood = bernoulli() if make is aevb.flipped else normal()
    for call in (channel, partial(channel.restore, y=np.zeros(DIM))):
        with pytest.raises(ValueError, match=r"the shape \(4, 1\), expected \(4,\)"):
            call(likelihood)


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
            lambda y: standard_normal(1),
            decode_y,
            temperatures=aevb.sigmoid_temperatures(20),
            num_chains=1000,
            num_leapfrog_steps=3,
            step_size=0.5,
        )
    )(KEY, y)
    assert abs(estimate.log_likelihood - truth) < 4.9 * estimate.std_error
    assert estimate.std_error < 0.02
