"""Full variational Bayes: trees, keys, units, limits, and what is refused."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevb

KEY = jax.random.key(0)
DATA_DIM, LATENT_DIM, NUM_DATAPOINTS = 4, 2, 50
RNG = np.random.default_rng(0)
DATA = jnp.float32(RNG.normal(size=(6, DATA_DIM)))
POINTS = {
    "encoder": jnp.float32(0.3 * RNG.normal(size=(LATENT_DIM, DATA_DIM))),
    "decoder": {
        "w": jnp.float32(RNG.normal(size=(DATA_DIM, LATENT_DIM))),
        "b": jnp.float32(RNG.normal(size=DATA_DIM)),
    },
}
NUM_WEIGHTS = DATA_DIM * (LATENT_DIM + 1)
LAST = np.uint32(0xFFFFFFFF)


def encode(params, x):
    return aevb.DiagNormal(params["encoder"] @ x, jnp.full(LATENT_DIM, -0.5))


def decode(params, z):
    theta = params["decoder"]
    return aevb.DiagNormal(theta["w"] @ z + theta["b"], jnp.full(DATA_DIM, 0.7))


def bound_of(estimator):
    def bound(params, key, x):
        args = partial(encode, params), partial(decode, params)
        found = estimator(*args, key, x)
        return found.value, found.kl

    return bound


BOUND = bound_of(aevb.elbo)
MAP = jax.jit(aevb.map_objective(BOUND, num_datapoints=NUM_DATAPOINTS))


def with_posterior(scale):
    posterior = aevb.weight_posterior(POINTS["decoder"], scale=scale)
    return POINTS | {"decoder": posterior}


def per_batch(bound=BOUND, num_datapoints=NUM_DATAPOINTS, **options):
    objective = aevb.map_objective(bound, num_datapoints=NUM_DATAPOINTS)
    return jax.jit(
        aevb.full_bayes_objective(objective, num_datapoints=num_datapoints, **options)
    )


def per_datapoint(bound=BOUND, num_datapoints=NUM_DATAPOINTS, **options):
    of_one = aevb.full_bayes_objective(bound, num_datapoints=num_datapoints, **options)
    return jax.jit(aevb.map_objective(of_one, num_datapoints=NUM_DATAPOINTS))


both = pytest.mark.parametrize("make", [per_batch, per_datapoint])


def assert_trees_close(tree, truth, rtol=1e-5, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), tree, truth)


def posterior_gradients(objective, params):
    return jax.jit(jax.grad(lambda params: objective(params, KEY, DATA)[0]))(params)


class TestDraws:
    """Which noise makes which weights."""

    params = with_posterior(0.5)

    def test_a_draw_is_that_of_the_posterior(self):
        draw = aevb.sample_weights(KEY, self.params)
        truth = self.params["decoder"].sample(KEY)
        assert_trees_close(draw["decoder"], truth)
        np.testing.assert_array_equal(draw["encoder"], POINTS["encoder"])

    def test_two_posteriors_have_noise_of_their_own(self):
        params = {name: aevb.weight_posterior(jnp.zeros(3), scale=1.0) for name in "ab"}
        draw = aevb.sample_weights(KEY, params)
        assert len(np.unique(np.concatenate([draw["a"], draw["b"]]))) == 6

    def test_datapoint_i_has_the_keys_of_map_and_a_last_one_for_the_weights(self):
        value, found = per_datapoint()(self.params, KEY, DATA)

        @jax.jit
        def bound(i, x):
            key = jax.random.fold_in(KEY, i)
            weights = aevb.sample_weights(jax.random.fold_in(key, LAST), self.params)
            return BOUND(weights, key, x)[0]

        bounds = [bound(i, x) for i, x in enumerate(DATA)]
        np.testing.assert_allclose(found.bound, np.mean(bounds), rtol=1e-5)
        truth = np.mean(bounds) - aevb.weights_kl(self.params) / NUM_DATAPOINTS
        np.testing.assert_allclose(value, truth, rtol=1e-5)

    def test_a_minibatch_shares_one_draw(self):
        weights = aevb.sample_weights(jax.random.fold_in(KEY, LAST), self.params)
        truth, kl = MAP(weights, KEY, DATA)
        _, found = per_batch()(self.params, KEY, DATA)
        np.testing.assert_allclose(found.bound, truth, rtol=1e-5)
        np.testing.assert_allclose(found.aux, kl, rtol=1e-5)

    def test_more_draws_are_the_mean_of_single_ones_with_other_keys(self):
        keys = [KEY, *(jax.random.fold_in(KEY, np.uint32(LAST - i)) for i in (1, 2))]
        single = per_batch(weights_kl=aevb.sampled_weights_kl)
        values = [single(self.params, key, DATA)[0] for key in keys]
        three = per_batch(weights_kl=aevb.sampled_weights_kl, num_weight_samples=3)
        value, found = three(self.params, KEY, DATA)
        np.testing.assert_allclose(value, np.mean(values), rtol=1e-5)
        assert found.bound.shape == found.weights_kl.shape == ()
        assert len(np.unique(values)) == 3


class TestUnits:
    """Nats per datapoint, and per data set."""

    params = with_posterior(0.5)

    def test_n_times_a_datapoints_value_is_the_papers_f(self):
        """N (log p(x|z, θ) + log p(z) − log q(z|x)) + log p(θ) − log q(θ)."""
        objective = aevb.full_bayes_objective(
            bound_of(aevb.elbo_generic),
            num_datapoints=NUM_DATAPOINTS,
            weights_kl=aevb.sampled_weights_kl,
        )
        value, _ = objective(self.params, KEY, DATA[0])
        theta = aevb.sample_weights(jax.random.fold_in(KEY, LAST), self.params)
        log_w = aevb.log_weight(
            partial(encode, theta),
            partial(decode, theta),
            jax.random.fold_in(KEY, 0),
            DATA[0],
        )
        log_p = aevb.log_weight_prior(theta["decoder"], only_matrices=False)
        log_q = self.params["decoder"].log_prob(theta["decoder"])
        truth = NUM_DATAPOINTS * log_w + log_p - log_q
        np.testing.assert_allclose(NUM_DATAPOINTS * value, truth, rtol=1e-5)

    def test_minibatches_average_to_the_data_set(self):
        """One key gives all one θ, and without z there is no other noise."""

        def bound(params, key, x):
            return decode(params, jnp.ones(LATENT_DIM)).log_prob(x), None

        objective = per_batch(bound, num_datapoints=len(DATA))
        whole, _ = objective(self.params, KEY, DATA)
        for size in (1, 4):
            batches = jnp.array(list(itertools.combinations(DATA, size)))
            values, _ = jax.vmap(objective, (None, None, 0))(self.params, KEY, batches)
            np.testing.assert_allclose(np.mean(values), whole, rtol=1e-5)

    def test_the_evidence_bound_is_n_times_the_objective(self):
        value, found = per_batch()(self.params, KEY, DATA)
        bounds = jnp.full(3, found.bound)
        evidence = aevb.evidence_bound(
            bounds, found.weights_kl, num_datapoints=NUM_DATAPOINTS
        )
        np.testing.assert_allclose(evidence, NUM_DATAPOINTS * value, rtol=1e-6)

    @both
    def test_the_divergence_pulls_with_a_strength_of_one_over_n(self, make):
        """By (μ / s²) / N on the means, and (σ² / s² − 1) / N on the log scales."""
        nothing = lambda params, key, x: (jnp.zeros(()), None)  # noqa: E731
        objective = make(nothing, prior=partial(aevb.weight_prior, scale=0.7))
        grads = posterior_gradients(objective, self.params)["decoder"]
        for name, mean in POINTS["decoder"].items():
            pull = -np.asarray(mean) / 0.7**2 / NUM_DATAPOINTS
            np.testing.assert_allclose(grads.loc[name], pull, rtol=1e-5)
            pull = np.full(mean.shape, 1 - (0.5 / 0.7) ** 2) / NUM_DATAPOINTS
            np.testing.assert_allclose(grads.log_scale[name], pull, rtol=1e-5)


class TestTwoForms:
    """Algorithm 2 and F.1 have one expectation; F.1 varies less.

    It does where x says little about z and θ. Near the exact posterior the generic form
    varies less, as without a posterior over weights: there it is a constant.
    """

    params = with_posterior(0.5)
    keys = jax.random.split(KEY, 10_000)

    @both
    def test_the_forms_agree_and_f_1_varies_less(self, make, z_score):
        exact = make()
        generic = make(bound_of(aevb.elbo_generic), weights_kl=aevb.sampled_weights_kl)

        def draws(objective):
            def one(key):
                value, grads = jax.value_and_grad(
                    lambda params: objective(params, key, DATA)[0]
                )(self.params)
                return value, grads

            return jax.jit(jax.vmap(one))(self.keys)

        first, second = draws(exact), draws(generic)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
            assert np.all(np.abs(z_score(a - b, 0.0)) < 4.9)
        assert np.var(first[0]) < np.var(second[0])
        total = [
            sum(np.var(leaf, axis=0).sum() for leaf in jax.tree.leaves(grads))
            for _, grads in (first, second)
        ]
        assert total[0] < total[1]

    def test_a_draw_of_its_own_for_each_datapoint_varies_less(self, z_score):
        values = [
            jax.jit(jax.vmap(lambda key, make=make: make()(self.params, key, DATA)[0]))(
                self.keys
            )
            for make in (per_batch, per_datapoint)
        ]
        assert np.abs(z_score(values[0] - values[1], 0.0)) < 4.9
        assert np.var(values[1]) < np.var(values[0])

    def test_the_sampled_divergence_is_the_closed_form_in_expectation(self, z_score):
        prior = partial(aevb.weight_prior, scale=0.7)

        def sampled(key):
            weights = aevb.sample_weights(key, self.params)
            return aevb.sampled_weights_kl(self.params, weights, prior=prior)

        truth = aevb.weights_kl(self.params, prior=prior)
        assert np.abs(z_score(jax.jit(jax.vmap(sampled))(self.keys), truth)) < 4.9


class TestLimits:
    """What it reduces to."""

    @both
    def test_without_a_width_it_is_map(self, make):
        """Values up to the entropy of q(θ), gradients of the means to rounding."""
        scale = 1e-9
        log_prior = partial(aevb.log_weight_prior, scale=0.7, only_matrices=False)
        truth = aevb.map_objective(
            BOUND,
            num_datapoints=NUM_DATAPOINTS,
            log_prior=lambda params: log_prior(params["decoder"]),
        )
        objective = make(prior=partial(aevb.weight_prior, scale=0.7))
        value, _ = objective(with_posterior(scale), KEY, DATA)
        entropy = NUM_WEIGHTS * (math.log(scale) + 0.5 * math.log(2 * math.pi * math.e))
        expected = truth(POINTS, KEY, DATA)[0] + entropy / NUM_DATAPOINTS
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        grads = posterior_gradients(objective, with_posterior(scale))
        expected = posterior_gradients(truth, POINTS)
        assert_trees_close(grads["decoder"].loc, expected["decoder"])
        assert_trees_close(grads["encoder"], expected["encoder"])

    def test_of_infinitely_many_datapoints_the_divergence_is_nothing(self):
        params = with_posterior(0.5)
        value, found = per_batch(num_datapoints=math.inf)(params, KEY, DATA)
        assert value == found.bound
        zero = lambda params, weights, *, prior: jnp.zeros(())  # noqa: E731
        expected = posterior_gradients(per_batch(weights_kl=zero), params)
        grads = posterior_gradients(per_batch(num_datapoints=math.inf), params)
        assert_trees_close(grads, expected)

    def test_the_means_of_points_are_the_points(self):
        assert_trees_close(aevb.weight_means(POINTS), POINTS)
        assert_trees_close(aevb.weight_means(with_posterior(0.5)), POINTS)

    def test_a_posterior_over_everything(self):
        """The whole tree is one `DiagNormal`; the encoder is drawn too."""
        params = aevb.weight_posterior(POINTS, scale=1e-9)
        value, found = per_batch()(params, KEY, DATA)
        np.testing.assert_allclose(found.bound, MAP(POINTS, KEY, DATA)[0], rtol=1e-5)
        truth = found.bound - aevb.weights_kl(params) / NUM_DATAPOINTS
        np.testing.assert_allclose(value, truth, rtol=1e-6)

    def test_a_prior_may_be_learned(self):
        """At its best the scale of the prior is the root mean square of the weights."""

        def prior(params):
            zeros = jax.tree.map(jnp.zeros_like, params["decoder"].loc)
            scales = jax.tree.map(lambda _: params["alpha"], zeros)
            return {"decoder": aevb.DiagNormal(zeros, scales)}

        params = with_posterior(0.5)
        leaves = jax.tree.leaves(POINTS["decoder"])
        square = sum(float(jnp.sum(w**2 + 0.5**2)) for w in leaves) / NUM_WEIGHTS
        params |= {"alpha": jnp.float32(0.5 * math.log(square))}
        grads = posterior_gradients(per_batch(prior=prior), params)
        np.testing.assert_allclose(grads["alpha"], 0, atol=1e-6)

    def test_the_scale_of_the_prior_may_be_traced(self):
        params, scales = with_posterior(0.5), jnp.array([0.5, 2.0])

        def kl(scale):
            prior = partial(aevb.weight_prior, scale=scale)
            return aevb.weights_kl(params, prior=prior)

        singles = [kl(float(scale)) for scale in scales]
        np.testing.assert_allclose(jax.jit(jax.vmap(kl))(scales), singles, rtol=1e-6)


class TestErrors:
    params = with_posterior(0.5)

    @both
    def test_points_alone_are_refused(self, make):
        with pytest.raises(ValueError, match=r"no part of params has a posterior.*map"):
            make()(POINTS, KEY, DATA)
        with pytest.raises(ValueError, match="no part of params has a posterior"):
            aevb.weight_prior(POINTS)

    @pytest.mark.parametrize("scale", [0.0, -3.0, math.nan])
    def test_a_scale_is_positive(self, scale):
        with pytest.raises(ValueError, match=r"scale is .* expected a positive"):
            aevb.weight_posterior(POINTS, scale=scale)
        with pytest.raises(ValueError, match=r"scale is .* expected a positive"):
            aevb.weight_prior(self.params, scale=scale)

    def test_a_prior_over_something_else(self):
        normal = aevb.DiagNormal(jnp.zeros(2), jnp.zeros(2))
        for tree, name in (({"encoder": normal}, "encoder"), ({}, "nothing")):
            with pytest.raises(ValueError, match=f"over {name}, expected over decoder"):
                aevb.weights_kl(self.params, prior=lambda params, tree=tree: tree)

    def test_a_divergence_sampled_without_a_draw_of_the_weights(self):
        weights = POINTS | {"decoder": jnp.zeros(3)}
        with pytest.raises(
            TypeError, match=r"weights of decoder are Array.*weights_kl"
        ):
            aevb.sampled_weights_kl(self.params, weights)

    def test_a_pair_without_a_closed_form(self):
        prior = {"decoder": aevb.Bernoulli(jnp.zeros(3))}
        with pytest.raises(TypeError, match="no closed-form KL"):
            aevb.weights_kl(self.params, prior=lambda params: prior)

    @pytest.mark.parametrize("count", [0, 2.5, True])
    def test_counts_are_integers(self, count):
        for name in ("num_datapoints", "num_weight_samples"):
            options = {"num_datapoints": 5, name: count}
            with pytest.raises(ValueError, match=f"{name} is {count}"):
                aevb.full_bayes_objective(MAP, **options)

    def test_a_bound_that_is_not_a_scalar(self):
        objective = aevb.full_bayes_objective(
            lambda params, key, x: (x, None), num_datapoints=5
        )
        with pytest.raises(ValueError, match=r"the bound has shape \(4,\)"):
            objective(self.params, KEY, DATA[0])
        with pytest.raises(ValueError, match=r"bounds have shape \(\)"):
            aevb.evidence_bound(jnp.zeros(()), jnp.zeros(()), num_datapoints=5)
