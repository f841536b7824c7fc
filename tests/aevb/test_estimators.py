from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import aevb
from aevb import testing

SIZES = [(1, 1), (2, 4), (12, 5)]  # D, J


def value_of(estimator, **options):
    return lambda *args: estimator(*args, **options).value


# Functions of encode, decode, key and x.
ESTIMATORS = {
    "log_weight": aevb.log_weight,
    "elbo": value_of(aevb.elbo, num_samples=3),
    "elbo_generic": value_of(aevb.elbo_generic, num_samples=3),
    "stop_score": value_of(aevb.elbo_generic, num_samples=3, stop_score=True),
    "iwae": partial(aevb.iwae, num_samples=20),
}
each_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def keys_for(num: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), num)


def linear_model(data_dim: int = 3, latent_dim: int = 2, dtype: str = "float32"):
    """A linear-Gaussian model, and three points of ordinary log p(x)."""
    rng = np.random.default_rng(data_dim)
    weights = rng.normal(size=(data_dim, latent_dim)) / np.sqrt(latent_dim)
    bias = rng.normal(size=data_dim)
    xs = bias + 2 * rng.normal(size=(3, data_dim))
    weights, bias, xs = (jnp.asarray(array, dtype) for array in (weights, bias, xs))
    return testing.linear_gaussian(weights, bias, -0.5), xs


class Network(NamedTuple):
    """A small encoder and decoder; q is not the exact posterior."""

    encoder: jax.Array
    mean: jax.Array
    log_scale: jax.Array
    decoder: jax.Array

    def encode(self, x: jax.Array) -> aevb.DiagNormal:
        h = jnp.tanh(self.encoder @ x)
        return aevb.DiagNormal(self.mean @ h, self.log_scale @ h)

    def decode(self, z: jax.Array) -> aevb.Bernoulli:
        return aevb.Bernoulli(self.decoder @ jnp.tanh(z))


def network(dtype: str = "float32") -> tuple[Network, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (2, 3), (2, 3), (4, 2)]
    model = Network(*(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes))
    return model, jnp.array([[0, 1, 1, 0], [1, 1, 0, 1.0]], dtype)


class TestExactPosterior:
    """With q(z|x) = p(z|x) every weight is p(x), for any key."""

    def check(self, model, xs, rtol):
        encode, decode = model.posterior, model.decode
        truth = jax.vmap(model.log_likelihood)(xs)

        @jax.jit
        @partial(jax.vmap, in_axes=(None, 0))
        @partial(jax.vmap, in_axes=(0, None))
        def estimate(key, x):
            names = ("log_weight", "elbo_generic", "iwae")
            return {name: ESTIMATORS[name](encode, decode, key, x) for name in names}

        for name, bounds in estimate(keys_for(10), xs).items():
            assert bounds.dtype == xs.dtype
            np.testing.assert_allclose(
                bounds.T, np.tile(truth, (10, 1)), rtol=rtol, err_msg=name
            )

    @pytest.mark.parametrize("size", SIZES)
    def test_every_bound_is_log_p(self, size):
        model, xs = linear_model(*size)
        self.check(model, xs, rtol=1e-5)

    @pytest.mark.parametrize("size", SIZES[1:])
    def test_every_bound_is_log_p_in_float64(self, size, float64):
        model, xs = linear_model(*size, "float64")
        self.check(model, xs, rtol=1e-10)

    def test_gradient_without_the_score_is_zero(self, float64):
        model, xs = linear_model(dtype="float64")

        @jax.jit
        @partial(jax.vmap, in_axes=(None, 0))
        def gradients(q, key):
            def bound(q, stop_score):
                return aevb.elbo_generic(
                    lambda x: q, model.decode, key, xs[0], stop_score=stop_score
                ).value

            return jax.grad(bound)(q, True), jax.grad(bound)(q, False)

        stopped, plain = gradients(model.posterior(xs[0]), keys_for(100))
        for leaf in jax.tree.leaves(stopped):
            np.testing.assert_allclose(leaf, 0, atol=1e-12)
        for leaf in jax.tree.leaves(plain):
            assert np.sqrt(np.mean(np.square(leaf))) > 0.1


def test_every_bound_is_log_p_under_another_prior(float64):
    """z = m + s z' turns p(z) = N(m, s²) into the standard normal of z'."""
    rng = np.random.default_rng(0)
    weights, bias, m, s = (
        jnp.asarray(rng.normal(size=shape)) for shape in ((3, 2), 3, 2, 2)
    )
    s = jnp.exp(s)
    standard = testing.linear_gaussian(weights * s[None], bias + weights @ m, 0.0)
    model = testing.linear_gaussian(weights, bias, 0.0)
    x, key = jnp.ones(3), jax.random.key(0)

    def encode(x):
        q = standard.posterior(x)
        return aevb.MultivariateNormal(m + s * q.loc, s[:, None] * q.scale_tril)

    @jax.jit
    def bounds(x):
        args, prior = (encode, model.decode, key, x), aevb.DiagNormal(m, jnp.log(s))
        return (
            aevb.log_weight(*args, prior=prior),
            aevb.elbo_generic(*args, prior=prior).value,
            aevb.iwae(*args, prior=prior, num_samples=5),
        )

    for bound in bounds(x):
        np.testing.assert_allclose(bound, standard.log_likelihood(x), rtol=1e-10)


class TestBestEncoder:
    """The diagonal q whose bound is closed form, and the highest."""

    @staticmethod
    def draws(bound, changes):
        """20 000 draws of the bound of x for each change of (loc, log_scale)."""
        model, xs = linear_model()

        @jax.jit
        @partial(jax.vmap, in_axes=(0, None))
        @partial(jax.vmap, in_axes=(None, 0))
        def draw(change, key):
            q = model.best_encode(xs[0])
            q = aevb.DiagNormal(q.loc + change[:2], q.log_scale + change[2:])
            return bound(lambda x: q, model.decode, key, xs[0])

        changes = jnp.asarray(changes, jnp.float32)
        return np.asarray(draw(changes, keys_for(20_000))), model.best_bound(xs[0])

    @pytest.mark.parametrize("name", ["elbo", "elbo_generic"])
    def test_the_mean_of_the_bound_is_the_closed_form(self, name, z_score):
        draws, truth = self.draws(ESTIMATORS[name], np.zeros((1, 4)))
        assert abs(z_score(draws[0], truth)) < 4.9

    def test_every_other_encoder_has_a_lower_bound(self, z_score):
        changes = np.concatenate([0.1 * np.eye(4), -0.1 * np.eye(4), np.zeros((1, 4))])
        draws, _ = self.draws(ESTIMATORS["elbo_generic"], changes)
        assert np.all(z_score((draws[:-1] - draws[-1]).T, 0.0) < -4.9)


def test_iwae_of_one_sample_reduces_to_elbo_generic():
    """Bit for bit, gradient too; operation by operation: two programs would round."""
    model, xs = network()

    def evaluate(estimator, model):
        def bound(model):
            return estimator(model.encode, model.decode, jax.random.key(0), xs[0])

        return jax.value_and_grad(bound)(model)

    jax.tree.map(
        np.testing.assert_array_equal,
        evaluate(partial(aevb.iwae, num_samples=1), model),
        evaluate(value_of(aevb.elbo_generic), model),
    )


def test_stop_score_leaves_the_value():
    model, xs = network()
    args = (model.encode, model.decode, jax.random.key(0), xs[0])
    assert aevb.elbo_generic(*args, stop_score=True) == aevb.elbo_generic(*args)


def test_draw_l_uses_the_key_folded_with_l(float64):
    model, xs = network("float64")
    args, key, x = (model.encode, model.decode), jax.random.key(0), xs[0]

    @jax.jit
    @jax.vmap
    def draw(index):
        draw_key = jax.random.fold_in(key, index)
        z = model.encode(x).sample(draw_key)
        return aevb.log_weight(*args, draw_key, x), model.decode(z).log_prob(x)

    @jax.jit
    def bounds(key):
        options = {"num_samples": 5}
        return (
            aevb.elbo_generic(*args, key, x, **options),
            aevb.elbo(*args, key, x, **options),
            aevb.iwae(*args, key, x, **options),
        )

    log_w, log_likelihoods = (np.asarray(draws) for draws in draw(np.arange(5)))
    reconstruction = log_likelihoods.mean()
    generic, closed, iwae = bounds(key)
    np.testing.assert_allclose(generic.value, log_w.mean(), rtol=1e-14)
    np.testing.assert_allclose(iwae, np.log(np.mean(np.exp(log_w))), rtol=1e-14)
    for bound in (generic, closed):
        np.testing.assert_allclose(bound.reconstruction, reconstruction, rtol=1e-14)
        np.testing.assert_allclose(
            bound.value, bound.reconstruction - bound.kl, rtol=1e-14
        )
    standard = aevb.DiagNormal(jnp.zeros(2), jnp.zeros(2))
    # One is compiled and the other is not: the last bit is the compiler's.
    kl = aevb.kl_divergence(model.encode(x), standard)
    np.testing.assert_allclose(closed.kl, kl, rtol=1e-14)


def test_prior_none_is_the_standard_normal():
    model, xs = network()
    args = (model.encode, model.decode, jax.random.key(0), xs[0])
    prior = aevb.DiagNormal(jnp.zeros(2), jnp.zeros(2))
    assert aevb.elbo(*args) == aevb.elbo(*args, prior=prior)
    assert aevb.elbo_generic(*args) == aevb.elbo_generic(*args, prior=prior)


def test_z_may_be_a_pytree():
    """With q = p(z), and x independent of z, every bound is log p(x)."""
    zeros = {"a": jnp.zeros(2), "b": jnp.zeros((3, 1))}
    p = aevb.Bernoulli(jnp.arange(4.0))

    def encode(x):
        return aevb.DiagNormal(zeros, zeros)

    def decode(z):
        assert jax.tree.map(jnp.shape, z) == {"a": (2,), "b": (3, 1)}
        return p

    @jax.jit
    def bounds(key, x):
        return [f(encode, decode, key, x) for f in ESTIMATORS.values()]

    for bound in bounds(jax.random.key(0), jnp.ones(4)):
        np.testing.assert_allclose(bound, p.log_prob(jnp.ones(4)), rtol=1e-6)


def test_elbo_and_elbo_generic_have_one_mean(z_score):
    model, xs = network()

    @jax.jit
    @jax.vmap
    def difference(key):
        args = (model.encode, model.decode, key, xs[0])
        return aevb.elbo(*args).value - aevb.elbo_generic(*args).value

    draws = difference(keys_for(100_000))
    assert np.std(draws) > 0.1
    assert abs(z_score(draws, 0.0)) < 4.9


def test_the_score_that_is_stopped_has_mean_zero(z_score):
    model, xs = network()

    @jax.jit
    @jax.vmap
    def score(key):
        def bound(model, stop_score):
            args = (model.encode, model.decode, key, xs[0])
            return aevb.elbo_generic(*args, stop_score=stop_score).value

        grad = jax.grad(bound)
        return ravel_pytree(
            jax.tree.map(jnp.subtract, grad(model, False), grad(model, True))
        )[0]

    draws = np.asarray(score(keys_for(20_000)))
    varies = draws.std(axis=0) > 0
    assert varies.sum() > 10
    assert not np.any(varies[-model.decoder.size :])  # theta has no score
    assert np.all(np.abs(z_score(draws[:, varies], 0.0)) < 4.9)


def test_iwae_rises_with_k_and_stays_below_log_p(z_score):
    model, xs = network()

    @jax.jit
    @jax.vmap
    def bounds(key):
        args = (model.encode, model.decode, key, xs[0])
        return jnp.stack([aevb.iwae(*args, num_samples=k) for k in (1, 4, 16)])

    draws = np.asarray(bounds(keys_for(20_000)))
    integrate = partial(testing.quadrature, latent_dim=2, num_points=121)
    truth = jax.jit(partial(integrate, model.decode))(xs[0])
    assert np.all(z_score(np.diff(draws), 0.0) > 4.9)
    assert np.all(z_score(draws, truth.log_likelihood) < -4.9)


@each_estimator
def test_gradient_is_that_of_central_differences(name, float64):
    model, xs = network("float64")
    flat, unravel = ravel_pytree(model)

    class Scored(NamedTuple):
        """Draws of one q, scored under a q that stays where it is."""

        drawn: aevb.DiagNormal
        scored: aevb.DiagNormal

        def sample(self, key):
            return self.drawn.sample(key)

        def log_prob(self, z):
            return self.scored.log_prob(z)

    def bound(flat, encode):
        decode = unravel(flat).decode
        return ESTIMATORS[name](partial(encode, flat), decode, jax.random.key(0), xs[0])

    def encode(flat, x):
        return unravel(flat).encode(x)

    def encode_scored(flat, x):
        return Scored(unravel(flat).encode(x), model.encode(x))

    @jax.jit
    def compare(flat):
        differenced = encode_scored if name == "stop_score" else encode
        step = 1e-5 * jnp.eye(flat.size)
        above = jax.vmap(lambda step: bound(flat + step, differenced))(step)
        below = jax.vmap(lambda step: bound(flat - step, differenced))(step)
        return jax.grad(bound)(flat, encode), (above - below) / 2e-5

    grads, differences = compare(flat)
    assert np.linalg.norm(grads) > 0.1
    np.testing.assert_allclose(grads, differences, atol=1e-6, rtol=1e-6)


@each_estimator
def test_bounds_are_finite_at_extreme_logits_and_log_variances(name):
    grid = np.meshgrid([-80.0, 0.0, 80.0], [-1e4, 0.0, 1e4])
    log_variances, logits = (np.float32(axis.ravel()) for axis in grid)

    @jax.jit
    @jax.vmap
    @partial(jax.value_and_grad, argnums=(0, 1))
    def evaluate(log_variance, logit):
        return ESTIMATORS[name](
            lambda x: aevb.DiagNormal(x, jnp.full(2, 0.5 * log_variance)),
            lambda z: aevb.Bernoulli(z + logit),
            jax.random.key(0),
            jnp.array([0.0, 1.0]),
        )

    for leaf in jax.tree.leaves(evaluate(log_variances, logits)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("name", ["elbo", "iwae"])
def test_jit_and_vmap_change_rounding_only(name):
    model, xs = network()
    estimator = partial(ESTIMATORS[name], model.encode, model.decode)
    keys = keys_for(len(xs))
    batched = jax.jit(jax.vmap(estimator))(keys, xs)
    compiled = jax.jit(estimator)
    np.testing.assert_allclose(estimator(keys[0], xs[0]), batched[0], rtol=1e-6)
    for row in range(len(xs)):
        single = compiled(keys[row], xs[row])
        np.testing.assert_allclose(single, batched[row], rtol=1e-6)


def test_one_device_is_eight_devices():
    """Datapoints shard over devices, with no communication."""
    model, _ = network()
    xs = jnp.asarray(np.random.default_rng(0).integers(0, 2, (16, 4)), jnp.float32)
    bound = partial(ESTIMATORS["elbo"], model.encode, model.decode)
    batched = jax.jit(jax.vmap(bound))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    args = (keys_for(16), xs)
    sharded_args = jax.device_put(args, NamedSharding(mesh, PartitionSpec("data")))

    compiled = batched.lower(*sharded_args).compile()
    bounds = compiled(*sharded_args)
    assert len(bounds.sharding.device_set) == 8
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    assert not any(word in compiled.as_text() for word in collectives)
    np.testing.assert_allclose(bounds, batched(*args), rtol=1e-6)


@each_estimator
def test_float32_stays_float32_under_x64(name, float64):
    model, xs = network("float32")
    bound = partial(ESTIMATORS[name], model.encode, model.decode)
    assert jax.eval_shape(bound, jax.random.key(0), xs[0]).dtype == jnp.float32


class PerDimension(NamedTuple):
    """What forgets to sum: a distribution whose log_prob is `[J]`."""

    loc: jax.Array

    def sample(self, key):
        return self.loc

    def log_prob(self, z):
        return -((z - self.loc) ** 2)


class TestErrors:
    """Raised while tracing, with the mend."""

    x = jnp.ones(4)

    @staticmethod
    def encode(x):
        return aevb.DiagNormal(x, jnp.zeros(4))

    def trace(self, name, encode=None, decode=aevb.Bernoulli, **options):
        function = partial(
            getattr(aevb, name), encode or self.encode, decode, **options
        )
        if name == "iwae":
            function = partial(function, num_samples=options.get("num_samples", 2))
        return jax.eval_shape(function, jax.random.key(0), self.x)

    names = pytest.mark.parametrize(
        "name", ["elbo", "elbo_generic", "log_weight", "iwae"]
    )

    @names
    def test_encode_returns_a_tuple(self, name):
        with pytest.raises(
            TypeError, match=r"mean aevb\.DiagNormal\(\*encode\(x\)\)\?"
        ):
            self.trace(name, encode=lambda x: (x, x))

    @names
    def test_encode_returns_an_array(self, name):
        with pytest.raises(TypeError, match=r"such as aevb\.DiagNormal\(loc, log_sc"):
            self.trace(name, encode=lambda x: x)

    @names
    def test_decode_returns_an_array(self, name):
        with pytest.raises(TypeError, match=r"did you mean aevb\.Bernoulli\(decode\(z"):
            self.trace(name, decode=lambda z: z)

    @names
    def test_decode_returns_a_tuple(self, name):
        with pytest.raises(
            TypeError, match=r"mean aevb\.DiagNormal\(\*decode\(z\)\)\?"
        ):
            self.trace(name, decode=lambda z: (z, z))

    @names
    def test_log_likelihood_is_not_a_scalar(self, name):
        message = r"decode\(z\)\.log_prob\(x\) has shape \(4,\).* wrap it in jax\.vmap"
        with pytest.raises(ValueError, match=message):
            self.trace(name, decode=PerDimension)

    @pytest.mark.parametrize("name", ["elbo_generic", "log_weight", "iwae"])
    def test_log_q_or_log_prior_is_not_a_scalar(self, name):
        with pytest.raises(ValueError, match=r"encode\(x\)\.log_prob\(z\) has shape"):
            self.trace(name, encode=PerDimension)
        with pytest.raises(ValueError, match=r"prior\.log_prob\(z\) has shape"):
            self.trace(name, prior=PerDimension(jnp.zeros(4)))

    def test_kl_is_not_a_scalar(self):
        with pytest.raises(ValueError, match=r"kl\(q, p\) has shape \(4,\)"):
            self.trace("elbo", kl=lambda q, p: q.loc - p.loc)

    def test_there_is_no_closed_form_kl(self):
        with pytest.raises(TypeError, match=r"kl=\.\.\., or use aevb\.elbo_generic"):
            self.trace("elbo", encode=PerDimension)

    @pytest.mark.parametrize("name", ["elbo", "elbo_generic", "iwae"])
    @pytest.mark.parametrize("num_samples", [0, -1, 2.5])
    def test_num_samples_is_not_a_positive_integer(self, name, num_samples):
        with pytest.raises(ValueError, match=f"num_samples is {num_samples}, expected"):
            self.trace(name, num_samples=num_samples)

    def test_stop_score_needs_a_pytree(self):
        class Opaque:
            def __init__(self, x):
                self.sample = lambda key: x
                self.log_prob = jnp.sum

        with pytest.raises(TypeError, match="to be a pytree, got Opaque: register it"):
            self.trace("elbo_generic", encode=Opaque, stop_score=True)
        self.trace("elbo_generic", encode=Opaque)

    @pytest.mark.parametrize("shape", [(4, 1), (2, 4), ()])
    def test_x_has_another_shape_than_the_decoder(self, shape):
        with pytest.raises(ValueError, match=r"x has shape .* expected \(4,\)"):
            jax.eval_shape(
                partial(aevb.elbo, lambda x: self.encode(self.x), aevb.Bernoulli),
                jax.random.key(0),
                jnp.ones(shape),
            )
