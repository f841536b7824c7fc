"""Independent parts as one distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevb

KEY = jax.random.key(0)


def normal(seed, dim):
    loc, log_scale = np.random.default_rng(seed).normal(size=(2, dim))
    return aevb.DiagNormal(jnp.float32(loc), jnp.float32(log_scale / 2))


# Not in the order of its names: JAX sorts them.
PARTS = {"z": normal(0, 2), "noise": normal(1, 3)}
JOINT = aevb.Product(PARTS)
FLAT = aevb.DiagNormal(
    *(
        jnp.concatenate([getattr(PARTS[name], field) for name in ("z", "noise")])
        for field in ("loc", "log_scale")
    )
)


def test_its_density_is_that_of_one_normal_over_all_parts():
    z = JOINT.sample(KEY)
    flat = jnp.concatenate([z["z"], z["noise"]])
    np.testing.assert_allclose(JOINT.log_prob(z), FLAT.log_prob(flat), rtol=1e-6)
    assert JOINT.mean == {"z": PARTS["z"].loc, "noise": PARTS["noise"].loc}


def test_its_divergence_is_the_sum_over_parts():
    other = {"z": normal(2, 2), "noise": normal(3, 3)}
    truth = sum(aevb.kl_divergence(PARTS[name], other[name]) for name in PARTS)
    found = aevb.kl_divergence(JOINT, aevb.Product(other))
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    assert aevb.kl_divergence(JOINT, JOINT) == 0


def test_a_product_of_products():
    nested = aevb.Product((JOINT, normal(2, 1)))
    z = nested.sample(KEY)
    truth = JOINT.log_prob(z[0]) + nested.parts[1].log_prob(z[1])
    np.testing.assert_allclose(nested.log_prob(z), truth, rtol=1e-6)


def test_parts_are_independent(z_score):
    """The correlation of two draws from one key would be 1."""
    two = aevb.Product((normal(0, 1), normal(0, 1)))
    first, second = jax.vmap(two.sample)(jax.random.split(KEY, 20_000))
    product = (first - two.mean[0][None]) * (second - two.mean[1][None])
    assert np.abs(z_score(product, 0.0)) < 4.9


def test_what_jax_rebuilds_draws_the_same():
    rebuilt = jax.tree.map(lambda leaf: leaf, JOINT)
    jax.tree.map(np.testing.assert_array_equal, rebuilt.sample(KEY), JOINT.sample(KEY))
    alone = aevb.Product({"z": PARTS["z"]}).sample(KEY)["z"]
    np.testing.assert_array_equal(alone, PARTS["z"].sample(KEY))


def test_other_parts_are_an_error():
    with pytest.raises(ValueError, match="the same parts in both"):
        aevb.kl_divergence(JOINT, aevb.Product({"z": PARTS["z"]}))
    with pytest.raises(ValueError, match=r"[Dd]ict"):
        JOINT.log_prob({"z": jnp.zeros(2)})
