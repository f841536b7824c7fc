import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import aevb

NAMES = ["normal", "bernoulli", "multivariate"]
KL_PAIRS = [
    ("normal", "normal"),
    ("tree", "tree"),
    ("bernoulli", "bernoulli"),
    ("multivariate", "normal"),
]


def make(name: str, seed: int = 0, dim: int = 3, dtype: str = "float32"):
    """A distribution of each kind, whose parameters the seed changes."""
    a, b = np.random.default_rng(seed).normal(size=(2, dim)).astype(dtype)
    match name:
        case "normal":
            parameters = a, b / 2
        case "tree":
            parameters = {"w": np.outer(a, b), "b": a}, {"w": b[0], "b": b}
        case "bernoulli":
            parameters = (2 * a,)
        case "multivariate":
            parameters = a, np.tril(np.outer(a, b), -1) + np.diag(np.exp(b / 2))
    kinds = {"bernoulli": aevb.Bernoulli, "multivariate": aevb.MultivariateNormal}
    kind = kinds.get(name, aevb.DiagNormal)
    return kind(*jax.tree.map(jnp.asarray, parameters))


@pytest.mark.usefixtures("float64")
class TestOracles:
    """Values against scipy, numpyro and the paper, in double precision."""

    x = np.array([0.0, 1.0, 1.0])
    z = np.array([0.3, -2.0, 5.0])

    def test_diag_normal(self):
        q = make("normal", dtype="float64")
        truth = scipy.stats.norm.logpdf(self.z, q.loc, np.exp(q.log_scale)).sum()
        np.testing.assert_allclose(q.log_prob(self.z), truth, rtol=1e-13)

    def test_multivariate_normal(self):
        q = make("multivariate", dtype="float64")
        scale_tril = np.asarray(q.scale_tril)
        truth = scipy.stats.multivariate_normal.logpdf(
            self.z, q.loc, scale_tril @ scale_tril.T
        )
        np.testing.assert_allclose(q.log_prob(self.z), truth, rtol=1e-13)

    def test_bernoulli(self):
        p = make("bernoulli", dtype="float64")
        y = scipy.special.expit(np.asarray(p.logits))
        np.testing.assert_allclose(p.mean, y, rtol=1e-14)
        truth = scipy.stats.bernoulli.logpmf(self.x, y).sum()
        np.testing.assert_allclose(p.log_prob(self.x), truth, rtol=1e-13)

    def test_bernoulli_of_grey_pixels_is_the_formula_of_appendix_c(self):
        p, x = make("bernoulli", dtype="float64"), np.array([0.25, 0.5, 1.0])
        y = scipy.special.expit(np.asarray(p.logits))
        truth = np.sum(x * np.log(y) + (1 - x) * np.log(1 - y))
        np.testing.assert_allclose(p.log_prob(x), truth, rtol=1e-13)

    def test_kl_of_bernoullis(self):
        q, p = (make("bernoulli", seed, dtype="float64") for seed in (0, 1))
        y_q, y_p = np.asarray(q.mean), np.asarray(p.mean)
        entropies = scipy.special.rel_entr([y_q, 1 - y_q], [y_p, 1 - y_p])
        np.testing.assert_allclose(
            aevb.kl_divergence(q, p), entropies.sum(), rtol=1e-12
        )

    @pytest.mark.parametrize("name", ["normal", "multivariate"])
    def test_kl_of_normals(self, name, standard_promotion):
        import numpyro.distributions as dist

        def multivariate(d):
            if isinstance(d, aevb.DiagNormal):
                d = aevb.MultivariateNormal(d.loc, np.diag(np.exp(d.log_scale)))
            return dist.MultivariateNormal(d.loc, scale_tril=d.scale_tril)

        q, p = make(name, 0, dtype="float64"), make("normal", 1, dtype="float64")
        truth = dist.kl_divergence(multivariate(q), multivariate(p))
        np.testing.assert_allclose(aevb.kl_divergence(q, p), truth, rtol=1e-12)

    def test_kl_from_the_standard_normal_reduces_to_appendix_b(self):
        q = make("normal", dtype="float64")
        loc, log_variance = np.asarray(q.loc), 2 * np.asarray(q.log_scale)
        truth = -0.5 * np.sum(1 + log_variance - loc**2 - np.exp(log_variance))
        p = aevb.DiagNormal(np.zeros(3), np.zeros(3))
        np.testing.assert_allclose(aevb.kl_divergence(q, p), truth, rtol=1e-13)


@pytest.mark.parametrize(("q_name", "p_name"), KL_PAIRS)
def test_kl_is_the_mean_of_a_million_log_ratios(q_name, p_name, z_score):
    q, p = make(q_name, 0, dim=2), make(p_name, 1, dim=2)

    @jax.jit
    def log_ratios(keys):
        zs = jax.vmap(q.sample)(keys)
        return jax.vmap(lambda z: q.log_prob(z) - p.log_prob(z))(zs)

    draws = log_ratios(jax.random.split(jax.random.key(2), 1_000_000))
    assert abs(z_score(draws, aevb.kl_divergence(q, p))) < 4


@pytest.mark.parametrize("name", ["normal", "tree", "bernoulli"])
def test_kl_of_a_distribution_from_itself_is_zero(name):
    assert aevb.kl_divergence(make(name), make(name)) == 0


def test_kl_of_a_multivariate_normal_reduces_to_that_of_a_diagonal_one():
    q, p = make("normal", 0), make("normal", 1)
    full = aevb.MultivariateNormal(q.loc, jnp.diag(jnp.exp(q.log_scale)))
    np.testing.assert_allclose(
        aevb.kl_divergence(full, p), aevb.kl_divergence(q, p), rtol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_mean_and_covariance_of_the_distribution(name, z_score):
    d = make(name)
    keys = jax.random.split(jax.random.key(1), 50_000)
    draws = np.asarray(jax.jit(jax.vmap(d.sample))(keys), np.float64)
    mean = np.asarray(d.mean)
    match name:
        case "normal":
            covariance = np.diag(np.exp(2 * np.asarray(d.log_scale)))
        case "bernoulli":
            covariance = np.diag(mean * (1 - mean))
        case "multivariate":
            covariance = np.asarray(d.scale_tril) @ np.asarray(d.scale_tril).T
    centred = draws - mean
    assert np.all(np.abs(z_score(draws, mean)) < 4.9)
    products = centred[:, :, None] * centred[:, None, :]
    assert np.all(np.abs(z_score(products, covariance)) < 4.9)


def test_draws_are_reparameterised():
    """z = μ + σ ε has dz/dμ = I, dz/dlog σ = σ ε; z = μ + L ε has dz/dL = ε."""
    key = jax.random.key(0)
    q = make("normal")
    jacobian = jax.jit(jax.jacobian(lambda q: q.sample(key)))(q)
    np.testing.assert_array_equal(jacobian.loc, np.eye(3))
    truth = np.diag(np.asarray(q.sample(key)) - np.asarray(q.loc))
    np.testing.assert_allclose(jacobian.log_scale, truth, rtol=1e-5, atol=1e-7)

    q = make("multivariate")
    jacobian = jax.jit(jax.jacobian(lambda q: q.sample(key)))(q)
    np.testing.assert_array_equal(jacobian.loc, np.eye(3))
    eps = np.linalg.solve(q.scale_tril, np.asarray(q.sample(key)) - np.asarray(q.loc))
    truth = np.einsum("ij,k->ijk", np.eye(3), eps)
    np.testing.assert_allclose(jacobian.scale_tril, truth, rtol=1e-5, atol=1e-6)


def test_bernoulli_is_exact_at_extreme_logits():
    grid = np.meshgrid([-1e4, -200.0, -1.0, 0.0, 200.0, 1e4], [0.0, 0.5, 1.0])
    logits, xs = (np.float32(axis.reshape(-1, 1)) for axis in grid)
    values, grads = jax.jit(
        jax.vmap(jax.value_and_grad(lambda logit, x: aevb.Bernoulli(logit).log_prob(x)))
    )(logits, xs)
    truth = np.sum(xs * logits - np.logaddexp(0, np.float64(logits)), axis=1)
    np.testing.assert_allclose(values, truth, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grads, xs - scipy.special.expit(logits), atol=1e-6)


def test_diag_normal_is_finite_at_extreme_log_variances():
    standard = aevb.DiagNormal(jnp.zeros(2), jnp.zeros(2))
    functions = {
        "log_prob": lambda q: q.log_prob(jnp.full(2, 3.0)),
        "kl from": lambda q: aevb.kl_divergence(q, standard),
        "kl to": lambda q: aevb.kl_divergence(standard, q),
        "sample": lambda q: jnp.sum(q.sample(jax.random.key(0))),
    }

    @jax.jit
    @jax.vmap
    def evaluate(log_variance):
        q = aevb.DiagNormal(jnp.full(2, 0.5), jnp.full(2, 0.5 * log_variance))
        return {name: jax.value_and_grad(f)(q) for name, f in functions.items()}

    log_variances = np.array([-80.0, 0.0, 80.0])
    results = evaluate(log_variances)
    for name, leaf in jax.tree_util.tree_leaves_with_path(results):
        assert np.all(np.isfinite(leaf)), name
    truth = 2 * scipy.stats.norm.logpdf(3.0, 0.5, np.exp(0.5 * log_variances))
    np.testing.assert_allclose(results["log_prob"][0], truth, rtol=1e-5)


def test_diag_normal_over_a_pytree_is_the_product_of_its_leaves(z_score):
    q, p = make("tree", 0, dim=2), make("tree", 1, dim=2)

    def leaf(d, name):
        return aevb.DiagNormal(d.loc[name], d.log_scale[name])

    z = q.sample(jax.random.key(0))
    assert jax.tree.map(jnp.shape, z) == {"w": (2, 2), "b": (2,)}
    truth = sum(leaf(q, name).log_prob(z[name]) for name in z)
    np.testing.assert_allclose(q.log_prob(z), truth, rtol=1e-6)
    truth = sum(aevb.kl_divergence(leaf(q, name), leaf(p, name)) for name in z)
    np.testing.assert_allclose(aevb.kl_divergence(q, p), truth, rtol=1e-6)

    # Each leaf has noise of its own.
    keys = jax.random.split(jax.random.key(1), 10_000)
    draws = jax.jit(jax.vmap(q.sample))(keys)
    eps = jax.tree.map(lambda z, loc: np.asarray(z) - np.asarray(loc), draws, q.mean)
    products = eps["w"].reshape(-1, 4, 1) * eps["b"][:, None, :]
    assert np.all(np.abs(z_score(products, 0.0)) < 4.9)


def test_one_log_scale_serves_every_dimension():
    one = aevb.DiagNormal(jnp.arange(3.0), jnp.float32(0.5))
    full = aevb.DiagNormal(jnp.arange(3.0), jnp.full(3, 0.5))
    key, z, p = jax.random.key(0), jnp.ones(3), make("normal")
    np.testing.assert_array_equal(one.sample(key), full.sample(key))
    assert one.log_prob(z) == full.log_prob(z)
    assert aevb.kl_divergence(one, p) == aevb.kl_divergence(full, p)
    assert aevb.kl_divergence(p, one) == aevb.kl_divergence(p, full)


@pytest.mark.parametrize("name", [*NAMES, "tree"])
def test_a_distribution_is_a_pytree(name):
    d = make(name)
    z = d.sample(jax.random.key(0))

    def stopped(d):
        return jax.lax.stop_gradient(d).log_prob(z)

    @jax.jit
    def evaluate(d):
        return d, jax.grad(lambda d: d.log_prob(z))(d), jax.grad(stopped)(d)

    same, grads, stopped_grads = evaluate(d)
    assert type(same) is type(d)
    jax.tree.map(np.testing.assert_array_equal, same, d)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grads))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(stopped_grads))


@pytest.mark.parametrize("name", NAMES)
def test_row_of_vmap_is_the_single_call(name):
    rows = [make(name, seed) for seed in range(4)]
    keys = jax.random.split(jax.random.key(0), 4)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    assert type(batch) is type(rows[0])
    zs = jax.vmap(lambda d, key: d.sample(key))(batch, keys)
    log_probs = jax.vmap(lambda d, z: d.log_prob(z))(batch, zs)
    for row, d in enumerate(rows):
        np.testing.assert_allclose(zs[row], d.sample(keys[row]), rtol=1e-6)
        np.testing.assert_allclose(log_probs[row], d.log_prob(zs[row]), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_dtype_is_that_of_the_parameters(name, dtype, float64):
    if name == "multivariate" and dtype == "bfloat16":
        pytest.skip("no triangular solve in bfloat16")
    d = jax.tree.map(lambda leaf: leaf.astype(dtype), make(name))
    z = jax.eval_shape(d.sample, jax.random.key(0))
    assert z.dtype == d.mean.dtype == jax.eval_shape(d.log_prob, z).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (2, 3), (4,)])
def test_a_value_of_another_shape_is_an_error(name, shape):
    with pytest.raises(ValueError, match=r"has shape .* expected \(3,\)"):
        jax.eval_shape(make(name).log_prob, jnp.zeros(shape))


@pytest.mark.parametrize(("q_name", "p_name"), [KL_PAIRS[0], *KL_PAIRS[2:]])
def test_a_kl_between_different_shapes_is_an_error(q_name, p_name):
    q, p = make(q_name, dim=3), make(p_name, dim=1)
    with pytest.raises(ValueError, match=r"p has shape \(1,\), expected \(3,\)"):
        jax.eval_shape(aevb.kl_divergence, q, p)


def test_a_log_scale_of_more_axes_than_loc_is_an_error():
    q = aevb.DiagNormal(jnp.zeros(()), jnp.zeros(3))
    calls = [
        functools.partial(q.sample, jax.random.key(0)),
        functools.partial(q.log_prob, jnp.zeros(3)),
        functools.partial(aevb.kl_divergence, q, make("normal")),
        functools.partial(aevb.kl_divergence, make("normal"), q),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="log_scale, broadcast with loc, has"):
            jax.eval_shape(call)


@pytest.mark.parametrize(
    ("q_name", "p_name"),
    [("normal", "bernoulli"), ("normal", "multivariate"), ("bernoulli", "normal")],
)
def test_no_closed_form_kl_is_a_type_error_that_names_elbo_generic(q_name, p_name):
    with pytest.raises(TypeError, match=r"pass one as kl=.* aevb\.elbo_generic"):
        jax.eval_shape(aevb.kl_divergence, make(q_name), make(p_name))
