"""Draws in float32: their distribution, their extremes, and their gradients.

The keys are fixed; a correct file fails one in a million sets of keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from family_cases import CASES
from scipy.special import polygamma

from aevb import reparameterizations as rep

NUM_DRAWS = 20_000
# A gamma draw on a CPU is a sequential loop over elements, and so is its gradient; a
# truncated normal is two inversions of tails.
NUM_GAMMA_DRAWS = 4_000
SLOW = {
    *("LogGamma", "Gamma", "ChiSquared", "Erlang", "StudentT"),
    *("LogBetaOdds", "Beta", "FisherSnedecor", "TruncatedNormal"),
}
FALSE_ALARM = 1e-6
NUM_SETTINGS = sum(len(case.settings) for case in CASES.values())

each_family = pytest.mark.parametrize("name", CASES)


def ks_bound(num_draws, num_cases):
    """Massart: P(sup |F_n − F| > d) ≤ 2 exp(−2 n d²)."""
    return np.sqrt(np.log(2 * num_cases / FALSE_ALARM) / (2 * num_draws))


def ks_distance(draws, cdf):
    """sup |F_n − F| over what float32 tells apart.

    A draw stands for all numbers that round to it, so that F is taken half a unit
    above it; where the numbers of float32 end, draws have been moved, and F is no more
    theirs.
    """
    draws = np.sort(draws, axis=0)
    above = np.nextafter(draws, np.float32(np.inf))
    edge = (np.float64(draws) + np.float64(above)) / 2
    count = np.stack(
        [np.searchsorted(c, c, side="right") for c in draws.T], axis=1
    ) / len(draws)
    is_told = (np.abs(draws) < 1e28) & ((draws <= 0) | (draws > 2e-38))
    with np.errstate(all="ignore"):
        distance = np.abs(count - cdf(edge))
    return np.max(np.where(is_told, distance, 0), axis=0)


def num_draws_of(name):
    return NUM_GAMMA_DRAWS if name in SLOW else NUM_DRAWS


@functools.cache
def drawn(name):
    """z, log p(z), and the gradients of both in each parameter, by draw. `[N, J]`"""
    case = CASES[name]
    columns = case.parameters(np.float32, extremes=True)

    @jax.jit
    def evaluate(key, columns):
        def draw(*parameters):
            family = case.make(*parameters)
            z = family.sample(key)
            return z, family.log_probs(z)

        spread = [jnp.broadcast_to(c, (num_draws_of(name), len(c))) for c in columns]
        # One linearisation, of z and of log p(z), is pulled back twice.
        (z, log_p), pull = jax.vjp(draw, *spread)
        ones, zeros = jnp.ones_like(z), jnp.zeros_like(z)
        return z, log_p, pull((ones, zeros)), pull((zeros, ones))

    result = evaluate(jax.random.key(0), [jnp.asarray(c) for c in columns])
    return jax.tree.map(np.asarray, result)


@each_family
def test_draws_are_of_the_distribution_of_scipy(name):
    case = CASES[name]
    draws = drawn(name)[0][:, : len(case.settings)]
    truth = case.frozen()
    top = np.broadcast_to(case.family().ends[1], draws.shape[1:])

    def cdf(z):
        return truth.cdf(np.minimum(z, top))

    distance = ks_distance(draws, cdf)
    bound = ks_bound(num_draws_of(name), NUM_SETTINGS + 20)
    assert np.all(distance < bound), distance


@each_family
def test_no_draw_is_at_an_end_and_nothing_is_infinite(name):
    """Of thousands, with shapes from 1e-3 to 1e5; and no gradient is NaN."""
    z, log_p, grads, log_grads = drawn(name)
    columns = CASES[name].parameters(np.float32, extremes=True)
    family = CASES[name].make(*map(jnp.asarray, columns))
    low, high = (np.broadcast_to(end, z.shape[1:]) for end in family.ends)
    assert np.all(np.isfinite(z))
    assert np.all((z > low) & (z < high))
    assert np.all(np.isfinite(log_p))
    for leaf in (*grads, *log_grads):
        assert np.all(np.isfinite(leaf))


def smooth_step(truth):
    """f(z) = tanh((z − median) / w), w the interquartile range, and f'(z)."""
    median, width = truth.ppf(0.5), truth.ppf(0.75) - truth.ppf(0.25)

    def value(z):
        return np.tanh((z - median) / width)

    def slope(z):
        return (1 - value(z) ** 2) / width

    return value, slope


def expectation(truth, value):
    """E f(z) = ∫ f(F⁻¹(u)) du, by the trapezoidal rule over log u / (1 − u)."""
    t = np.linspace(-36, 36, 2001)[:, None]
    tail, weight = (
        1 / (1 + np.exp(np.abs(t))),
        (t[1] - t[0]) / (4 * np.cosh(t / 2) ** 2),
    )
    with np.errstate(all="ignore"):
        z = np.where(t < 0, truth.ppf(tail), truth.isf(tail))
    return np.sum(weight * value(z), axis=0)


@each_family
def test_the_pathwise_gradient_is_that_of_the_expectation(name, z_score):
    """d/dθ E f(z) of a smooth step, by quadrature and differences in float64."""
    case = CASES[name]
    num_settings = len(case.settings)
    value, slope = smooth_step(case.frozen())
    z, _, grads, _ = drawn(name)
    slopes = slope(np.float64(z[:, :num_settings]))
    bound = st.norm.isf(FALSE_ALARM / 2 / (3 * NUM_SETTINGS))
    columns = case.parameters()
    for which, column in enumerate(columns):
        is_finite = np.isfinite(column)
        step = np.where(is_finite, 2e-6 * np.maximum(np.abs(column), 1e-2), 1)
        sides = []
        for sign in (-1, 1):
            moved = [
                c + sign * step if i == which else c for i, c in enumerate(columns)
            ]
            sides.append(expectation(case.truth(*moved), value))
        truth = np.where(is_finite, (sides[1] - sides[0]) / (2 * step), 0)
        draws = slopes * grads[which][:, :num_settings]
        # Not of a gradient that is 0 in every draw: an end that is far out.
        has_noise = draws.std(axis=0) > 1e-12 * (1 + np.abs(truth))
        score = np.where(has_noise, 0, (draws.mean(axis=0) - truth) / 1e-7)
        score[has_noise] = z_score(draws[:, has_noise], truth[has_noise])
        # A mode at an end has no difference of both sides.
        is_known = np.isfinite(truth)
        assert np.all(is_known) or name == "Triangular"
        assert np.all(np.abs(score[is_known]) < bound), (which, score)


def test_dirichlet_marginals_are_beta():
    a = np.float32([0.05, 2.0, 30.0, 1e3])
    draws = np.asarray(
        jax.jit(lambda keys: jax.vmap(rep.Dirichlet(a).sample)(keys))(
            jax.random.split(jax.random.key(0), NUM_GAMMA_DRAWS)
        )
    )
    np.testing.assert_allclose(draws.sum(axis=1), 1, rtol=1e-6)
    a = np.float64(a)
    distance = ks_distance(draws, st.beta(a, a.sum() - a).cdf)
    bound = ks_bound(NUM_GAMMA_DRAWS, NUM_SETTINGS + 20)
    assert np.all(distance < bound), distance


def test_dirichlet_at_extreme_concentrations():
    def evaluate(a, key):
        def log_prob(a):
            q = rep.Dirichlet(a)
            z = q.sample(key)
            return q.log_prob(z), z

        (log_p, z), grads = jax.value_and_grad(log_prob, has_aux=True)(a)
        return z, log_p, grads, jax.jacobian(lambda a: rep.Dirichlet(a).sample(key))(a)

    keys = jax.random.split(jax.random.key(1), 500)
    each = jax.jit(jax.vmap(evaluate, (None, 0)))
    for a in ([1e-3, 0.01, 3.0], [1e5, 1e-3, 1e-3]):
        result = each(jnp.float32(a), keys)
        assert np.all((result[0] > 0) & (result[0] < 1))
        for leaf in result[1:]:
            assert np.all(np.isfinite(leaf))


def test_dirichlet_pathwise_gradient(z_score):
    """E log z_k = ψ(a_k) − ψ(Σ a), with trigammas for a gradient."""
    a = np.float32([0.3, 2.0, 30.0])
    jacobian = jax.jacobian(lambda a, key: jnp.log(rep.Dirichlet(a).sample(key)))
    keys = jax.random.split(jax.random.key(2), NUM_GAMMA_DRAWS)
    draws = jax.jit(jax.vmap(jacobian, (None, 0)))(a, keys)
    a = np.float64(a)
    truth = np.diag(polygamma(1, a)) - polygamma(1, a.sum())
    assert np.all(np.abs(z_score(draws, truth)) < 6)


def test_elliptical_has_its_radius_and_all_directions():
    scale_tril = np.float32([[1.5, 0, 0], [-0.3, 0.7, 0], [0.2, 0.4, 2.0]])
    loc = np.float32([1.0, -2.0, 0.5])
    q = rep.Elliptical(loc, scale_tril, rep.Gamma(jnp.float32(2.0), jnp.float32(0.7)))
    keys = jax.random.split(jax.random.key(3), NUM_GAMMA_DRAWS)
    draws = np.asarray(jax.jit(jax.vmap(q.sample))(keys))
    whitened = np.linalg.solve(np.float64(scale_tril), (draws - np.float64(loc)).T).T
    radius = np.linalg.norm(whitened, axis=1, keepdims=True)
    bound = ks_bound(NUM_GAMMA_DRAWS, NUM_SETTINGS + 20)
    gamma = st.gamma(2.0, scale=1 / np.float64(np.float32(0.7)))
    assert np.all(ks_distance(np.float32(radius), gamma.cdf) < bound)
    # Archimedes: on the sphere of three dimensions each coordinate is uniform.
    cosines = np.float32(whitened / radius)
    assert np.all(ks_distance(cosines, st.uniform(-1, 2).cdf) < bound)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        angle = np.arctan2(whitened[:, one], whitened[:, other])[:, None]
        uniform = st.uniform(-np.pi, 2 * np.pi)
        assert np.all(ks_distance(np.float32(angle), uniform.cdf) < bound)
    correlation = st.spearmanr(radius[:, 0], cosines[:, 0]).statistic
    assert abs(correlation) < 6 / NUM_GAMMA_DRAWS**0.5


def test_elliptical_gradients_reach_the_radius(z_score):
    """E |z|² = |loc|² + E r² tr L Lᵀ / J, with E r² = a (a + 1) / b² of a gamma."""

    def square(loc, scale_tril, a, b, key):
        z = rep.Elliptical(loc, scale_tril, rep.Gamma(a, b)).sample(key)
        return jnp.sum(z**2)

    scale_tril, loc = np.float32([[1.5, 0], [-0.3, 0.7]]), np.float32([1.0, -2.0])
    grads = jax.grad(square, (0, 1, 2, 3))
    keys = jax.random.split(jax.random.key(4), 10_000)
    draws = jax.jit(jax.vmap(grads, (None, None, None, None, 0)))(
        loc, scale_tril, jnp.float32(2.0), jnp.float32(0.5), keys
    )
    trace = np.sum(np.float64(scale_tril) ** 2)
    truths = 2 * loc, 24 * scale_tril, 5 * 4 * trace / 2, -2 * 24 * trace / 2 / 0.5
    for leaf, truth in zip(draws, truths, strict=True):
        leaf = np.asarray(leaf).reshape(len(keys), -1)
        assert np.all(np.abs(z_score(leaf, np.reshape(truth, -1))) < 6)


A = np.float32([1e-3, 1e-2, 0.1, 0.5, 0.999, 1.0, 3.0, 59.0, 61.0, 1e3, 1e4, 1e6])


def test_the_implicit_gradient_of_log_gamma_draws_is_trigamma_in_the_mean(z_score):
    spread = np.broadcast_to(A, (NUM_GAMMA_DRAWS, len(A)))

    @jax.jit
    def grads(a):
        draw, pull = jax.vjp(lambda a: rep.log_gamma_draw(jax.random.key(5), a), a)
        return pull(jnp.ones_like(draw))[0]

    score = z_score(grads(spread), polygamma(1, np.float64(A)))
    assert np.all(np.abs(score) < 6), score


def test_the_implicit_gradient_is_exact_draw_by_draw():
    """dg/da = −(dF/da) / f, the first by differences in float64, of a ≥ 1."""
    a = np.broadcast_to(A[A >= 1], (500, np.sum(A >= 1)))

    @jax.jit
    def evaluate(a):
        draw, pull = jax.vjp(lambda a: rep.log_gamma_draw(jax.random.key(6), a), a)
        return draw, pull(jnp.ones_like(draw))[0]

    log_draw, grads = (np.float64(leaf) for leaf in evaluate(a))
    a = np.float64(a)
    draw = np.exp(log_draw)
    step = 1e-4 * np.sqrt(a)
    sides = (st.gamma(a + sign * step).cdf(draw) for sign in (1, -1))
    by_a = (next(sides) - next(sides)) / (2 * step)
    truth = -by_a / np.exp(st.gamma(a).logpdf(draw)) / draw
    # Where the CDF itself is not 0 or 1 to the differences.
    is_known = np.abs(st.gamma(a).cdf(draw) - 0.5) < 0.499
    error = np.abs(grads / truth - 1)[is_known]
    assert error.max() < 2e-5, error.max()
