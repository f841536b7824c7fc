from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from flax import linen as nn
from jax import export

import aevb
from aevb import DiagNormal, nets

KEY = jax.random.key(0)
DATA_DIM, LATENT_DIM = 6, 2
X = np.array([0.0, 1, 1, 0, 1, 0], np.float32)
HIDDEN_DIMS = [(), (5,), (5, 4), (3, 3, 3)]


def init(module, features):
    """Random weights and biases, for biases start at zero."""
    leaves, treedef = jax.tree.flatten(module.init(KEY, jnp.zeros(features)))
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(treedef, leaves)


def layer(params, name, h):
    return h @ params["params"][name]["kernel"] + params["params"][name]["bias"]


def hidden(params, h, num_layers, activation=np.tanh):
    for index in range(num_layers):
        h = activation(layer(params, f"hidden_{index}", h))
    return h


@pytest.mark.parametrize("hidden_dims", HIDDEN_DIMS)
def test_bernoulli_mlp_is_appendix_c_1(hidden_dims):
    module = nets.BernoulliMLP(DATA_DIM, hidden_dims)
    params, z = init(module, LATENT_DIM), np.array([0.5, -2.0], np.float32)
    logits = layer(params, "logits", hidden(params, z, len(hidden_dims)))
    p = module.apply(params, z)
    assert isinstance(p, aevb.Bernoulli)
    np.testing.assert_allclose(p.logits, logits, rtol=1e-4, atol=1e-5)
    y = scipy.special.expit(np.float64(logits))
    truth = np.sum(X * np.log(y) + (1 - X) * np.log(1 - y))
    np.testing.assert_allclose(p.log_prob(X), truth, rtol=1e-5)


@pytest.mark.parametrize("hidden_dims", HIDDEN_DIMS)
@pytest.mark.parametrize("squash", [None, jax.nn.sigmoid])
def test_gaussian_mlp_is_appendix_c_2(hidden_dims, squash):
    """The sigmoid mean is that of the Frey Face decoder (section 5)."""
    module = nets.GaussianMLP(LATENT_DIM, hidden_dims, mean_activation=squash)
    params = init(module, DATA_DIM)
    h = hidden(params, X, len(hidden_dims))
    mean = layer(params, "mean", h)
    mean = mean if squash is None else scipy.special.expit(mean)
    log_variance = layer(params, "log_variance", h)
    q = module.apply(params, X)
    assert isinstance(q, aevb.DiagNormal)
    np.testing.assert_allclose(q.loc, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q.log_scale, log_variance / 2, rtol=1e-4, atol=1e-5)


def test_the_activation_is_an_argument():
    module = nets.BernoulliMLP(DATA_DIM, (5, 4), activation=nn.relu)
    params, z = init(module, LATENT_DIM), np.array([0.5, -2.0], np.float32)
    h = hidden(params, z, 2, activation=partial(np.maximum, 0))
    logits = module.apply(params, z).logits
    np.testing.assert_allclose(logits, layer(params, "logits", h), rtol=1e-4, atol=1e-5)


def test_every_initialiser_is_that_of_its_layer():
    """Constants, to be told apart; b₅ and, by default, W₅ start at zero."""
    constant = nn.initializers.constant
    shared = {
        "hidden_dims": (3,),
        "kernel_init": constant(1.0),
        "bias_init": constant(2.0),
    }
    decoder = nets.BernoulliMLP(4, **shared, output_bias_init=constant(3.0))
    encoder = nets.GaussianMLP(4, **shared)
    warm = nets.GaussianMLP(4, **shared, log_variance_init=constant(4.0))
    values = {
        name: jax.tree.map(lambda leaf: set(np.unique(leaf)), module.init(KEY, X))
        for name, module in (("decoder", decoder), ("encoder", encoder), ("warm", warm))
    }
    default = {"kernel": {1.0}, "bias": {2.0}}
    assert values["decoder"]["params"] == {
        "hidden_0": default,
        "logits": {"kernel": {1.0}, "bias": {3.0}},
    }
    assert values["encoder"]["params"] == {
        "hidden_0": default,
        "mean": default,
        "log_variance": {"kernel": {0.0}, "bias": {0.0}},
    }
    assert values["warm"]["params"]["log_variance"] == {"kernel": {4.0}, "bias": {0.0}}


def test_an_encoder_starts_with_unit_variances():
    module = nets.GaussianMLP(LATENT_DIM, (5,))
    q = module.apply(module.init(KEY, X), X)
    np.testing.assert_array_equal(q.log_scale, np.zeros(LATENT_DIM))


def test_a_floor_holds_the_scale_and_gives_it_no_gradient():
    floor = float(np.log(0.1))
    shared = {"log_variance_init": nn.initializers.normal(30.0)}
    free = nets.GaussianMLP(20, (5,), **shared)
    held = nets.GaussianMLP(20, (5,), **shared, min_log_scale=floor)
    params = free.init(KEY, X)
    q, floored = free.apply(params, X), held.apply(params, X)
    below = np.asarray(q.log_scale) < floor
    assert 0 < below.sum() < 20
    np.testing.assert_array_equal(floored.loc, q.loc)
    truth = np.where(below, np.float32(floor), q.log_scale)
    np.testing.assert_array_equal(floored.log_scale, truth)
    gradient = jax.grad(lambda p: jnp.sum(held.apply(p, X).log_scale))(params)
    bias = gradient["params"]["log_variance"]["bias"]
    np.testing.assert_array_equal(np.asarray(bias) == 0, below)


def make_model(dot_general=jax.lax.dot_general, hidden_dims=(32,), data_dim=DATA_DIM):
    return nets.linen_model(
        nets.GaussianMLP(LATENT_DIM, hidden_dims, dot_general=dot_general),
        nets.BernoulliMLP(data_dim, hidden_dims, dot_general=dot_general),
    )


def test_linen_model_is_the_two_modules():
    model = make_model()
    params = model.init(KEY, X)
    assert set(params) == {"encoder", "decoder"}
    q = nets.GaussianMLP(LATENT_DIM, (32,)).apply({"params": params["encoder"]}, X)
    jax.tree.map(np.testing.assert_array_equal, model.encode(params, X), q)
    p = nets.BernoulliMLP(DATA_DIM, (32,)).apply({"params": params["decoder"]}, q.loc)
    jax.tree.map(np.testing.assert_array_equal, model.decode(params, q.loc), p)
    assert model.prior(params) is None


def test_init_depends_on_the_key_and_not_on_the_values_of_x():
    model = make_model()
    params = model.init(KEY, X)
    same = model.init(KEY, np.zeros_like(X))
    other = model.init(jax.random.key(1), X)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    kernels = [p["encoder"]["hidden_0"]["kernel"] for p in (params, other)]
    assert not np.any(np.equal(*kernels))


@pytest.mark.parametrize("shape", [(), (2, 6), (6, 1), (2, 3, 1)])
def test_a_batch_or_an_image_is_an_error(shape):
    model = make_model()
    params = model.init(KEY, X)
    for apply, name in ((model.encode, "GaussianMLP"), (model.decode, "BernoulliMLP")):
        with pytest.raises(ValueError, match=f"{name} maps one datapoint, got shape"):
            jax.eval_shape(partial(apply, params), jnp.zeros(shape))
    with pytest.raises(ValueError, match=r"wrap it in jax\.vmap, or flatten"):
        jax.eval_shape(model.init, KEY, jnp.zeros(shape))


class TestBfloat16:
    """Matrix products with bfloat16 operands and float32 sums."""

    dimensions = (((0,), (0,)), ((), ()))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(40, 30)).astype(np.float32)
    h = rng.normal(size=(50, 40)).astype(np.float32)

    def batch(self, h, kernel, dot=nets.bfloat16_dot_general):
        return jax.vmap(lambda row: dot(row, kernel, self.dimensions))(h)

    def test_the_value_is_the_float32_product_of_rounded_operands(self):
        rounded = [
            np.asarray(jnp.asarray(operand, jnp.bfloat16), np.float32)
            for operand in (self.h, self.kernel)
        ]
        product = self.batch(self.h, self.kernel)
        assert product.dtype == jnp.float32
        np.testing.assert_allclose(product, rounded[0] @ rounded[1], atol=1e-4)
        assert np.max(np.abs(product - self.h @ self.kernel)) > 1e-3

    def test_the_gradient_is_the_float32_one_to_bfloat16_rounding(self):
        """Half of 2⁻⁸ of the product of norms for each operand and the result."""
        cotangent = self.rng.normal(size=(50, 30)).astype(np.float32)
        _, vjp = jax.vjp(self.batch, self.h, self.kernel)
        grads = vjp(cotangent)
        truths = [(cotangent, self.kernel.T), (self.h.T, cotangent)]
        for grad, (lhs, rhs) in zip(grads, truths, strict=True):
            assert grad.dtype == jnp.float32
            norms = np.outer(np.linalg.norm(lhs, axis=1), np.linalg.norm(rhs, axis=0))
            assert np.all(np.abs(grad - lhs @ rhs) < 3 * 2.0**-9 * norms)
            assert np.any(grad != lhs @ rhs)

    def test_every_product_is_bfloat16_and_none_is_of_one_datapoint(self):
        """The step of a minibatch: 5 layers forward, and backward 5 gradients of
        weights and 4 of inputs; a product a datapoint would have batching dimensions.
        """
        model = make_model(nets.bfloat16_dot_general, hidden_dims=(5,))

        def objective(params, key, xs):
            args = partial(model.encode, params), partial(model.decode, params)
            keys = jax.random.split(key, len(xs))
            return jnp.mean(jax.vmap(partial(aevb.elbo, *args))(keys, xs).value)

        step = jax.jit(jax.grad(objective))
        lowered = step.lower(model.init(KEY, X), KEY, np.tile(X, (7, 1)))
        text = lowered.as_text()
        dots = [line for line in text.splitlines() if "dot_general" in line]
        assert len(dots) == 5 + 5 + 4
        for dot in dots:
            operands = dot.rpartition("->")[0].rpartition(" : ")[2]
            assert operands.count("xbf16>") == 2, dot
            assert "tensor<7x" in operands, dot
            assert "batching_dims" not in dot, dot

    def test_the_bound_is_close_to_that_of_float32(self):
        """To 0.2 %, on a model of the size of the paper's."""
        data_dim = 784
        models = [
            make_model(dot, (500,), data_dim)
            for dot in (jax.lax.dot_general, nets.bfloat16_dot_general)
        ]
        xs = jnp.asarray(self.rng.integers(0, 2, size=(20, data_dim)), jnp.float32)
        params = models[0].init(KEY, xs[0])

        @partial(jax.jit, static_argnums=0)
        def bounds(model):
            args = partial(model.encode, params), partial(model.decode, params)
            return jax.vmap(partial(aevb.elbo, *args))(jax.random.split(KEY, 20), xs)

        full, rounded = (bounds(model).value for model in models)
        assert np.any(full != rounded)
        np.testing.assert_allclose(rounded, full, rtol=2e-3)


class LearnedPrior(nn.Module):
    """N(loc, 1) with a learned mean."""

    @nn.compact
    def __call__(self):
        loc = self.param("loc", nn.initializers.ones, (LATENT_DIM,))
        return DiagNormal(loc, jnp.zeros(LATENT_DIM))


def test_a_prior_with_parameters_is_learned_and_moves_no_other_weight():
    encoder = nets.GaussianMLP(LATENT_DIM, (32,))
    decoder = nets.BernoulliMLP(DATA_DIM, (32,))
    model = nets.linen_model(encoder, decoder, LearnedPrior())
    params = model.init(KEY, X)
    without = nets.linen_model(encoder, decoder).init(KEY, X)
    for name in ("encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, params[name], without[name])

    def bound(params):
        args = partial(model.encode, params), partial(model.decode, params)
        return aevb.elbo(*args, KEY, X, prior=model.prior(params)).value

    # d/dm of -KL(q || N(m, 1)) is mu_q - m.
    slope = jax.grad(bound)(params)["prior"]["loc"]
    expected = model.encode(params, X).loc - params["prior"]["loc"]
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    fixed = DiagNormal(jnp.ones(LATENT_DIM), jnp.zeros(LATENT_DIM))
    assert nets.linen_model(encoder, decoder, fixed).prior(without) is fixed


class RandomPrior(nn.Module):
    """A prior that starts at random, and shows the key that it was given."""

    @nn.compact
    def __call__(self):
        loc = self.param("loc", lambda key: jax.random.normal(key, (LATENT_DIM,)))
        return DiagNormal(loc, jnp.zeros(LATENT_DIM))


def test_the_prior_starts_from_a_key_that_nothing_else_uses():
    """`split(key, 3)[i]` is `fold_in(key, i)`: 0, 1 and 2 are taken."""
    networks = nets.GaussianMLP(LATENT_DIM, (3,)), nets.BernoulliMLP(DATA_DIM, (3,))
    found = nets.linen_model(*networks, RandomPrior()).init(KEY, X)["prior"]["loc"]
    for key in jax.random.split(KEY, 3):
        taken = RandomPrior().init(key)["params"]["loc"]
        assert not np.any(found == taken)


def test_a_prior_with_parameters_trains():
    """A step goes from its mean m towards the mean of all q(z|x): d(-KL)/dm."""
    model = nets.linen_model(
        nets.GaussianMLP(LATENT_DIM, (4,)),
        nets.BernoulliMLP(DATA_DIM, (4,)),
        LearnedPrior(),
    )
    xs = np.random.default_rng(0).integers(0, 2, (20, DATA_DIM)).astype(np.float32)

    def bound(params, key, x):
        args = partial(model.encode, params), partial(model.decode, params)
        return aevb.elbo(*args, key, x, prior=model.prior(params)).value, None

    objective = aevb.map_objective(bound, num_datapoints=len(xs))
    algorithm = aevb.gradient_algorithm(objective, optax.sgd(0.1))
    state, update = algorithm.init(model.init(KEY, X)), jax.jit(algorithm.update)
    for step in range(3):
        loc = state.params["prior"]["loc"]
        posteriors = jax.vmap(partial(model.encode, state.params))(xs)
        truth = loc + 0.1 * (jnp.mean(posteriors.loc, axis=0) - loc)
        state, _ = update(jax.random.key(step), state, xs)
        np.testing.assert_allclose(state.params["prior"]["loc"], truth, rtol=1e-5)


@pytest.mark.parametrize(
    ("dot_general", "precision"),
    [
        (nets.float32_dot_general, "HIGHEST"),
        (nets.tensorfloat32_dot_general, "HIGH"),
    ],
)
def test_products_say_their_precision_forward_and_backward(dot_general, precision):
    """A float32 product without one is bfloat16 on a TPU and TF32 on a GPU."""
    decoder = nets.BernoulliMLP(DATA_DIM, (32,), dot_general=dot_general)
    z = jnp.zeros((5, LATENT_DIM))
    params = jax.eval_shape(decoder.init, KEY, z[0])

    def loss(params, zs):
        return jax.vmap(lambda z: decoder.apply(params, z).log_prob(X))(zs).sum()

    exported = export.export(
        jax.jit(jax.grad(loss, argnums=(0, 1))), platforms=["tpu", "cuda"]
    )(params, z)
    lines = exported.mlir_module().splitlines()
    products = [line for line in lines if "stablehlo.dot_general" in line]
    assert len(products) >= 5  # two forward, three or four backward
    for line in products:
        assert f"precision = [{precision}, {precision}]" in line


@pytest.mark.default_flags
def test_on_a_cpu_float32_is_what_jax_does_without_being_asked():
    lhs = jax.random.normal(KEY, (40, 30))
    rhs = jax.random.normal(jax.random.key(1), (30, 20))
    dims = (((1,), (0,)), ((), ()))
    plain = jax.jit(lambda a, b: jax.lax.dot_general(a, b, dims))(lhs, rhs)
    for product in (nets.float32_dot_general, nets.tensorfloat32_dot_general):
        found = jax.jit(lambda a, b, f=product: f(a, b, dims))(lhs, rhs)
        np.testing.assert_array_equal(found, plain)
