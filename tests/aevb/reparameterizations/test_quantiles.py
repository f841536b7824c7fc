"""Quantiles and their gradients, to 1e-30 of both tails, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import CASES, HAS_QUANTILE
from scipy.special import log_ndtr, ndtri_exp

from aevb import reparameterizations as rep

LEVELS = np.float32([1e-30, 1e-10, 1e-3, 0.2, 0.45])
INF = np.inf


def _by_tail(lower, upper):
    return lambda p, q, *parameters: np.where(
        p < 0.5, lower(p, *parameters), upper(q, *parameters)
    )


def _triangular(p, q, low, mode, high):
    width = high - low
    from_low = low + np.sqrt(np.maximum(p * width * (mode - low), 0))
    from_high = high - np.sqrt(np.maximum(q * width * (high - mode), 0))
    return np.where(p < (mode - low) / width, from_low, from_high)


def _log(p, q):
    with np.errstate(divide="ignore"):
        return np.where(p < 0.5, np.log(p), np.log1p(-q))


# z of p and q = 1 − p, each exact where it is small.
FORMULAS = {
    "Exponential": lambda p, q, rate: -_log(q, p) / rate,
    "Cauchy": _by_tail(
        lambda p, loc, s: loc - s / np.tan(np.pi * p),
        lambda q, loc, s: loc + s / np.tan(np.pi * q),
    ),
    "Rayleigh": lambda p, q, s: s * np.sqrt(-2 * _log(q, p)),
    "Pareto": lambda p, q, a, m: m * np.exp(-_log(q, p) / a),
    "Weibull": lambda p, q, k, s: s * (-_log(q, p)) ** (1 / k),
    "Gompertz": lambda p, q, a, b: np.log1p(-_log(q, p) / a) / b,
    "Gumbel": lambda p, q, loc, s: loc - s * np.log(-_log(p, q)),
    "LogUniform": lambda p, q, low, high: low**q * high**p,
    "Kumaraswamy": lambda p, q, a, b: (-np.expm1(_log(q, p) / b)) ** (1 / a),
    "Laplace": _by_tail(
        lambda p, loc, s: loc + s * np.log(2 * p),
        lambda q, loc, s: loc - s * np.log(2 * q),
    ),
    "Logistic": lambda p, q, loc, s: loc + s * (_log(p, q) - _log(q, p)),
    "Uniform": lambda p, q, low, high: q * low + p * high,
    "Triangular": _triangular,
}


def truncated_normal(p, q, loc, scale, low, high):
    a, b = (low - loc) / scale, (high - loc) / scale
    with np.errstate(all="ignore"):
        log_p, log_q = _log(p, q), _log(q, p)
        upper = np.logaddexp(log_q + log_ndtr(-a), log_p + log_ndtr(-b))
        lower = np.logaddexp(log_q + log_ndtr(a), log_p + log_ndtr(b))
        z = np.where(upper < lower, -ndtri_exp(upper), ndtri_exp(lower))
    return loc + scale * z


def both_tails(shape):
    """(p, q) of both tails, one column a setting. `[2L, J]`"""
    small = np.float64(LEVELS)
    p = np.concatenate([small, 1 - small])[:, None]
    q = np.concatenate([1 - small, small])[:, None]
    return np.broadcast_to(p, (len(p), *shape)), np.broadcast_to(q, (len(p), *shape))


def differences(formula, p, q, columns, size=1e-6):
    """The gradient in each parameter; 0 in an end at infinity."""
    grads = []
    for which, column in enumerate(columns):
        is_finite = np.isfinite(column)
        step = np.where(is_finite, size * np.maximum(np.abs(column), 1e-2), 1)
        sides = []
        for sign in (1, -1):
            moved = list(columns)
            moved[which] = column + sign * step
            sides.append(formula(p, q, *moved))
        with np.errstate(invalid="ignore"):
            grads.append(np.where(is_finite, (sides[0] - sides[1]) / (2 * step), 0))
    return np.stack(grads)


def quantiles(make, columns):
    """z of both tails, and its gradients. `[2L, J]`, `[P, 2L, J]`"""
    levels = jnp.asarray(LEVELS)[:, None] * jnp.ones((1, len(columns[0])))

    @jax.jit
    def evaluate(*spread):
        lower, pull = jax.vjp(lambda *c: make(*c).quantile(levels), *spread)
        upper, push = jax.vjp(lambda *c: make(*c).upper_quantile(levels), *spread)
        grads = pull(jnp.ones_like(lower)), push(jnp.ones_like(upper))
        return jnp.concatenate([lower, upper]), [
            jnp.concatenate(pair) for pair in zip(*grads, strict=True)
        ]

    spread = [np.broadcast_to(np.float32(c), levels.shape) for c in columns]
    z, grads = evaluate(*map(jnp.asarray, spread))
    return np.float64(z), np.stack(grads).astype(np.float64)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_quantiles_are_exact_in_both_tails(name):
    case = CASES[name]
    columns = case.parameters()
    p, q = both_tails(columns[0].shape)
    with np.errstate(all="ignore"):
        truth = FORMULAS[name](p, q, *columns)
    z, grads = quantiles(case.make, columns)
    # Beyond it float32 has no numbers, and a draw is moved to where it has.
    is_told = (np.abs(truth) < 1e28) & ((truth < 0) | (truth > 1e-37))
    low, high = (np.broadcast_to(end, truth.shape) for end in case.family().ends)
    # loc + s e is rounded as loc is.
    size = np.abs(truth)
    if name in {"Cauchy", "Gumbel", "Laplace", "Logistic", "Uniform", "Triangular"}:
        size = size + sum(np.abs(column) for column in columns)
    with np.errstate(all="ignore"):
        error = np.where(is_told, np.abs(z - truth) / size, 0)
    assert np.max(error) < 1e-5, np.max(error, axis=0)
    assert np.all((z > low) & (z < high))
    assert np.all(np.isfinite(z))

    with np.errstate(all="ignore"):
        expected = differences(FORMULAS[name], p, q, columns)
        is_known = is_told & np.isfinite(expected) & (np.abs(expected) > 1e-37)
        is_known &= np.abs(expected) < 1e37
        if name == "Triangular":  # a mode at an end has no difference of both sides
            is_known &= (columns[0] < columns[1]) & (columns[1] < columns[2])
        # A difference knows no more than the rounding of z over its step.
        noise = 1e-14 * size / (2e-6 * np.maximum(np.abs(columns), 1e-2))[:, None]
        error = (np.abs(grads - expected) - noise) / np.abs(expected)
        error = np.where(is_known, error, 0)
    assert np.all(np.isfinite(grads))
    assert np.max(error) < 1e-5, np.max(error, axis=1)


# The mass 20 and 1000 standard deviations out, both ends near, none; and what peers
# fail at: truncated_normal(5.5, 1e6) and low = 20 of a standard normal.
TRUNCATED = [
    (0, 1, 20, INF),
    (0, 1, 5.5, 1e6),
    (0, 1, -INF, -20),
    (0, 1, -20, 20),
    (0, 1, -INF, INF),
    (0, 1, 3, INF),
    (0, 1, 1.5, 4),
    (0, 1, -1, 2),
    (0, 1, 20, 20.5),
    (2, 0.5, 3, 7),
    (0, 1, 0, INF),
    (0, 1, -5, -1),
    (0, 1, 0.5, 30.0),
    (1, 2, -39, -37),
    (0, 1, 100, INF),
    (-1000, 1, 0, INF),
]


def test_truncated_normal_in_the_tails():
    columns = list(np.float64(TRUNCATED).T)
    p, q = both_tails(columns[0].shape)
    truth = truncated_normal(p, q, *columns)
    z, grads = quantiles(rep.TruncatedNormal, columns)
    assert np.all(np.isfinite(z))
    low, high = columns[2:]
    assert np.all((z > low) & (z < high))
    size = np.maximum(np.abs(truth), 1e-6)[:, :-1]
    error = np.abs(z - truth)[:, :-1] / size
    assert np.max(error) < 3e-6, np.max(error, axis=0)
    # 1000 deviations out the excess is exponential, of rate a + 1/a, up to 1e-6.
    excess = -_log(q, p)[:, -1] / (1000 + 1e-3)
    is_near = excess < 3e-3  # its square is nothing
    np.testing.assert_allclose(z[is_near, -1], excess[is_near], rtol=5e-6)
    np.testing.assert_allclose(z[:, -1], excess, rtol=1e-4)

    expected = differences(truncated_normal, p, q, columns, size=1e-5)[:, :, :-1]
    assert np.all(np.isfinite(grads))
    largest = np.max(np.abs(expected), axis=0)
    error = np.max(np.abs(grads[:, :, :-1] - expected), axis=0) / largest
    assert np.max(error) < 1e-5, np.max(error, axis=0)


@pytest.mark.parametrize("name", HAS_QUANTILE)
def test_the_most_extreme_noise_stays_inside(name):
    """u is 2⁻³³ from an end at the least: `uniform_level` draws nothing beyond."""
    columns = CASES[name].parameters(np.float32, extremes=True)
    family = CASES[name].make(*map(jnp.asarray, columns))
    low, high = (np.broadcast_to(end, family.shape) for end in family.ends)

    @jax.jit
    def evaluate(family):
        zs = family.quantile(2.0**-33), family.upper_quantile(2.0**-33)
        return [(z, family.log_probs(z)) for z in zs]

    for z, log_p in evaluate(family):
        assert np.all((z > low) & (z < high))
        assert np.all(np.isfinite(log_p))


def test_a_level_has_its_logarithms_in_both_tails():
    p = np.float32([1e-30, 1e-10, 0.3, 0.5])
    for level, other in (
        (rep.lower_level(jnp.asarray(p)), False),
        (rep.upper_level(jnp.asarray(p)), True),
    ):
        logs = (level.log_q, level.log_p) if other else (level.log_p, level.log_q)
        np.testing.assert_allclose(logs[0], np.log(np.float64(p)), rtol=3e-7)
        np.testing.assert_allclose(logs[1], np.log1p(-np.float64(p)), rtol=3e-7)
        np.testing.assert_array_equal(level.tail, p)


def test_uniform_levels_are_uniform_in_both_tails():
    """Of a million, the least tails on either side are those of a million."""
    level = jax.jit(lambda key: rep.uniform_level(key, (1_000_000,), jnp.float32))(
        jax.random.key(0)
    )
    is_lower = np.asarray(level.is_lower)
    assert abs(is_lower.mean() - 0.5) < 4.9 * 0.5e-3
    for side in (is_lower, ~is_lower):
        least = np.min(np.asarray(level.tail)[side])
        # P(least > 14e-6) = e^-14, P(least < 1e-12) = 1e-6.
        assert 1e-12 < least < 14e-6
    assert np.all(level.tail >= 2.0**-33)
    np.testing.assert_allclose(np.float64(level.p) + level.q, 1, rtol=1e-7)
