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
