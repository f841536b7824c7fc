"""Changes of variables, and families that a user makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import CASES

import aevb
from aevb import reparameterizations as rep

INF = np.inf
Y = np.array([-3.0, 0.2, 1.7])
TRANSFORMS = {
    "identity": (rep.Identity(), Y),
    "affine": (rep.Affine(np.array([1.0, -2.0, 3.0]), np.array([0.5, -2.0, 3.0])), Y),
    "exp": (rep.Exp(), Y),
    "power": (rep.Power(np.array([0.5, -2.0, 3.0])), np.exp(Y)),
    "sigmoid": (rep.Sigmoid(), Y),
    "simplex": (rep.Simplex(), Y),
    "inverse": (rep.Inverse(rep.Exp()), np.exp(Y)),
    "inverse simplex": (rep.Inverse(rep.Simplex()), np.array([0.2, 0.3, 0.1, 0.4])),
    "compose": (rep.compose(rep.Affine(1.0, 2.0), rep.Exp(), rep.Power(-0.5)), Y),
    "compose simplex": (rep.compose(rep.Affine(1.0, 2.0), rep.Simplex()), Y),
    "positive": (rep.interval(0.0, INF), Y),
    "above": (rep.interval(2.0, INF), Y),
    "below": (rep.interval(-INF, 2.0), Y),
    "unit": (rep.interval(0.0, 1.0), Y),
    "between": (rep.interval(-2.0, 5.0), Y),
    "line": (rep.interval(-INF, INF), Y),
    "arrays": (
        rep.interval(np.array([1.0, -INF, -2.0]), np.array([INF, 2.0, 5.0])),
        Y,
    ),
    "array above none": (rep.interval(-INF, np.array([1.0, INF, 2.0])), Y),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_inverse_and_log_det(name, float64):
    transform, y = TRANSFORMS[name]
    y = jnp.asarray(y)
    z = transform.forward(y)
    np.testing.assert_allclose(transform.inverse(z), y, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(transform.forward(transform.inverse(z)), z, rtol=1e-12)

    def free(y):  # a simplex has one coordinate that the others fix
        z = transform.forward(y)
        return z[: len(y)] if len(z) > len(y) else z

    if name == "inverse simplex":
        jacobian = jax.jacobian(
            lambda head: transform.forward(
                jnp.concatenate([head, 1 - jnp.sum(head, keepdims=True)])
            )
        )(y[:-1])
    else:
        jacobian = jax.jacobian(free)(y)
    log_det = transform.log_det(y)
    truth = jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(jnp.sum(log_det), truth, rtol=1e-10, atol=1e-12)
    assert log_det.shape == (y.shape if transform.elementwise else ())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_a_pytree(name):
    transform, y = TRANSFORMS[name]
    transform, y = jax.tree.map(jnp.float32, (transform, y))
    result, same = jax.jit(lambda t, y: (t.forward(y), t))(transform, y)
    np.testing.assert_allclose(result, transform.forward(y), rtol=1e-6)
    assert type(same) is type(transform)
    assert jax.vmap(transform.forward)(y[None]).shape == (1, *result.shape)


def test_intervals_stay_inside_at_extreme_numbers():
    y = jnp.float32([-1e4, -100.0, 0.0, 100.0, 1e4])
    for low, high in [(0.0, INF), (0.0, 1.0)]:
        z = rep.interval(low, high).forward(y)
        assert np.all((z > low) & (z < high))
    z = rep.Simplex().forward(y)
    assert np.all((z > 0) & (z < 1))
    assert np.all(np.isfinite(jax.jacobian(rep.Simplex().forward)(y)))


def test_the_support_of_a_family_survives_jit():
    """Inside, an infinite end is an array: of a half-line, not of an interval."""
    q = rep.TruncatedNormal(jnp.zeros(2), jnp.ones(2), 1.0)
    y = jnp.array([-1.0, 2.0])
    truth = 1.0 + jnp.exp(y)
    np.testing.assert_allclose(q.support.forward(y), truth, rtol=1e-6)
    value, grads = jax.jit(
        jax.value_and_grad(lambda q, y: jnp.sum(q.support.forward(y)))
    )(q, y)
    np.testing.assert_allclose(value, jnp.sum(truth), rtol=1e-6)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def weibull(k, s):
    return rep.inverse_cdf(
        lambda level, k, s: s * (-level.log_q) ** (1 / k),
        lambda z, k, s: jnp.log(k / s) + (k - 1) * jnp.log(z / s) - (z / s) ** k,
        k,
        s,
        ends=(0.0, INF),
    )


def laplace(loc, s):
    def sample(key, shape, dtype):
        level = rep.uniform_level(key, shape, dtype)
        size = -jnp.log(2 * level.tail)
        return jnp.where(level.is_lower, -size, size)

    return rep.location_scale(sample, lambda e: -jnp.abs(e) - jnp.log(2.0), loc, s)


def log_normal(loc, log_scale):
    return rep.transformed(aevb.DiagNormal(loc, log_scale), rep.Exp())


def beta(a, b):
    return rep.transformed(rep.LogBetaOdds(a, b), rep.Sigmoid())


def exponential(rate):
    return rep.numerical_inverse_cdf(
        lambda z, rate: -jnp.expm1(-rate * z),
        lambda z, rate: jnp.log(rate) - rate * z,
        rate,
        bracket=(0.0, 100.0),
        num_steps=60,
    )


# The user's family, the built-in one, its parameters.
USERS = {
    "inverse CDF": (weibull, rep.Weibull, ([1.5, 0.7], [2.0, 0.3])),
    "location-scale": (laplace, rep.Laplace, ([1.5, -0.7], [2.0, 0.3])),
    "composition": (log_normal, rep.LogNormal, ([0.5, -0.7], [0.2, -0.3])),
    "composition of a family": (beta, rep.Beta, ([1.5, 0.7], [2.0, 0.3])),
    "numerical": (exponential, rep.Exponential, ([1.5, 0.7],)),
}


@pytest.mark.parametrize("name", USERS)
def test_a_family_of_a_user_is_the_built_in_one(name, float64):
    """Density, draws and gradients; through jit, vmap and grad."""
    make, built_in, columns = USERS[name]
    columns = [jnp.array(column) for column in columns]

    def evaluate(q, key):
        z = q.sample(key)
        return jnp.sum(jnp.tanh(z)) + q.log_prob(z), z

    grad = jax.jit(
        jax.vmap(jax.value_and_grad(evaluate, has_aux=True), (None, 0)),
    )
    keys = jax.random.split(jax.random.key(0), 100)
    results = []
    for q in (make(*columns), built_in(*columns)):
        (value, z), grads = grad(q, keys)
        results.append([value, z, *jax.tree.leaves(grads)])
        assert type(grads) is type(q)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_a_density_of_a_user_is_zero_outside():
    q = weibull(jnp.float32([1.5, 2.0]), jnp.float32(1.0))
    assert q.log_prob(jnp.array([-1.0, 1.0])) == -np.inf
    grads = jax.grad(lambda q: q.log_probs(jnp.array([-1.0, 1.0]))[1])(q)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def test_a_numerical_inverse_has_the_quantiles_and_their_gradients(float64):
    from jax.scipy.stats import norm

    def make(loc, scale):
        return rep.numerical_inverse_cdf(
            norm.cdf, norm.logpdf, loc, scale, bracket=(-50.0, 50.0), num_steps=60
        )

    args = jnp.array([1.0]), jnp.array([2.0])
    for p in (1e-6, 0.3, 0.99):
        z, grads = jax.value_and_grad(
            lambda *args, p=p: jnp.sum(make(*args).quantile(p)), (0, 1)
        )(*args)
        e = float(jax.scipy.special.ndtri(p))
        np.testing.assert_allclose(z, 1 + 2 * e, rtol=1e-9)
        np.testing.assert_allclose(grads[0], 1, rtol=1e-8)
        np.testing.assert_allclose(grads[1], e, rtol=1e-8)


@pytest.mark.parametrize("bracket", [(0.0, INF), (-INF, 0.0), (1.0, 1.0), (2.0, 1.0)])
def test_a_bracket_that_is_none_is_an_error(bracket):
    with pytest.raises(ValueError, match="expected two finite numbers that increase"):
        rep.numerical_inverse_cdf(jnp.sin, jnp.sin, 1.0, bracket=bracket)


@pytest.mark.parametrize("name", CASES)
def test_a_family_is_a_pytree(name):
    """Of its parameters; a row of vmap is the single call."""
    case = CASES[name]
    q = case.family(np.float32)
    columns = case.parameters(np.float32)
    for leaf, column in zip(jax.tree.leaves(q), columns, strict=True):
        np.testing.assert_array_equal(leaf, column)
    assert jax.tree.structure(q) == jax.tree.structure(case.make(*columns))
    assert hash(jax.tree.structure(q)) is not None


def test_the_support_of_what_has_none_is_an_error():
    with pytest.raises(TypeError, match="no support that is known here"):
        rep.support_of(aevb.Bernoulli(jnp.zeros(1)))
    with pytest.raises(TypeError, match="pass transform="):
        rep.support_of(object())
