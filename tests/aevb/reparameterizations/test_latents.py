"""Families as latents: in the bounds, and on the real line for HMC and annealing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevb
from aevb import reparameterizations as rep

X = jnp.array([1.3, 0.4])


def rows(*values):
    return [jnp.float32(value) for value in values]


# q(z|x) and p(z) of two or three dimensions.
LATENTS = {
    "Gamma": (rep.Gamma, rows([2.0, 0.3], [1.5, 0.7]), rows([1.0, 2.0], 1.0)),
    "Beta": (rep.Beta, rows([2.0, 0.3], [1.5, 0.7]), rows([1.0, 2.0], 1.0)),
    "Dirichlet": (rep.Dirichlet, rows([2.0, 0.3, 1.0]), rows([1.0, 2.0, 0.7])),
    "LogNormal": (rep.LogNormal, rows([0.2, 0.3], [-0.5, 0.1]), rows([0.0, 0.5], 0.3)),
    "Weibull": (rep.Weibull, rows([2.0, 0.8], [1.5, 0.7]), rows([1.0, 2.0], 1.0)),
    "Pareto": (rep.Pareto, rows([2.0, 3.0], [0.5, 0.7]), rows([1.0, 1.5], [0.5, 0.7])),
}


def decode(z):
    return aevb.DiagNormal(z[:2], jnp.float32(-0.7))


def families(name):
    make, q, p = LATENTS[name]
    return make(*q), make(*p)


# Weibull has the transform of Gamma, which is what differs here.
@pytest.mark.parametrize("name", [name for name in LATENTS if name != "Weibull"])
def test_log_weights_are_the_same_on_the_real_line(name):
    """Draw for draw: T(y) is z, and log p(x, y) − log q(y|x) is log p(x, z) − log q."""

    @jax.jit
    def log_weights(q, p, keys):
        model = rep.unconstrained(lambda x: q, decode, p)

        def of(encode, decode, prior, key):
            q = encode(X)
            z = q.sample(key)
            log_joint = prior.log_prob(z) + decode(z).log_prob(X)
            return log_joint - q.log_prob(z), z

        log_w, z = jax.vmap(partial(of, lambda x: q, decode, p))(keys)
        real, y = jax.vmap(partial(of, model.encode, model.decode, model.prior))(keys)
        return log_w, z, real, jax.vmap(model.transform.forward)(y)

    keys = jax.random.split(jax.random.key(0), 300)
    log_w, z, real, back = log_weights(*families(name), keys)
    np.testing.assert_allclose(back, z, rtol=2e-5, atol=1e-6)
    # Of z next to 1 the rounding of z itself is that of 1 − z: y knows more.
    rounding = 1e-6 / np.min(1 - z, axis=1) if name in {"Beta", "Dirichlet"} else 0
    assert np.all(np.abs(real - log_w) < 2e-4 + 1e-4 * np.abs(log_w) + rounding)


@pytest.mark.parametrize("name", ["Dirichlet", "Weibull"])
def test_the_bounds_take_any_family(name):
    """Of q = p the weights are p(x|z); gradients reach every parameter."""
    q, p = families(name)

    @jax.jit
    def evaluate(q, p, keys, xs):
        def generic(q, key, x):
            encode = lambda x: q  # noqa: E731
            elbo = aevb.elbo_generic(encode, decode, key, x, prior=p, stop_score=True)
            bound = aevb.iwae(encode, decode, key, x, prior=p, num_samples=3)
            return elbo.value + bound, elbo

        def estimate(key, x):
            return aevb.importance_log_likelihood(
                lambda x: p, decode, key, x, prior=p, num_samples=20, chunk_size=7
            ).log_likelihood

        def of_itself(key, x):
            return aevb.elbo_generic(lambda x: p, decode, key, x, prior=p)

        grads = jax.vmap(jax.value_and_grad(generic, has_aux=True), (None, 0, 0))
        return (
            grads(q, keys, xs),
            jax.vmap(estimate)(keys, xs),
            jax.vmap(of_itself)(keys, xs),
        )

    xs = jnp.stack([X, X + 1, X - 0.2])
    keys = jax.random.split(jax.random.key(1), 3)
    ((_, elbo), grads), log_p, same = evaluate(q, p, keys, xs)
    np.testing.assert_allclose(same.kl, 0, atol=2e-6)
    np.testing.assert_allclose(same.value, same.reconstruction, rtol=1e-5)
    assert elbo.value.shape == log_p.shape == (3,)
    assert np.all(np.isfinite(log_p))
    for leaf in jax.tree.leaves(grads)[: len(LATENTS[name][1])]:
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


@pytest.mark.parametrize("name", ["Gamma", "Beta", "LogNormal", "Weibull"])
def test_the_bound_with_a_closed_kl_is_the_generic_one_in_the_mean(name, z_score):
    q, p = families(name)
    arguments = lambda x: q, decode

    @jax.jit
    @jax.vmap
    def difference(key):
        closed = aevb.elbo(*arguments, key, X, prior=p)
        generic = aevb.elbo_generic(*arguments, key, X, prior=p)
        return closed.value - generic.value

    draws = difference(jax.random.split(jax.random.key(2), 4_000))
    assert abs(z_score(draws, 0.0)) < 4.9


SEEN = jnp.array([0.9])


def decode_one(z):
    return aevb.DiagNormal(z, jnp.float32(-0.7))


def answer(prior):
    """log p(x) and E[z|x], E[z²|x], by the trapezoidal rule in float64."""
    with jax.enable_x64(True):
        prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), prior)
        y = jnp.linspace(-40, 40, 8001)[:, None]
        z = jax.vmap(prior.support.forward)(y)
        log = jax.vmap(prior.log_prob)(z) + jax.vmap(prior.support.log_det)(y)[:, 0]
        e = (SEEN.astype(z.dtype) - z[:, 0]) * np.exp(0.7)
        log += -0.5 * e**2 + 0.7 - 0.5 * np.log(2 * np.pi)
        weight = np.exp(np.asarray(jnp.where(jnp.isfinite(log), log, -jnp.inf)))
        weight *= 80 / 8000
        z = np.asarray(z[:, 0])
    moments = [np.sum(weight * z**k) / weight.sum() for k in (1, 2)]
    return np.log(weight.sum()), np.array(moments)


def test_posterior_draws_and_annealing_agree_with_quadrature(z_score):
    """Of one dimension, with a gamma prior."""
    prior = rep.Gamma(*rows([2.0], [1.0]))
    log_p_x, moments = answer(prior)

    @jax.jit
    def evaluate(prior):
        model = rep.unconstrained(lambda x: prior, decode_one, prior)
        keys = jax.random.split(jax.random.key(3), 200)
        draws = aevb.sample_posterior(
            model.decode,
            jax.random.key(4),
            SEEN,
            jax.vmap(model.prior.sample)(keys),
            prior=model.prior,
            num_samples=40,
            num_burn_in=60,
        )
        annealed = aevb.annealed_log_likelihood(
            model.encode,
            model.decode,
            jax.random.key(5),
            SEEN,
            prior=model.prior,
            temperatures=aevb.linear_temperatures(8),
            num_chains=1000,
            step_size=0.5,
            num_leapfrog_steps=3,
        )
        zs = jax.vmap(jax.vmap(model.transform.forward))(draws.zs)
        return zs, draws.acceptance, annealed.log_weights

    zs, acceptance, log_w = evaluate(prior)
    assert np.mean(acceptance) > 0.6
    chains = np.asarray(zs, np.float64)[..., 0]
    means = np.stack([np.mean(chains**k, axis=1) for k in (1, 2)], axis=1)
    assert np.all(np.abs(z_score(means, moments)) < 4.9)
    assert abs(z_score(np.exp(np.float64(log_w) - log_p_x), 1.0)) < 4.9


def test_a_gaussian_model_is_left_as_it_is():
    prior = aevb.DiagNormal(jnp.zeros(1), jnp.zeros(1))
    model = rep.unconstrained(lambda x: prior, decode_one, prior)
    assert model.prior is prior
    assert model.encode(SEEN) is prior
    assert model.transform == rep.Identity()


def test_a_transform_may_be_given():
    prior = rep.Gamma(*rows([2.0], [1.0]))
    given = rep.compose(rep.Exp(), rep.Power(2.0))
    model = rep.unconstrained(lambda x: prior, decode_one, prior, transform=given)
    y = jnp.array([0.3])
    z = given.forward(y)
    truth = prior.log_prob(z) + jnp.sum(given.log_det(y))
    np.testing.assert_allclose(model.prior.log_prob(y), truth, rtol=1e-5)
    np.testing.assert_array_equal(model.decode(y).mean, z)
