"""Closed-form KL divergences against quadrature with scipy's densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from family_cases import CASES

import aevb
from aevb import reparameterizations as rep
from aevb.divergences import _CLOSED_FORMS

# Two sets of parameters a family.
PARAMETERS = {
    "Gamma": [(2.3, 0.7), (1.4, 1.9)],
    "Exponential": [(1.9,), (0.6,)],
    "ChiSquared": [(3.0,), (4.5,)],
    "Erlang": [(0.4,), (1.3,)],
    "Weibull": [(1.5, 0.7), (2.5, 1.2)],
    "Rayleigh": [(0.7,), (1.9,)],
    "LogNormal": [(0.3, -0.5), (0.7, 0.2)],
    "Beta": [(2.0, 3.0), (1.2, 0.8)],
    "Laplace": [(0.3, 0.7), (-0.2, 1.1)],
    "DiagNormal": [(-0.2, 0.4), (0.5, -0.3)],
    "Gumbel": [(0.3, 0.7), (-0.2, 1.1)],
    "Pareto": [(2.3, 1.7), (1.2, 1.1)],
    "Uniform": [(0.3, 0.7), (-0.2, 1.1)],
    "LogUniform": [(0.3, 0.7), (0.2, 1.1)],
}


def kind(name):
    return aevb.DiagNormal if name == "DiagNormal" else CASES[name].make


def make(name, row):
    return kind(name)(*(jnp.full(1, value) for value in row))


def frozen(name, row):
    if name == "DiagNormal":
        return st.norm(row[0], np.exp(row[1]))
    return CASES[name].truth(*map(np.float64, row))


def pairs():
    """Every pair of families that has a row, but for those tested elsewhere."""
    found = []
    for of_q, of_p, _ in _CLOSED_FORMS:
        names = [
            [k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,))]
            for kinds in (of_q, of_p)
        ]
        found += [(q, p) for q in names[0] for p in names[1]]
    elsewhere = {"MultivariateNormal", "Bernoulli", "Dirichlet", "Product"}
    return [pair for pair in dict.fromkeys(found) if not elsewhere & set(pair)]


PAIRS = pairs()


@jax.jit
def divergences(qs, ps):
    """KL of each pair, and its gradients: one program."""
    return [
        jax.value_and_grad(aevb.kl_divergence, (0, 1))(q, p)
        for q, p in zip(qs, ps, strict=True)
    ]


def quadrature(q, p, num_points):
    """∫ (log q − log p)(F⁻¹(u)) du, by the trapezoidal rule over log u / (1 − u)."""
    t = np.linspace(-45, 45, num_points)
    tail = 1 / (1 + np.exp(np.abs(t)))
    z = np.where(t < 0, q.ppf(tail), q.isf(tail))
    with np.errstate(all="ignore"):
        ratio = q.logpdf(z) - p.logpdf(z)
    weight = (t[1] - t[0]) * tail * (1 - tail)
    # At an end to rounding, of no weight: no density there.
    return np.sum(np.where(np.isfinite(ratio), weight * ratio, 0))


def test_every_pair_is_its_quadrature(float64):
    rows = [(PARAMETERS[q][0], PARAMETERS[p][1]) for q, p in PAIRS]
    qs = [make(name, row[0]) for (name, _), row in zip(PAIRS, rows, strict=True)]
    ps = [make(name, row[1]) for (_, name), row in zip(PAIRS, rows, strict=True)]
    assert len(PAIRS) > 35
    for pair, row, (value, grads) in zip(PAIRS, rows, divergences(qs, ps), strict=True):
        # A kink costs the spacing squared.
        num_points = 60_001 if "Laplace" in pair else 4001
        truth = quadrature(frozen(pair[0], row[0]), frozen(pair[1], row[1]), num_points)
        assert value == pytest.approx(truth, rel=2e-6, abs=1e-7), pair
        assert value > 0, pair
        for leaf in jax.tree.leaves(grads):
            assert np.all(np.isfinite(leaf)), pair


def test_of_a_distribution_from_itself_it_is_zero():
    """And so is its gradient, in float32."""
    names = [name for name, other in PAIRS if name == other]
    ds = [make(name, PARAMETERS[name][0]) for name in names]
    for name, (value, grads) in zip(names, divergences(ds, ds), strict=True):
        assert abs(value) < 2e-6, name
        # An end has none: there the divergence jumps to infinity.
        if name not in {"Pareto", "Uniform", "LogUniform"}:
            for leaf in jax.tree.leaves(grads):
                np.testing.assert_allclose(leaf, 0, atol=5e-6, err_msg=name)


def test_it_is_never_negative():
    """Of 200 random parameters of each pair, up to the rounding of its terms."""
    generator = np.random.default_rng(0)

    def draw(name):
        shape = (200, len(PARAMETERS[name][0]))
        values = np.exp(generator.uniform(-1.5, 1.5, shape))
        if name in {"Uniform", "LogUniform"}:
            values = np.cumsum(values, axis=1)
        return kind(name)(*np.float32(values.T))

    qs, ps = [draw(q) for q, _ in PAIRS], [draw(p) for _, p in PAIRS]
    each = jax.jit(
        lambda qs, ps: [
            jax.vmap(aevb.kl_divergence)(q, p) for q, p in zip(qs, ps, strict=True)
        ]
    )
    for pair, values in zip(PAIRS, each(qs, ps), strict=True):
        assert np.all(np.asarray(values) > -2e-5), (pair, np.min(values))


def test_dirichlet(float64, z_score):
    q, p = (rep.Dirichlet(jnp.array(a)) for a in ([0.7, 2.0, 3.0], [1.5, 0.4, 2.0]))

    @jax.jit
    @jax.vmap
    def log_ratio(key):
        z = q.sample(key)
        return q.log_prob(z) - p.log_prob(z)

    kl = jax.jit(aevb.kl_divergence)
    draws = log_ratio(jax.random.split(jax.random.key(0), 4_000))
    assert abs(z_score(draws, kl(q, p))) < 4.9
    np.testing.assert_allclose(kl(q, q), 0, atol=1e-14)
    # Of two dimensions it is that of betas.
    q, p = (rep.Dirichlet(jnp.array(a)) for a in ([0.7, 2.0], [1.5, 0.4]))
    betas = (rep.Beta(*(a.reshape(1) for a in d.concentration)) for d in (q, p))
    np.testing.assert_allclose(kl(q, p), kl(*betas), rtol=1e-12)


def test_it_is_infinite_where_p_does_not_hold_q():
    for name, inner, outer in [
        ("Uniform", (0.3, 0.7), (0.2, 0.6)),
        ("Uniform", (0.3, 0.7), (0.4, 0.9)),
        ("LogUniform", (0.3, 0.7), (0.4, 0.9)),
        ("Pareto", (2.0, 1.0), (2.0, 1.1)),
    ]:
        assert aevb.kl_divergence(make(name, inner), make(name, outer)) == np.inf
    # Ends in common are inside.
    q, p = make("Uniform", (0.3, 0.7)), make("Uniform", (0.3, 0.9))
    assert aevb.kl_divergence(q, p) == pytest.approx(np.log(1.5), rel=1e-5)


def test_it_is_the_sum_over_dimensions():
    q = rep.Gamma(jnp.array([2.0, 3.0]), jnp.array([1.0, 0.5]))
    p = rep.Gamma(jnp.array([1.0, 0.7]), jnp.array([2.0, 0.5]))
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], (q, p)) for i in range(2)]
    kl = jax.jit(aevb.kl_divergence)
    np.testing.assert_allclose(kl(q, p), sum(kl(*row) for row in rows), rtol=1e-6)
    # One number serves every dimension.
    one = rep.Gamma(jnp.array([2.0, 2.0]), jnp.float32(1.0))
    full = rep.Gamma(jnp.array([2.0, 2.0]), jnp.ones(2))
    np.testing.assert_allclose(kl(one, p), kl(full, p), rtol=1e-6)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        ("Weibull", "LogNormal"),
        ("Gamma", "Beta"),
        ("Gumbel", "DiagNormal"),
        ("DiagNormal", "Gamma"),
        ("Uniform", "Laplace"),
    ],
)
def test_a_pair_without_one_is_a_type_error(q, p):
    with pytest.raises(TypeError, match="no closed-form KL divergence"):
        aevb.kl_divergence(make(q, PARAMETERS[q][0]), make(p, PARAMETERS[p][0]))


def test_families_without_one_are_type_errors():
    without = set(CASES) - {name for pair in PAIRS for name in pair}
    assert without == {
        *("Cauchy", "Gompertz", "Kumaraswamy", "Logistic", "StudentT", "Triangular"),
        *("LogGamma", "LogBetaOdds", "FisherSnedecor", "TruncatedNormal"),
    }
    for name in without:
        q = CASES[name].family(np.float32)
        with pytest.raises(TypeError, match="no closed-form KL divergence"):
            aevb.kl_divergence(q, q)


@pytest.mark.parametrize(("q", "p"), PAIRS)
def test_another_shape_is_an_error(q, p):
    one = make(q, PARAMETERS[q][0])
    other = jax.tree.map(lambda leaf: jnp.tile(leaf, 2), make(p, PARAMETERS[p][0]))
    with pytest.raises(ValueError, match=r"p has shape \(2,\), expected \(1,\)"):
        jax.eval_shape(aevb.kl_divergence, one, other)
