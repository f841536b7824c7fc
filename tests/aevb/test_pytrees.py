"""z may be a pytree, through every estimator of log p(x), HMC and AIS."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import aevb
from aevb import testing

KEY = jax.random.key(0)
WEIGHTS = jax.random.normal(jax.random.key(10), (6, 3))
FLAT = testing.linear_gaussian(WEIGHTS, jnp.ones(6), -0.5)
X = jnp.linspace(-1.0, 2.0, 6)
TRUTH = FLAT.log_likelihood(X)


def split(flat):
    """Two latent leaves of other shapes, in the order in which they are raveled."""
    return {"first": flat[:1, None], "second": flat[1:]}


def join(z):
    assert jax.tree.map(jnp.shape, z) == {"first": (1, 1), "second": (2,)}
    return jnp.concatenate([z["first"].ravel(), z["second"]])


@jax.tree_util.register_pytree_node_class
class Split:
    """The distribution of `split(z)` where z has the one given."""

    def __init__(self, flat):
        self.flat = flat

    def sample(self, key):
        return split(self.flat.sample(key))

    def log_prob(self, z):
        return self.flat.log_prob(join(z))

    def tree_flatten(self):
        return (self.flat,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def decode(z):
    return FLAT.decode(join(z))


def encode(x):
    return Split(FLAT.best_encode(x))


PRIOR = aevb.DiagNormal(split(jnp.zeros(3)), split(jnp.zeros(3)))
FLAT_PRIOR = aevb.DiagNormal(jnp.zeros(3), jnp.zeros(3))
PATH = {
    "temperatures": aevb.sigmoid_temperatures(12),
    "num_chains": 5,
    "num_leapfrog_steps": 3,
}


def reverse(encode, decode, key, x, **options):
    z = encode(x).sample(jax.random.key(5))
    return aevb.reverse_annealed_log_likelihood(
        encode, decode, key, x, z, **PATH, step_size=0.2, **options
    )


ESTIMATORS = {
    "log_weight": aevb.log_weight,
    "elbo_generic": partial(aevb.elbo_generic, num_samples=3),
    "stop_score": partial(aevb.elbo_generic, num_samples=3, stop_score=True),
    "iwae": partial(aevb.iwae, num_samples=7),
    "importance": partial(aevb.importance_log_likelihood, num_samples=30, chunk_size=7),
    "annealed": partial(aevb.annealed_log_likelihood, **PATH),
    "adapt": partial(aevb.annealed_log_likelihood, **PATH, adapt=aevb.nudge_step_size),
    "reverse": reverse,
    "step_sizes": partial(
        aevb.annealing_step_sizes,
        temperatures=aevb.sigmoid_temperatures(12),
        num_leapfrog_steps=3,
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_two_leaves_are_the_one_vector_they_make(name):
    """The same noise, so the same number, up to the order of sums; the prior given, or
    not.
    """
    one = partial(ESTIMATORS[name], FLAT.best_encode, FLAT.decode, prior=FLAT_PRIOR)
    flat = jax.tree.leaves(jax.jit(one)(KEY, X))
    for prior in (PRIOR, None):
        two = jax.jit(partial(ESTIMATORS[name], encode, decode, prior=prior))(KEY, X)
        if hasattr(two, "zs"):
            two = two._replace(zs=jax.vmap(join)(two.zs))
        for value, expected in zip(jax.tree.leaves(two), flat, strict=True):
            np.testing.assert_allclose(value, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["log_weight", "iwae", "importance", "annealed"])
def test_with_the_exact_posterior_every_weight_is_p(name):
    def posterior(x):
        return Split(FLAT.posterior(x))

    value = jax.jit(partial(ESTIMATORS[name], posterior, decode))(KEY, X)
    np.testing.assert_allclose(jax.tree.leaves(value)[0], TRUTH, rtol=1e-5)
    if name == "annealed":
        np.testing.assert_allclose(value.log_weights, TRUTH, rtol=1e-5)


def test_annealing_from_the_prior_has_the_expected_weight(z_score):
    run = partial(
        aevb.annealed_log_likelihood,
        lambda x: PRIOR,  # two leaves, and so two keys: noise of its own
        decode,
        temperatures=aevb.sigmoid_temperatures(30),
        num_chains=4000,
        num_leapfrog_steps=5,
        step_size=0.2,
    )
    estimate = jax.jit(run)(KEY, X)
    assert abs(z_score(jnp.exp(estimate.log_weights - TRUTH), 1.0)) < 4.9
    assert estimate.std_error < 0.05


def test_both_bounds_of_simulated_data(z_score):
    run = partial(
        aevb.bdmc,
        lambda x: PRIOR,
        decode,
        prior=PRIOR,
        temperatures=aevb.linear_temperatures(40),
        num_chains=4,
        num_leapfrog_steps=5,
        step_size=0.2,
    )
    sandwich = jax.jit(jax.vmap(run))(jax.random.split(KEY, 400))
    assert jax.tree.map(jnp.shape, sandwich.z) == {
        "first": (400, 1, 1),
        "second": (400, 2),
    }
    truth = jax.vmap(FLAT.log_likelihood)(sandwich.x)
    forward = jnp.exp(sandwich.lower.log_weights - truth[:, None])
    backward = jnp.exp(truth[:, None] - sandwich.upper.log_weights)
    assert abs(z_score(jnp.mean(forward, axis=1), 1.0)) < 4.9
    assert abs(z_score(jnp.mean(backward, axis=1), 1.0)) < 4.9


@pytest.fixture(scope="module")
def draws():
    starts = jax.vmap(PRIOR.sample)(jax.random.split(jax.random.key(2), 200))
    run = partial(aevb.sample_posterior, decode, num_samples=200, num_burn_in=200)
    return jax.jit(run)(jax.random.key(1), X, starts)


def test_draws_by_hmc_have_the_exact_posterior(draws, z_score):
    assert jax.tree.map(jnp.shape, draws.zs) == {
        "first": (200, 200, 1, 1),
        "second": (200, 200, 2),
    }
    assert jax.tree.map(jnp.shape, draws.r_hat) == {"first": (1, 1), "second": (2,)}
    for r_hat in jax.tree.leaves(draws.r_hat):
        np.testing.assert_allclose(r_hat, 1, atol=0.01)
    posterior = FLAT.posterior(X)
    zs = jax.vmap(jax.vmap(join))(draws.zs)
    assert np.all(np.abs(z_score(jnp.mean(zs, axis=1), posterior.loc)) < 4.9)
    centred = zs - posterior.loc[None, None, :]
    second = jnp.einsum("cli,clj->cij", centred, centred) / 200
    covariance = posterior.scale_tril @ posterior.scale_tril.T
    assert np.all(np.abs(z_score(second, covariance)) < 4.9)


def test_the_chains_are_those_of_the_one_vector():
    starts = jax.random.normal(KEY, (2, 3))
    options = {"num_samples": 3, "num_burn_in": 4, "step_size": 0.2}
    run = partial(aevb.sample_posterior, **options)
    one = jax.jit(partial(run, FLAT.decode))(KEY, X, starts)
    two = jax.jit(partial(run, decode))(KEY, X, jax.vmap(split)(starts))
    joined = jax.vmap(jax.vmap(join))(two.zs)
    np.testing.assert_allclose(joined, one.zs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(two.step_size, one.step_size, rtol=1e-4)


@pytest.mark.parametrize("fit", [aevb.fit_normal, aevb.fit_kernel_density])
def test_the_reciprocal_estimate_fits_raveled_draws(draws, fit):
    zs = jax.tree.map(lambda leaf: leaf[:20, ::4], draws.zs)
    run = partial(aevb.reciprocal_log_likelihood, fit=fit)
    two = jax.jit(partial(run, decode))(X, zs)
    flat = jax.vmap(jax.vmap(join))(zs)
    one = jax.jit(partial(run, FLAT.decode))(X, flat)
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert abs(two.log_likelihood - TRUTH) < 0.3


def test_a_point_has_the_gradient_of_the_raveled_position():
    z = split(jnp.array([0.3, -1.0, 2.0]))
    point = aevb.point_at([partial(aevb.log_joint, decode, x=X)], z)
    gradient = jax.grad(lambda z: aevb.log_joint(decode, z, X))(z)
    np.testing.assert_allclose(point.grads[0], ravel_pytree(gradient)[0], rtol=1e-6)
    moved, _ = aevb.hmc_step(
        [partial(aevb.log_joint, decode, x=X)],
        jnp.ones(1),
        KEY,
        point,
        0.05,
        num_leapfrog_steps=2,
    )
    assert jax.tree.structure(moved) == jax.tree.structure(point)


def test_a_posterior_of_two_leaves_is_optimised():
    start = aevb.DiagNormal(split(jnp.zeros(3)), split(jnp.zeros(3)))
    run = partial(
        aevb.optimize_posterior, decode, optimizer=optax.sgd(0.02), num_steps=2000
    )
    local = jax.jit(run)(KEY, X, start)
    best = FLAT.best_encode(X)
    np.testing.assert_allclose(join(local.posterior.loc), best.loc, atol=0.05)
    np.testing.assert_allclose(
        join(local.posterior.log_scale), best.log_scale, atol=0.05
    )
