"""Weighted draws, resampling, and the answers that draws give."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from exact_answers import linear_case

import aevb

UNEVEN = jnp.log(jnp.array([0.03, 0.31, 0.0, 0.22, 0.07, 0.37]))


def counts(key, log_weights, num_samples):
    """How often each draw comes."""
    chosen = aevb.resample(
        key, jnp.arange(len(log_weights)), log_weights, num_samples=num_samples
    )
    return jnp.bincount(chosen, length=len(log_weights))


# Resampling.


@pytest.mark.parametrize("num_samples", [1, 7, 50])
def test_counts_are_the_weights_rounded_and_on_average_the_weights(
    num_samples, z_score
):
    run = jax.jit(jax.vmap(partial(counts, num_samples=num_samples), (0, None)))
    drawn = np.asarray(run(jax.random.split(jax.random.key(0), 5000), UNEVEN))
    expected = num_samples * np.exp(np.asarray(UNEVEN, np.float64))
    assert np.all(drawn >= np.floor(expected))
    assert np.all(drawn <= np.ceil(expected))
    assert np.all(drawn.sum(axis=1) == num_samples)
    varied = drawn.std(axis=0) > 0
    assert np.sum(varied) >= 4
    assert np.all(np.abs(z_score(drawn[:, varied], expected[varied])) < 4.9)


def test_the_order_is_that_of_the_draws_in_every_leaf():
    values = {"index": jnp.arange(6), "row": jnp.arange(12.0).reshape(6, 2)}
    chosen = aevb.resample(jax.random.key(1), values, UNEVEN, num_samples=9)
    assert np.all(np.diff(chosen["index"]) >= 0)
    np.testing.assert_array_equal(chosen["row"], values["row"][chosen["index"]])


@pytest.mark.parametrize("constant", [1000.0, -1000.0])
def test_weights_need_not_sum_to_one(constant):
    log_weights = jnp.array([-0.25, 0.5, -0.5, -jnp.inf, 0.0])  # exact, and so the sums
    keys = jax.random.split(jax.random.key(2), 100)
    run = jax.jit(jax.vmap(partial(counts, num_samples=11), (0, None)))
    np.testing.assert_array_equal(
        run(keys, log_weights + constant), run(keys, log_weights)
    )


@pytest.mark.parametrize("index", [0, 2, 4])
def test_one_weight_has_everything(index):
    log_weights = jnp.full(5, -jnp.inf).at[index].set(-3.0)
    drawn = jax.vmap(partial(counts, num_samples=8), (0, None))(
        jax.random.split(jax.random.key(3), 200), log_weights
    )
    assert np.all(drawn[:, index] == 8)


@pytest.mark.parametrize("num_samples", [8, 1000])
def test_a_weight_of_zero_is_never_chosen_not_even_at_the_ends(num_samples):
    """With the offset nearest to 1 and that nearest to 0 of a million keys."""
    keys = jax.random.split(jax.random.key(4), 1_000_000)
    offsets = jax.jit(jax.vmap(jax.random.uniform))(keys)
    log_weights = jnp.array([-jnp.inf, -1.0, -jnp.inf, -2.0, -jnp.inf])
    for key in (keys[jnp.argmax(offsets)], keys[jnp.argmin(offsets)]):
        drawn = counts(key, log_weights, num_samples)
        np.testing.assert_array_equal(drawn[::2], 0)


# Weighted draws.


def test_weighted_draws_are_those_of_importance_sampling():
    case = linear_case("noisy")
    encode = lambda y: case.of_y.diagonal(y, (0.5, 0.5), 1.3)  # noqa: E731
    decode = lambda z: case.observe(case.decode(z))  # noqa: E731

    @jax.jit
    def run(key, y):
        model = encode, decode, key, y
        draws = aevb.weighted_draws(*model, prior=case.prior, num_samples=300)

        def log_weight(z):
            joint = aevb.log_joint(decode, z, y, prior=case.prior)
            return joint - encode(y).log_prob(z)

        estimate = aevb.importance_log_likelihood(
            *model, prior=case.prior, num_samples=300, chunk_size=70
        )
        return draws, estimate, jax.vmap(log_weight)(draws.zs)

    draws, estimate, again = run(jax.random.key(5), case.y)
    np.testing.assert_allclose(draws.log_weights, again, rtol=1e-4)
    for name in ("log_likelihood", "ess", "std_error", "pareto_k"):
        np.testing.assert_allclose(
            getattr(draws, name), getattr(estimate, name), rtol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("channel", ["masked", "noisy", "pooled"])
def test_the_exact_posterior_of_y_weighs_every_draw_the_same(channel):
    case = linear_case(channel)
    run = partial(
        aevb.weighted_draws,
        lambda y: case.of_y.encode(case.measured(y)),
        lambda z: case.observe(case.decode(z)),
        prior=case.prior,
        num_samples=30,
    )
    draws = jax.jit(run)(jax.random.key(6), case.y)
    np.testing.assert_allclose(draws.log_weights, draws.log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(draws.ess, 30, rtol=1e-5)


# A mixture of encoders.


def mixture(prior_share):
    """Over x = -3, 0 and 1, with a prior that is not the standard normal."""
    encode = lambda x: aevb.DiagNormal(x, x / 4)  # noqa: E731
    prior = aevb.DiagNormal(jnp.array([5.0]), jnp.array([0.5]))
    xs = jnp.array([[-3.0], [0.0], [1.0]])
    return aevb.encoder_mixture(encode, xs, prior=prior, prior_share=prior_share)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_mixture_has_the_density_of_its_parts_and_draws_them(share, z_score):
    q = mixture(share)
    locs, scales = np.array([-3, 0, 1, 5]), np.exp([-0.75, 0, 0.25, 0.5])
    shares = np.array([(1 - share) / 3] * 3 + [share])
    zs = jnp.linspace(-9.0, 12.0, 40)
    density = scipy.stats.norm.pdf(np.asarray(zs)[:, None], locs, scales) @ shares
    log_prob = jax.jit(jax.vmap(lambda z: q.log_prob(z[None])))(zs)
    np.testing.assert_allclose(log_prob, np.log(density), rtol=1e-5, atol=1e-5)
    keys = jax.random.split(jax.random.key(10), 20_000)
    draws = np.asarray(jax.jit(jax.vmap(q.sample))(keys))[:, 0]
    for low, high in ((-9, -3), (-3, -1), (-1, 0), (0, 1), (1, 4), (4, 12)):
        below = scipy.stats.norm.cdf(np.array([[low], [high]]), locs, scales) @ shares
        inside = (draws > low) & (draws < high)
        assert abs(z_score(inside, below[1] - below[0])) < 4.9


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_a_mixture_of_the_prior_alone_is_refused(share):
    with pytest.raises(ValueError, match=f"prior_share is {share}, expected at least"):
        mixture(share)


# Answers.

DECODE = lambda z: aevb.Bernoulli(jnp.stack([z[0], -z[0], 2 * z[0]]))  # noqa: E731
HALF = aevb.masked(jnp.array([True, False, False]))
SEEN = jnp.array([1.0, 0.0, 0.0])
ZS = jnp.array([[-1.0], [0.5], [2.0]])


def test_the_mean_is_the_mean_of_means():
    mean = aevb.posterior_mean(DECODE, HALF, SEEN, ZS)
    sigmoid = jax.nn.sigmoid(jnp.array([-ZS[:, 0], 2 * ZS[:, 0]]))
    np.testing.assert_allclose(mean[1:], jnp.mean(sigmoid, axis=1), rtol=1e-6)
    assert mean[0] == 1


@pytest.mark.parametrize("is_weighted", [True, False])
def test_what_is_seen_is_exact_whatever_the_weights_sum_to_in_float32(is_weighted):
    """A third is seen of grey pixels, with 200 sets of 999 weights."""

    @jax.jit
    @jax.vmap
    def seen(key):
        y = jnp.array([1 / 3, 0.0])
        zs, log_weights = jax.random.normal(key, (2, 999))
        mean = aevb.posterior_mean(
            lambda z: aevb.DiagNormal(jnp.tile(z, 2), jnp.zeros(2)),
            aevb.masked(jnp.array([True, False])),
            y,
            zs[:, None],
            log_weights=log_weights if is_weighted else None,
        )
        return mean[0] - y[0]

    assert np.all(seen(jax.random.split(jax.random.key(0), 200)) == 0)


def test_weights_of_draws_are_as_good_as_copies_of_them():
    """Three times the first, none of the second, twice the third."""
    log_weights = jnp.log(jnp.array([3.0, 0.0, 2.0])) + 200
    copies = ZS[jnp.array([0, 0, 0, 2, 2])]
    x = jnp.array([1.0, 0.0, 1.0])
    for answer in (aevb.posterior_mean, partial(aevb.predictive_log_prob, x=x)):
        weighted = answer(DECODE, HALF, SEEN, ZS, log_weights=log_weights)
        np.testing.assert_allclose(
            weighted, answer(DECODE, HALF, SEEN, copies), rtol=1e-5
        )


def test_the_score_of_one_draw_is_its_log_density_of_what_is_missing():
    x, z = jnp.array([1.0, 0.0, 1.0]), ZS[2]
    score = aevb.predictive_log_prob(DECODE, HALF, SEEN, z[None], x)
    p = DECODE(z)
    np.testing.assert_allclose(score, jnp.sum(p.log_probs(x)[1:]), rtol=1e-6)


def test_restored_draws_have_their_own_noise_and_what_was_seen(z_score):
    zs = jnp.tile(jnp.array([[0.3]]), (4000, 1))
    xs = aevb.restored_draws(DECODE, HALF, jax.random.key(7), SEEN, zs)
    np.testing.assert_array_equal(xs[:, 0], 1)
    expected = jax.nn.sigmoid(jnp.array([-0.3, 0.6]))
    assert np.all(np.abs(z_score(xs[:, 1:], expected)) < 4.9)
    together = expected[0] * expected[1]
    assert abs(z_score(xs[:, 1] * xs[:, 2], together)) < 4.9


def test_answers_of_a_pytree_of_dimensions():
    decode = lambda z: aevb.DiagNormal({"a": z, "b": -z}, {"a": z, "b": z})  # noqa: E731
    y = {"a": jnp.array([5.0]), "b": jnp.array([jnp.nan])}
    observe = aevb.masked({"a": jnp.array(True), "b": jnp.array(False)})
    log_weights = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    mean = aevb.posterior_mean(decode, observe, y, ZS, log_weights=log_weights)
    np.testing.assert_allclose(mean["a"], 5)
    np.testing.assert_allclose(mean["b"], -0.125)
    xs = aevb.restored_draws(decode, observe, jax.random.key(8), y, ZS)
    interval = aevb.credible_interval(xs)
    np.testing.assert_array_equal(interval.median["a"], 5)
    np.testing.assert_allclose(interval.median["b"], jnp.median(xs["b"], axis=0))


def test_the_mode_is_the_likelier_value_of_each_pixel():
    mean = {"a": jnp.array([0.0, 0.49, 0.51, 1.0]), "b": jnp.float32(0.9)}
    mode = aevb.marginal_mode(mean)
    np.testing.assert_array_equal(mode["a"], [0, 0, 1, 1])
    assert mode["b"] == 1
    assert mode["a"].dtype == mean["a"].dtype


def test_the_interval_holds_its_mass_of_the_draws():
    draws = jax.random.normal(jax.random.key(9), (1001, 2)) * jnp.array([[1.0, 9.0]])
    for mass in (0.5, 0.9):
        interval = aevb.credible_interval(draws, mass=mass)
        inside = (draws > interval.lower[None]) & (draws < interval.upper[None])
        np.testing.assert_allclose(jnp.mean(inside, axis=0), mass, atol=2e-3)
        np.testing.assert_allclose(
            interval.median, jnp.median(draws, axis=0), rtol=1e-5
        )


# Errors.


def blurred(p):
    """p(y|z) of a function alone."""
    return p


def test_a_channel_without_restore_is_named():
    calls = (
        lambda: aevb.restored_draws(DECODE, blurred, jax.random.key(0), SEEN, ZS),
        lambda: aevb.posterior_mean(DECODE, blurred, SEEN, ZS),
        lambda: aevb.predictive_log_prob(DECODE, blurred, SEEN, ZS, SEEN),
    )
    for call in calls:
        with pytest.raises(TypeError, match="observe is blurred, which has no restore"):
            call()


@pytest.mark.parametrize("mass", [0, 1, -0.5, 90])
def test_a_mass_of_none_or_all_is_refused(mass):
    with pytest.raises(ValueError, match=f"mass is {mass}, expected strictly between"):
        aevb.credible_interval(jnp.zeros((3, 1)), mass=mass)
