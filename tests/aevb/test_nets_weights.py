"""The local reparameterisation: noise of activations in place of weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import aevb
from aevb import nets

KEY = jax.random.key(0)
DATA_DIM, LATENT_DIM = 5, 2
X = jnp.array([0.0, 1, 1, 0, 1])
Z = jnp.array([0.7, -1.1])
LOCAL = nets.local_reparameterization
DECODERS = [
    nets.BernoulliMLP(DATA_DIM, (4,)),
    nets.GaussianMLP(DATA_DIM, (4, 3)),
]
MODEL = nets.linen_model(nets.GaussianMLP(LATENT_DIM, (6,)), DECODERS[0])


def random_like(tree, seed=0, scale=1.0):
    """Random numbers in place of all leaves: biases start at zero."""
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    leaves = [scale * jnp.float32(rng.normal(size=leaf.shape)) for leaf in leaves]
    return jax.tree.unflatten(treedef, leaves)


def posterior(module, scale=0.4, features=LATENT_DIM):
    weights = random_like(module.init(KEY, jnp.zeros(features))["params"])
    log_scale = random_like(weights, seed=1, scale=0.3)
    log_scale = jax.tree.map(lambda leaf: leaf + np.log(scale), log_scale)
    return aevb.DiagNormal(weights, log_scale)


PARAMS = {
    "encoder": random_like(MODEL.init(KEY, X)["encoder"], scale=0.3),
    "decoder": posterior(DECODERS[0]),
}


def outputs(module, q, x=Z, num_draws=20_000, reparameterization=LOCAL):
    """Draws of all outputs for one input, as one vector each."""

    def one(key):
        options = {"reparameterization": reparameterization}
        weights = aevb.sample_weights(key, q, **options)
        leaves = jax.tree.leaves(nets.apply_weights(module, weights, x))
        return jnp.concatenate(leaves)

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, num_draws))


class TestDistribution:
    """Of the outputs for one input: that of the network with drawn weights."""

    def test_one_layer_is_normal_with_the_papers_variance(self):
        layer = nn.Dense(3)
        q = posterior(layer)
        draws = outputs(layer, q)
        mean = Z @ q.loc["kernel"] + q.loc["bias"]
        variances = jax.tree.map(lambda leaf: jnp.exp(2 * leaf), q.log_scale)
        scale = jnp.sqrt(Z**2 @ variances["kernel"] + variances["bias"])
        eps = (np.asarray(draws) - np.asarray(mean)) / np.asarray(scale)
        noise = nets.activation_noise(q)
        keys = jax.random.split(KEY, len(eps))
        expected = jax.vmap(noise.sample)(keys)["params"]
        np.testing.assert_allclose(eps, expected, atol=1e-4)

    @pytest.mark.parametrize("module", DECODERS)
    def test_moments_are_those_of_drawn_weights(self, module):
        """Means, variances and covariances of the outputs."""
        q = posterior(module)

        def moments(draws):
            pairs = draws[:, :, None] * draws[:, None, :]
            return np.concatenate([draws, pairs.reshape(len(draws), -1)], axis=1)

        local = moments(np.asarray(outputs(module, q)))
        options = {"reparameterization": aevb.global_reparameterization}
        drawn = moments(np.asarray(outputs(module, q, x=Z, **options)))
        # Of the same key: independent all the same, for the noise has other shapes.
        error = np.sqrt((local.var(axis=0) + drawn.var(axis=0)) / len(local))
        z = (local.mean(axis=0) - drawn.mean(axis=0)) / error
        assert np.all(np.abs(z) < 4.9)

    @pytest.mark.parametrize("module", DECODERS)
    def test_without_a_width_it_is_the_network(self, module):
        """Values and gradients, also where a variance underflows to zero."""
        q = posterior(module)
        for width in (-20.0, -60.0):
            log_scale = jax.tree.map(lambda w: jnp.full_like(w, width), q.loc)  # noqa: B023

            def value(loc, log_scale, z):
                narrow = aevb.DiagNormal(loc, log_scale)
                noise = nets.activation_noise(narrow).sample(KEY)
                weights = nets.LocalWeights(narrow, noise)
                return nets.apply_weights(module, weights, z).log_prob(X)

            def plain(loc, z):
                return nets.apply_weights(module, loc, z).log_prob(X)

            found, grads = jax.jit(jax.value_and_grad(value, (0, 1, 2)))(
                q.loc, log_scale, Z
            )
            truth, expected = jax.jit(jax.value_and_grad(plain, (0, 1)))(q.loc, Z)
            np.testing.assert_allclose(found, truth, rtol=1e-5)
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
                (grads[0], grads[2]),
                expected,
            )
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))

    def test_a_zero_input_without_a_bias_has_a_finite_gradient(self):
        layer = nn.Dense(3, use_bias=False)
        q = posterior(layer)

        def total(q, h):
            weights = nets.LocalWeights(q, {"params": jnp.ones(3)})
            return jnp.sum(nets.apply_weights(layer, weights, h))

        value, grads = jax.value_and_grad(total, (0, 1))(q, jnp.zeros(2))
        assert value == 0
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))

    def test_a_scale_may_be_one_number(self):
        module = DECODERS[0]
        q = posterior(module)
        one = aevb.DiagNormal(q.loc, jax.tree.map(lambda _: jnp.float32(-1), q.loc))
        full = aevb.weight_posterior(q.loc, scale=np.exp(-1))
        draws = [outputs(module, q, num_draws=3) for q in (one, full)]
        np.testing.assert_allclose(*draws, rtol=1e-5)

    def test_the_layers_own_product_is_used_for_both(self):
        calls = []

        def recording(lhs, rhs, *args, **kwargs):
            calls.append((lhs.dtype, rhs.shape))
            return nets.bfloat16_dot_general(lhs, rhs, *args, **kwargs)

        module = nets.BernoulliMLP(DATA_DIM, (4,), dot_general=recording)
        q = posterior(module)
        calls.clear()
        noise = nets.activation_noise(q).sample(KEY)
        found = nets.apply_weights(module, nets.LocalWeights(q, noise), Z)
        assert [shape for _, shape in calls] == [(2, 4)] * 2 + [(4, 5)] * 2
        assert found.logits.dtype == jnp.float32
        other = nets.apply_weights(DECODERS[0], nets.LocalWeights(q, noise), Z)
        assert 0 < np.max(np.abs(found.logits - other.logits)) < 0.1

    def test_a_layer_of_another_dtype(self):
        layer = nn.Dense(3, dtype=jnp.bfloat16)
        q = posterior(layer)
        found = outputs(layer, q, num_draws=100)
        full = outputs(nn.Dense(3), q, num_draws=100)
        np.testing.assert_allclose(found, full, atol=0.1)


def bound(params, key, x):
    args = partial(MODEL.encode, params), partial(MODEL.decode, params)
    return aevb.elbo(*args, key, x).value, None


def test_the_gradient_varies_less_and_is_the_same_in_expectation():
    """Of a minibatch of 16: θ once for it, once a datapoint, and locally."""
    data = (jax.random.uniform(KEY, (16, DATA_DIM)) < 0.4).astype(jnp.float32)
    per_batch = aevb.full_bayes_objective(
        aevb.map_objective(bound, num_datapoints=16), num_datapoints=16
    )

    def per_datapoint(**options):
        one = aevb.full_bayes_objective(bound, num_datapoints=16, **options)
        return aevb.map_objective(one, num_datapoints=16)

    def gradients(objective):
        def one(key):
            return jax.grad(lambda params: objective(params, key, data)[0])(PARAMS)

        grads = jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000))
        return [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]

    objectives = [per_batch, per_datapoint(), per_datapoint(reparameterization=LOCAL)]
    shared, apart, local = map(gradients, objectives)
    for a, b, c in zip(shared, apart, local, strict=True):
        error = np.sqrt((a.var(axis=0) + c.var(axis=0)) / len(a))
        assert np.all(np.abs(a.mean(axis=0) - c.mean(axis=0)) < 4.9 * error)
        error = np.sqrt((b.var(axis=0) + c.var(axis=0)) / len(b))
        assert np.all(np.abs(b.mean(axis=0) - c.mean(axis=0)) < 4.9 * error)
    totals = [sum(leaf.var(axis=0).sum() for leaf in g) for g in (shared, apart, local)]
    print(
        "variance of the gradient: once a minibatch, once a datapoint, locally", totals
    )
    assert totals[2] < totals[1] < totals[0]


def predictive_parts(reparameterization):
    """Encoder and decoder over the latent with noise, and its prior."""
    predictive = aevb.predictive_model(MODEL, X, reparameterization=reparameterization)
    functions = predictive.encode, predictive.decode
    args = [partial(function, PARAMS) for function in functions]
    return args, predictive.prior(PARAMS)


def importance(key, reparameterization):
    args, prior = predictive_parts(reparameterization)
    options = {"prior": prior, "num_samples": 20_000, "chunk_size": 1000}
    return jax.jit(partial(aevb.importance_log_likelihood, *args, **options))(key, X)


@pytest.fixture(scope="module")
def reference():
    return importance(jax.random.key(1), aevb.global_reparameterization)


class TestPredictive:
    """The latent {"noise", "z"}, in both forms of noise."""

    def test_importance_sampling_gives_what_drawn_weights_give(self, reference):
        found = importance(KEY, LOCAL)
        error = np.hypot(found.std_error, reference.std_error)
        assert error < 0.05
        difference = found.log_likelihood - reference.log_likelihood
        assert np.abs(difference) < 4.9 * error

    def test_annealing_does_too(self, reference):
        args, prior = predictive_parts(LOCAL)
        estimate = partial(
            aevb.annealed_log_likelihood,
            *args,
            prior=prior,
            temperatures=aevb.sigmoid_temperatures(20),
            num_chains=300,
            num_leapfrog_steps=4,
            step_size=0.3,
        )
        found = jax.jit(estimate)(KEY, X)
        error = np.hypot(found.std_error, reference.std_error)
        assert error < 0.06
        assert found.zs["noise"]["decoder"]["hidden_0"].shape == (300, 4)
        difference = found.log_likelihood - reference.log_likelihood
        assert np.abs(difference) < 4.9 * error

    def test_every_estimator_takes_it(self, reference):
        args, prior = predictive_parts(LOCAL)

        @jax.jit
        @jax.vmap
        def bounds(key):
            elbo = aevb.elbo(*args, key, X, prior=prior).value
            return elbo, aevb.iwae(*args, key, X, prior=prior, num_samples=20)

        elbo, iwae = bounds(jax.random.split(KEY, 500))
        assert np.mean(elbo) < np.mean(iwae) < reference.log_likelihood + 0.05
        starts = jax.vmap(args[0](X).sample)(jax.random.split(KEY, 3))
        options = {"prior": prior, "num_samples": 2, "num_burn_in": 2}
        draws = jax.eval_shape(
            lambda: aevb.sample_posterior(args[1], KEY, X, starts, **options)
        )
        shapes = jax.tree.map(jnp.shape, prior.mean)
        assert jax.tree.map(lambda leaf: leaf.shape[2:], draws.zs) == shapes

    def test_without_a_width_it_is_the_model(self):
        means = aevb.weight_means(PARAMS)
        narrow = aevb.weight_posterior(means["decoder"], scale=1e-12)
        params = means | {"decoder": narrow}
        predictive = aevb.predictive_model(MODEL, X, reparameterization=LOCAL)
        z = {"noise": predictive.prior(params).mean["noise"], "z": Z}
        found = predictive.decode(params, z).logits
        np.testing.assert_allclose(found, MODEL.decode(means, Z).logits, rtol=1e-5)

    def test_a_prior_with_a_posterior_is_refused(self):
        prior = {"prior": aevb.weight_posterior(jnp.zeros(2), scale=0.1)}
        whole = aevb.weight_means(PARAMS | prior)
        for params in (PARAMS | prior, aevb.weight_posterior(whole, scale=0.1)):
            with pytest.raises(ValueError, match=r"the prior p\(z\) have a posterior"):
                aevb.predictive_model(MODEL, X).prior(params)
        with pytest.raises(ValueError, match="no part of params has a posterior"):
            aevb.predictive_model(MODEL, X).encode(aevb.weight_means(PARAMS), X)


def test_an_encoder_may_have_a_posterior_too():
    encoder = aevb.weight_posterior(PARAMS["encoder"], scale=0.1)
    objective = aevb.full_bayes_objective(
        bound, num_datapoints=16, reparameterization=LOCAL
    )
    params = PARAMS | {"encoder": encoder}
    value, found = jax.jit(objective)(params, KEY, X)
    assert np.isfinite(value)
    expected = aevb.weights_kl(PARAMS) + aevb.weights_kl(encoder)
    np.testing.assert_allclose(found.weights_kl, expected, rtol=1e-5)


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(nn.Dense(3, name="dense")(x))


class General(nn.Module):
    """Parameters of the form of a dense layer, of another kind."""

    @nn.compact
    def __call__(self, x):
        return nn.DenseGeneral(3, name="general")(x)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(2, name="shared")
        return layer(layer(x))


class TestErrors:
    def test_parameters_of_something_else(self):
        q = posterior(Normalized())
        with pytest.raises(
            ValueError, match=r"norm/bias is \(3,\), expected the kernel"
        ):
            nets.activation_noise(q)
        convolution = nn.Conv(3, (2,)).init(KEY, jnp.zeros((4, 2)))["params"]
        with pytest.raises(ValueError, match=r"params is .*\(2, 2, 3\)"):
            nets.activation_noise(aevb.weight_posterior(convolution, scale=0.1))
        with pytest.raises(ValueError, match=r"w is \(3,\), expected the kernel"):
            nets.activation_noise(aevb.weight_posterior({"w": X[:3]}, scale=0.1))

    def test_a_layer_that_only_looks_dense(self):
        with pytest.raises(ValueError, match=r"general: not called as an nn\.Dense"):
            outputs(General(), posterior(General()), num_draws=1)

    def test_a_layer_called_twice(self):
        with pytest.raises(ValueError, match=r"shared has inputs .*call 2, expected"):
            outputs(Twice(), posterior(Twice()), num_draws=1)

    def test_more_than_one_input(self):
        layer = nn.Dense(3)
        with pytest.raises(ValueError, match=r"inputs of shape \(4, 2\), call 1"):
            outputs(layer, posterior(layer), x=jnp.zeros((4, 2)), num_draws=1)

    def test_a_posterior_that_nothing_was_drawn_from(self):
        with pytest.raises(
            TypeError, match=r"weights are a DiagNormal.*sample_weights"
        ):
            MODEL.decode(PARAMS, Z)

    def test_a_divergence_sampled_without_weights(self):
        objective = aevb.full_bayes_objective(
            bound,
            num_datapoints=16,
            weights_kl=aevb.sampled_weights_kl,
            reparameterization=LOCAL,
        )
        with pytest.raises(TypeError, match=r"of decoder are LocalWeights.*weights_kl"):
            objective(PARAMS, KEY, X)
