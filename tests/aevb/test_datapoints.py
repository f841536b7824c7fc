"""From one datapoint to many, and to a mean with its errors."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_models import bernoulli_model

import aevb


@pytest.mark.default_flags
@pytest.mark.parametrize(
    ("estimator", "batch_size"),
    [
        (partial(aevb.importance_log_likelihood, num_samples=90, chunk_size=40), 1),
        (partial(aevb.iwae, num_samples=90), 2),
        (partial(aevb.iwae, num_samples=90), 8),
    ],
)
def test_any_split_of_the_data_gives_the_same_bits(estimator, batch_size):
    decode, _ = bernoulli_model(2, data_dim=50)
    encode = lambda x: aevb.DiagNormal(x[:2], x[2:4])  # noqa: E731
    xs = jax.random.bernoulli(jax.random.key(6), 0.4, (21, 50)).astype(jnp.float32)
    evaluate = jax.jit(
        partial(
            aevb.map_datapoints,
            partial(estimator, encode, decode),
            batch_size=batch_size,
        )
    )
    key = jax.random.key(7)
    whole = evaluate(key, xs)
    for size in (1, 4):  # alone; and with a last one that is alone
        parts = [
            evaluate(key, xs[row : row + size], first=row) for row in range(0, 21, size)
        ]
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, whole)


def test_summarize_weights_each_datapoint_once():
    values = jax.random.normal(jax.random.key(1), (3, 10))
    summary = aevb.summarize(values)
    np.testing.assert_allclose(summary.mean, np.mean(values), rtol=1e-6)
    per_point = np.mean(values, axis=0)
    np.testing.assert_allclose(
        summary.std_error, np.std(per_point, ddof=1) / math.sqrt(10), rtol=1e-5
    )
    per_repeat = np.mean(values, axis=1)
    np.testing.assert_allclose(
        summary.repeat_std_error, np.std(per_repeat, ddof=1) / math.sqrt(3), rtol=1e-5
    )
    single = aevb.summarize(values[0])
    assert jnp.isnan(single.repeat_std_error)
    assert jnp.isnan(aevb.summarize(values.at[0, 0].set(jnp.nan)).mean)
    with pytest.raises(ValueError, match=r"expected \[N\]"):
        aevb.summarize(jnp.zeros((2, 2, 2)))


def test_bits_per_dim_counts_the_scaling():
    # A density of 1 per unit of the scaled pixel says nothing: log2(levels) bits.
    assert aevb.bits_per_dim(jnp.zeros(()), num_dims=3, levels=256) == 8
    one_bit = aevb.bits_per_dim(jnp.log(0.5) * 3, num_dims=3, levels=1)
    np.testing.assert_allclose(one_bit, 1, rtol=1e-6)


def test_a_sampled_mean_is_exact_where_the_proxy_tells_the_value():
    proxies = jax.random.normal(jax.random.key(0), (50,))
    values = 3.0 - 2.0 * proxies
    chosen = jnp.array([4, 11, 30, 42])
    found = aevb.sampled_mean(values[chosen], proxies[chosen], proxies)
    np.testing.assert_allclose(found.mean, jnp.mean(values), rtol=1e-5)
    np.testing.assert_allclose(found.slope, -2.0, rtol=1e-5)
    assert found.std_error < 1e-5


def test_a_sampled_mean_and_its_error_are_those_of_repeated_sampling():
    size, num_sampled, num_repeats = 400, 60, 4000
    proxy_key, noise_key, key = jax.random.split(jax.random.key(1), 3)
    proxies = 20 * jax.random.normal(proxy_key, (size,))
    noise = jax.random.normal(noise_key, (size,))
    values = proxies + noise + 0.01 * proxies**2  # not a line

    def once(key):
        chosen = jax.random.permutation(key, size)[:num_sampled]
        return aevb.sampled_mean(values[chosen], proxies[chosen], proxies)

    found = jax.jit(jax.vmap(once))(jax.random.split(key, num_repeats))
    spread = jnp.std(found.mean, ddof=1)
    # The bias of a regression, to first order (Cochran, eq. 7.35).
    p = proxies - jnp.mean(proxies)
    residual = values - jnp.mean(values) - p * jnp.sum(p * values) / jnp.sum(p**2)
    share = num_sampled / size
    expected = -(1 - share) / num_sampled * jnp.sum(residual * p**2) / jnp.sum(p**2)
    bias = jnp.mean(found.mean) - jnp.mean(values)
    tolerance = 4 * spread / num_repeats**0.5
    assert abs(bias - expected) < tolerance + 0.1 * abs(expected)
    assert abs(expected) > tolerance  # the test would see a bias
    stated = jnp.sqrt(jnp.mean(found.std_error**2))
    np.testing.assert_allclose(stated, spread, rtol=0.1)
    # Without a proxy it is the mean of the sample, and its error is the textbook's.
    nothing = jnp.zeros(size)
    plain = aevb.sampled_mean(values[:60], nothing[:60], nothing)
    assert plain.mean == jnp.mean(values[:60])
    expected = jnp.std(values[:60], ddof=2) * jnp.sqrt(1 / 60 - 1 / size)
    np.testing.assert_allclose(plain.std_error, expected, rtol=1e-5)
    assert plain.std_error > 3 * spread


def test_a_sampled_mean_of_all_datapoints_has_no_error():
    values = jax.random.normal(jax.random.key(0), (9,))
    found = aevb.sampled_mean(values, values**2, values**2)
    np.testing.assert_allclose(found.mean, jnp.mean(values), rtol=1e-6)
    assert found.std_error == 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4,), (5,), (9,)), r"shapes \(4,\), \(5,\) and \(9,\)"),
        (((4, 1), (4, 1), (9,)), "expected \\[n\\]"),
        (((2,), (2,), (9,)), "2 values of 9 datapoints, expected at least 3"),
        (((9,), (9,), (5,)), "9 values of 5 datapoints"),
    ],
)
def test_a_sampled_mean_says_what_does_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        aevb.sampled_mean(*(jnp.zeros(shape) for shape in shapes))
