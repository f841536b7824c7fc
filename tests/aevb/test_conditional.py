"""log p(x|y), the likelihood of what was not seen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from exact_answers import LATENT_DIM, linear_case
from exact_models import bernoulli_decoder, standard_normal

import aevb

X = np.array([0.5, -1.0, 2.0, 0.25])


def exact(case):
    return (
        case.of_x.encode,
        lambda y: case.of_y.encode(case.measured(y)),
        case.decode,
        case.observe,
    )


def off(encode, shift, widen):
    """An encoder off its mean, and wider."""

    def encode_off(value):
        q = encode(value)
        return aevb.MultivariateNormal(q.loc + shift, widen * q.scale_tril)

    return encode_off


def truth(case, x, y):
    """log p(x|y), of what y leaves open of x."""
    free = case.free[LATENT_DIM:]
    chosen = LATENT_DIM + np.flatnonzero(free)
    return scipy.stats.multivariate_normal.logpdf(
        np.asarray(x, np.float64)[free],
        case.of_y.mean(case.measured(y))[chosen],
        case.of_y.covariance[np.ix_(chosen, chosen)],
    )


@pytest.mark.parametrize("channel", ["masked", "pooled"])
def test_exact_encoders_give_the_closed_form(channel, float64):
    case = linear_case(channel)
    run = partial(
        aevb.conditional_log_likelihood,
        *exact(case),
        prior=case.prior,
        temperatures=aevb.linear_temperatures(4),
        num_chains=3,
        num_leapfrog_steps=2,
        step_size=0.3,
        step_size_y=0.2,
    )
    x = jnp.array(X)
    y = jnp.where(case.free[LATENT_DIM:], jnp.nan, x) if channel == "masked" else case.y
    estimate = jax.jit(run)(jax.random.key(0), x, y)
    np.testing.assert_allclose(
        estimate.log_likelihood, truth(case, x, y), rtol=1e-6, atol=1e-6
    )
    given = case.observe.given(x).log_prob(y)
    np.testing.assert_allclose(
        estimate.log_likelihood, estimate.whole + given - estimate.seen, rtol=1e-12
    )
    assert estimate.std_error < 1e-6
    assert estimate.log_likelihood.dtype == jnp.float64


@pytest.fixture(scope="module")
def sandwiches():
    """500 simulated datapoints, of exact encoders and of others; the truth of each."""
    case = linear_case("noisy")

    @jax.jit
    def run(shift, widen):
        encode, encode_y, decode, observe = exact(case)
        encode, encode_y = off(encode, shift, widen), off(encode_y, shift, widen)
        one = partial(
            aevb.conditional_bdmc,
            encode,
            encode_y,
            decode,
            observe,
            prior=case.prior,
            temperatures=aevb.linear_temperatures(6),
            num_chains=2,
            num_leapfrog_steps=3,
            step_size=0.2,
            step_size_y=0.3,
        )
        return jax.vmap(one)(jax.random.split(jax.random.key(2), 500))

    both, of_exact = run(1.0, 1.5), run(0.0, 1.0)
    expected = [truth(case, x, y) for x, y in zip(both.x, both.y, strict=True)]
    return case, both, of_exact, np.array(expected)


def test_exact_encoders_close_the_sandwich(sandwiches):
    _, _, both, expected = sandwiches
    for bound in (both.lower, both.upper):
        np.testing.assert_allclose(bound.log_likelihood, expected, rtol=1e-5, atol=5e-5)
        assert np.all(bound.std_error < 3e-3)  # the root of what is rounded


def test_the_truth_is_between_the_bounds(sandwiches, z_score):
    _, both, _, expected = sandwiches
    assert z_score(both.lower.log_likelihood - expected, 0.0) < -4.9
    assert z_score(both.upper.log_likelihood - expected, 0.0) > 4.9


def test_each_part_has_the_expected_weight(sandwiches, z_score):
    """E[p̂(x)] = p(x) forward, E[1/p̂(x)] = 1/p(x) in reverse; and of y."""
    case, both, _, expected = sandwiches
    encode, encode_y, decode, observe = exact(case)

    @jax.jit
    @jax.vmap
    def parts(x, y):
        """p(z) p(v|z) / p(z|v) is p(v), at any z."""
        z = case.prior.loc
        p = decode(z)
        whole = p.log_prob(x) - encode(x).log_prob(z)
        seen = observe(p).log_prob(y) - encode_y(y).log_prob(z)
        log_prior = case.prior.log_prob(z)
        return whole + log_prior, seen + log_prior, observe.given(x).log_prob(y)

    whole, seen, given = parts(both.x, both.y)
    np.testing.assert_allclose(whole + given - seen, expected, rtol=1e-4, atol=1e-4)
    assert abs(z_score(jnp.exp(both.lower.whole - whole), 1.0)) < 4.9
    assert abs(z_score(jnp.exp(both.upper.seen - seen), 1.0)) < 4.9
    assert abs(z_score(jnp.exp(whole - both.upper.whole), 1.0)) < 4.9
    assert abs(z_score(jnp.exp(seen - both.lower.seen), 1.0)) < 4.9


def test_simulated_data_are_those_of_the_model(sandwiches, z_score):
    case, both, *_ = sandwiches
    prior = case.prior
    assert np.all(np.abs(z_score(both.z, prior.loc)) < 4.9)
    means = jax.vmap(lambda z: case.decode(z).loc)(both.z)
    assert np.all(np.abs(z_score(both.x - means, 0.0)) < 4.9)
    assert np.all(np.abs(z_score(both.y - both.x, 0.0)) < 4.9)
    assert np.all(np.abs(z_score((both.y - both.x) ** 2, 0.25)) < 4.9)


def test_flipped_pixels_have_the_answer_of_quadrature():
    """With the step sizes of a preliminary run on the path to p(z|y)."""
    decode, observe = bernoulli_decoder(2, data_dim=6), aevb.flipped(0.2)
    x = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    y = jnp.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    start = lambda value: standard_normal(2)  # noqa: E731
    run = partial(
        aevb.conditional_log_likelihood,
        start,
        start,
        decode,
        observe,
        temperatures=aevb.sigmoid_temperatures(40),
        num_chains=500,
        num_leapfrog_steps=3,
        step_size=0.5,
    )
    estimate = jax.jit(run)(jax.random.key(3), x, y)
    integrate = partial(aevb.quadrature, latent_dim=2, num_points=61, limit=6.0)
    whole, seen = (
        jax.jit(partial(integrate, model))(value)
        for model, value in ((decode, x), (lambda z: observe(decode(z)), y))
    )
    given = observe.given(x).log_prob(y)
    expected = whole.log_likelihood + given - seen.log_likelihood
    assert estimate.std_error < 0.05
    assert abs(estimate.log_likelihood - expected) < 4.9 * estimate.std_error


def blurred(p):
    """p(y|z) of a function alone."""
    return p


def test_a_channel_without_given_is_named():
    case = linear_case("masked")
    path = {"temperatures": aevb.linear_temperatures(3), "prior": case.prior}
    model = case.of_x.encode, case.of_x.encode, case.decode, blurred
    key, x = jax.random.key(0), jnp.zeros(4)
    calls = (
        lambda: aevb.conditional_log_likelihood(*model, key, x, x, **path),
        lambda: aevb.conditional_bdmc(*model, key, **path),
    )
    for call in calls:
        with pytest.raises(TypeError, match="observe is blurred, which has no given"):
            jax.eval_shape(call)
