"""Densities and means against scipy.stats; shapes, supports, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from family_cases import CASES

from aevb import reparameterizations as rep

LEVELS = np.array([1e-12, 1e-3, 0.1, 0.4999, 0.77, 0.999])
each_family = pytest.mark.parametrize("name", CASES)


def points(name):
    """z at levels of both tails. `[2L, J]`"""
    truth = CASES[name].frozen()
    levels = LEVELS[:, None]
    with np.errstate(all="ignore"):
        return np.concatenate([truth.ppf(levels), truth.isf(levels)])


def log_probs(family, zs):
    return np.asarray(jax.jit(jax.vmap(family.log_probs))(jnp.asarray(zs)))


def ends(family):
    return [np.broadcast_to(end, family.shape) for end in family.ends]


@each_family
def test_log_probs_are_those_of_scipy(name, float64):
    case, zs = CASES[name], points(name)
    truth = case.frozen().logpdf(zs)
    low, high = ends(case.family())
    # Where scipy's z is an end to rounding, a density is anything.
    is_inside = (zs > low) & (zs < high) & np.isfinite(truth) & (np.abs(zs) > 1e-290)
    assert is_inside.mean() > 0.7
    values = log_probs(case.family(), zs)
    np.testing.assert_allclose(
        values[is_inside], truth[is_inside], rtol=1e-9, atol=1e-9
    )


@each_family
def test_float32_is_close_to_float64(name, float64):
    case = CASES[name]
    low, high = ends(case.family())
    with np.errstate(over="ignore"):
        zs = np.float32(points(name))
    is_inside = (zs > low) & (zs < high) & (np.abs(zs) > 1e-37) & (np.abs(zs) < 1e29)
    zs = np.where(is_inside, zs, np.float32(case.frozen().ppf(0.5)))
    values = log_probs(case.family(np.float32), zs)
    assert values.dtype == np.float32
    truth = log_probs(case.family(), np.float64(zs))
    # What cancels: shapes times log z, and the normaliser, of up to 1e4 log 1e4.
    sizes = sum(np.where(np.isfinite(p), np.abs(p), 0) for p in case.parameters())
    sizes = sizes * (1 + np.abs(np.log(np.maximum(np.abs(zs), 1e-37))))
    np.testing.assert_array_less(
        np.abs(values - truth), 1e-6 * (1 + np.abs(truth) + sizes)
    )


@each_family
def test_outside_of_the_support_the_density_is_zero(name):
    """And its gradient is finite, though the formula has none there."""
    family = CASES[name].family(np.float32)
    low, high = ends(family)
    zs = np.stack([low - 0.5 - 0.01 * np.abs(low), high + 0.5 + 0.01 * np.abs(high)])
    zs = np.where(np.isfinite(zs), zs, family.support.forward(jnp.zeros(family.shape)))

    @jax.jit
    @jax.vmap
    def evaluate(z):
        def total(family, z):
            values = family.log_probs(z)
            return jnp.sum(jnp.where(jnp.isfinite(values), values, 0)), values

        return jax.grad(total, (0, 1), has_aux=True)(family, z)

    grads, values = evaluate(jnp.asarray(zs))
    is_outside = (zs < low) | (zs > high)
    assert np.all(values[is_outside] == -np.inf)
    assert np.all(np.isfinite(values[~is_outside]))
    for leaf in jax.tree.leaves(grads):
        assert np.all(np.isfinite(leaf))


@each_family
def test_the_mean_is_that_of_scipy(name, float64):
    case = CASES[name]
    if not hasattr(type(case.family()), "mean"):
        assert name in {"Cauchy", "Gompertz", "LogBetaOdds"}
        return
    truth = np.broadcast_to(case.frozen().mean(), case.family().shape)
    if name == "StudentT":  # its mean is not infinite, but not defined
        truth = np.where(np.isinf(truth), np.nan, truth)
    mean = jax.jit(lambda family: family.mean)
    np.testing.assert_allclose(mean(case.family()), truth, rtol=1e-7)
    means = mean(case.family(np.float32))
    assert means.dtype == np.float32
    is_small = ~(np.abs(truth) > 1e35)
    np.testing.assert_allclose(means[is_small], truth[is_small], rtol=2e-5)


@each_family
def test_the_variance_is_that_of_scipy(name, float64):
    case = CASES[name]
    if not hasattr(type(case.family()), "variance"):
        return
    truth = np.broadcast_to(case.frozen().var(), case.family().shape)
    variance = jax.jit(lambda family: family.variance)
    np.testing.assert_allclose(variance(case.family()), truth, rtol=1e-7)
    variances = variance(case.family(np.float32))
    assert variances.dtype == np.float32
    is_small = ~(np.abs(truth) > 1e35)
    np.testing.assert_allclose(variances[is_small], truth[is_small], rtol=2e-5)


@each_family
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_and_the_shape_are_those_of_the_parameters(name, dtype, float64):
    family = CASES[name].family(np.dtype(dtype))
    z = jax.eval_shape(family.sample, jax.random.key(0))
    assert z.dtype == dtype
    assert z.shape == family.shape == (len(CASES[name].settings),)
    assert jax.eval_shape(family.log_prob, z).shape == ()
    terms = jax.eval_shape(family.log_probs, z)
    assert (terms.shape, terms.dtype) == (z.shape, dtype)


@each_family
def test_a_value_of_another_shape_is_an_error(name):
    family = CASES[name].family(np.float32)
    for shape in [(), (1,), (*family.shape, 1), (2, *family.shape)]:
        with pytest.raises(ValueError, match="z has shape"):
            jax.eval_shape(family.log_prob, jnp.zeros(shape))


@each_family
def test_a_number_serves_every_dimension(name, float64):
    """The first parameter is one number beside vectors."""
    case = CASES[name]
    columns = case.parameters()
    if len(columns) == 1:
        return
    full = [jnp.full(3, column[0]) for column in columns]
    one = [jnp.asarray(columns[0][0]), *full[1:]]
    z = jnp.full(3, case.frozen().ppf(0.4)[0])

    def evaluate(family):  # not jitted: families have operations in common
        return family.log_probs(z), family.sample(jax.random.key(0))

    expected, results = (evaluate(case.make(*p)) for p in (full, one))
    np.testing.assert_allclose(results, expected, rtol=1e-12)
    assert len(set(np.asarray(results[1]))) == 3
    for which in range(len(columns)):
        mixed = [f if i == which else f[0] for i, f in enumerate(full)]
        assert case.make(*mixed).shape == (3,)


class TestDirichlet:
    a = np.array([0.05, 2.0, 30.0, 1.0])

    def test_log_prob_and_mean(self, float64):
        q = rep.Dirichlet(jnp.asarray(self.a))
        z = np.array([0.1, 0.2, 0.6, 0.1])
        truth = st.dirichlet(self.a)
        np.testing.assert_allclose(q.log_prob(z), truth.logpdf(z), rtol=1e-12)
        np.testing.assert_allclose(q.mean, truth.mean(), rtol=1e-14)
        np.testing.assert_allclose(q.variance, truth.var(), rtol=1e-12)
        # The logarithms of ratios: the density over z's first coordinates, times Π z.
        y = q.transform.inverse(z)
        value = rep.LogRatios(jnp.asarray(self.a)).log_prob(y) - np.log(z).sum()
        np.testing.assert_allclose(value, truth.logpdf(z), rtol=1e-12)

    def test_of_two_it_is_a_beta(self, float64):
        a, z = jnp.array([0.7, 3.0]), jnp.array([0.2, 0.8])
        beta = rep.Beta(a[0], a[1]).log_prob(z[0])
        np.testing.assert_allclose(rep.Dirichlet(a).log_prob(z), beta, rtol=1e-12)

    def test_another_shape_is_an_error(self):
        with pytest.raises(ValueError, match="z has shape"):
            rep.Dirichlet(jnp.ones(3)).log_prob(jnp.ones(2))
        with pytest.raises(ValueError, match="y has shape"):
            rep.LogRatios(jnp.ones(3)).log_prob(jnp.ones(3))


class TestElliptical:
    loc = np.array([1.0, -2.0, 0.5])
    scale_tril = np.array([[1.5, 0, 0], [-0.3, 0.7, 0], [0.2, 0.4, 2.0]])
    z = np.array([0.3, 1.0, -2.0])

    def make(self, radius):
        return rep.Elliptical(
            jnp.asarray(self.loc), jnp.asarray(self.scale_tril), radius
        )

    def test_of_chi_squared_squares_it_is_normal(self, float64):
        root = rep.Power(0.5)
        q = self.make(rep.transformed(rep.ChiSquared(jnp.float64(3.0)), root))
        cov = self.scale_tril @ self.scale_tril.T
        truth = st.multivariate_normal.logpdf(self.z, self.loc, cov)
        np.testing.assert_allclose(q.log_prob(self.z), truth, rtol=1e-12)

    def test_of_an_f_distribution_it_is_a_multivariate_t(self, float64):
        scaled_root = rep.compose(rep.Affine(0.0, 3.0), rep.Power(0.5))
        radius = rep.FisherSnedecor(jnp.float64(3.0), jnp.float64(4.5))
        q = self.make(rep.transformed(radius, scaled_root))
        cov = self.scale_tril @ self.scale_tril.T
        truth = st.multivariate_t.logpdf(self.z, self.loc, cov, 4.5)
        np.testing.assert_allclose(q.log_prob(self.z), truth, rtol=1e-12)

    def test_another_shape_is_an_error(self):
        q = self.make(rep.Exponential(jnp.float32(1.0)))
        with pytest.raises(ValueError, match="z has shape"):
            q.log_prob(jnp.zeros(2))
