"""`importance_log_likelihood`: the identities; its diagnostics are in test_marginal."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import aevb
from aevb import testing

KEY = jax.random.key(0)


class Index(NamedTuple):
    """A "q" that draws, with the key of sample k, the number k (0 beyond the last)."""

    keys: jax.Array

    def sample(self, key):
        same = jax.random.key_data(key)[None] == jax.random.key_data(self.keys)
        return jnp.argmax(jnp.all(same, axis=-1))

    def log_prob(self, z):
        return jnp.zeros(())


class Constant(NamedTuple):
    """A "likelihood" that is what it is given."""

    value: jax.Array

    def log_prob(self, x):
        return self.value


@partial(jax.jit, static_argnames="chunk_size")
def estimate_of(log_w: jax.Array, chunk_size: int) -> aevb.ImportanceEstimate:
    """The estimate whose sample k has the log weight `log_w[k]`."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(len(log_w)))
    return aevb.importance_log_likelihood(
        lambda x: Index(keys),
        lambda z: Constant(log_w[z]),
        KEY,
        jnp.zeros(()),
        prior=Constant(jnp.zeros(())),
        num_samples=len(log_w),
        chunk_size=chunk_size,
    )


class TestChosenWeights:
    """Against scipy's logsumexp over exactly the first K weights."""

    @staticmethod
    def check(log_w, chunk_size, tolerance=1e-5):
        log_w = np.asarray(log_w, np.float32)
        estimate = estimate_of(log_w, chunk_size)
        log_w = log_w.astype(np.float64)
        truth = scipy.special.logsumexp(log_w) - np.log(len(log_w))
        np.testing.assert_allclose(estimate.log_likelihood, truth, atol=tolerance)
        w = np.exp(log_w - log_w.max())
        np.testing.assert_allclose(estimate.ess, w.sum() ** 2 / (w**2).sum(), rtol=1e-5)

    @pytest.mark.parametrize("chunk_size", [1, 7, 100, 250])
    def test_any_chunk_draws_exactly_k(self, chunk_size):
        self.check(np.random.default_rng(0).normal(size=250), chunk_size)

    @pytest.mark.parametrize("num_samples", [1, 6, 7, 8])
    def test_any_k_is_exactly_k(self, num_samples):
        self.check(np.random.default_rng(1).normal(size=num_samples), 7)

    @pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
    def test_weights_that_span_thousands_of_nats(self, order):
        """Rising and falling maxima; 1e4 is stored to 1e-3."""
        log_w = np.sort(1e4 * np.random.default_rng(2).normal(size=250))
        self.check(log_w[order], 7, tolerance=2e-3)

    @pytest.mark.parametrize("zeros", [slice(100), slice(150, None), slice(1, None)])
    def test_chunks_without_weight(self, zeros):
        log_w = np.random.default_rng(3).normal(size=250)
        log_w[zeros] = -np.inf
        self.check(log_w, 7)

    def test_no_weight_at_all(self):
        log_w = np.full(250, -np.inf, np.float32)
        assert estimate_of(log_w, 7).log_likelihood == -np.inf


def linear_model():
    rng = np.random.default_rng(0)
    weights, bias, x = (jnp.asarray(rng.normal(size=s)) for s in ((5, 3), 5, 5))
    return testing.linear_gaussian(weights, bias, -0.5), x


@pytest.mark.parametrize(("num_samples", "chunk_size"), [(1, 1), (25, 7), (250, 100)])
def test_the_exact_posterior_gives_log_p(num_samples, chunk_size, float64):
    model, x = linear_model()
    options = {"num_samples": num_samples, "chunk_size": chunk_size}
    estimate = jax.jit(
        partial(
            aevb.importance_log_likelihood, model.posterior, model.decode, **options
        )
    )(KEY, x)
    truth = model.log_likelihood(x)
    np.testing.assert_allclose(estimate.log_likelihood, truth, rtol=1e-10)
    np.testing.assert_allclose(estimate.ess, num_samples, rtol=1e-10)


def test_reduces_to_iwae(float64):
    model, x = linear_model()

    @jax.jit
    def bounds(x):
        args = (model.best_encode, model.decode, KEY, x)
        estimate = aevb.importance_log_likelihood(*args, num_samples=50, chunk_size=7)
        return estimate.log_likelihood, aevb.iwae(*args, num_samples=50)

    np.testing.assert_allclose(*bounds(x), rtol=1e-13)


def test_gradient_is_that_of_iwae(float64):
    """Which is checked against central differences."""
    model, x = linear_model()

    def bound(change, estimate):
        def encode(x):
            q = model.best_encode(x)
            return aevb.DiagNormal(q.loc + change, q.log_scale - change)

        return estimate(encode, lambda z: model.decode(z * (1 + change)), KEY, x)

    def importance(*args):
        options = {"num_samples": 20, "chunk_size": 7}
        return aevb.importance_log_likelihood(*args, **options).log_likelihood

    @jax.jit
    def gradients(change):
        iwae = partial(aevb.iwae, num_samples=20)
        return [jax.grad(bound)(change, estimate) for estimate in (importance, iwae)]

    chunked, whole = gradients(jnp.array([0.1, -0.2, 0.3]))
    assert np.all(np.abs(whole) > 1e-3)
    np.testing.assert_allclose(chunked, whole, rtol=1e-10)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_mean_weight_is_p(latent_dim, z_score):
    """And the mean of the log of a mean of five is below log p."""
    decode = testing.bernoulli_decoder(KEY, latent_dim=latent_dim, data_dim=5)
    x = jnp.array([1.0, 0, 1, 1, 0])
    integrate = partial(testing.quadrature, latent_dim=latent_dim, num_points=201)
    log_p = jax.jit(partial(integrate, decode))(x).log_likelihood

    def encode(x):
        return aevb.DiagNormal(jnp.full(latent_dim, 0.3), jnp.zeros(latent_dim))

    @jax.jit
    @jax.vmap
    def draws(key):
        one = aevb.log_weight(encode, decode, key, x) - log_p
        options = {"num_samples": 5, "chunk_size": 2}
        five = aevb.importance_log_likelihood(encode, decode, key, x, **options)
        return jnp.exp(one), jnp.exp(five.log_likelihood - log_p), five.log_likelihood

    ones, fives, log_fives = draws(jax.random.split(KEY, 100_000))
    assert abs(z_score(ones, 1.0)) < 4
    assert abs(z_score(fives, 1.0)) < 4
    assert z_score(log_fives, log_p) < -4.9


@pytest.mark.default_flags
def test_many_chunks_do_not_drift():
    """Float32 sums over 30 000 chunks, against float64 sums of the same weights."""

    def encode(x):
        return aevb.DiagNormal(jnp.zeros(()), jnp.zeros(()))

    def decode(z):
        return aevb.DiagNormal(z, jnp.zeros(()))

    @jax.jit
    def compare(x):
        options = {"num_samples": 300_000, "chunk_size": 10}
        keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(300_000))
        log_w = jax.vmap(partial(aevb.log_weight, encode, decode), (0, None))(keys, x)
        run = partial(aevb.importance_log_likelihood, encode, decode, **options)
        return run(KEY, x).log_likelihood, log_w

    log_p, log_w = compare(jnp.ones(()))
    truth = scipy.special.logsumexp(np.float64(log_w)) - np.log(300_000)
    np.testing.assert_allclose(log_p, truth, atol=5e-7)


class TestErrors:
    """Raised while tracing, with the mend."""

    @staticmethod
    def trace(encode=None, decode=aevb.Bernoulli, num_samples=5, **options):
        function = partial(
            aevb.importance_log_likelihood,
            encode or (lambda x: aevb.DiagNormal(x, jnp.zeros(4))),
            decode,
            num_samples=num_samples,
            **options,
        )
        return jax.eval_shape(function, KEY, jnp.ones(4))

    def test_no_distribution(self):
        with pytest.raises(
            TypeError, match=r"mean aevb\.DiagNormal\(\*encode\(x\)\)\?"
        ):
            self.trace(encode=lambda x: (x, x))
        with pytest.raises(TypeError, match=r"did you mean aevb\.Bernoulli\(decode\(z"):
            self.trace(decode=lambda z: z)

    def test_no_scalar(self):
        with pytest.raises(ValueError, match=r"decode\(z\)\.log_prob.* jax\.vmap"):
            self.trace(decode=Constant)
        with pytest.raises(ValueError, match=r"prior\.log_prob.* jax\.vmap"):
            self.trace(prior=Constant(jnp.zeros(4)))

    @pytest.mark.parametrize("name", ["num_samples", "chunk_size"])
    @pytest.mark.parametrize("count", [0, -1])
    def test_no_positive_count(self, name, count):
        with pytest.raises(ValueError, match=f"{name} is {count}, expected an integer"):
            self.trace(**{name: count})
