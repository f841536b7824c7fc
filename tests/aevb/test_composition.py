"""One model, the same weights and noise, written in each library: the same bound.

Each function makes `encode` and `decode` (and what else `elbo` takes) from the weights
`{layer: (kernel, bias)}`, so that the gradient with respect to them flows through it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aevb

DATA_DIM, HIDDEN_DIM, LATENT_DIM = 6, 5, 3
LAYERS = {
    "encoder_hidden": (DATA_DIM, HIDDEN_DIM),
    "mean": (HIDDEN_DIM, LATENT_DIM),
    "log_variance": (HIDDEN_DIM, LATENT_DIM),
    "decoder_hidden": (LATENT_DIM, HIDDEN_DIM),
    "logits": (HIDDEN_DIM, DATA_DIM),
}
X = np.array([0, 1, 1, 0, 1, 0], np.float32)


def plain(weights):
    def dense(name, h):
        kernel, bias = weights[name]
        return h @ kernel + bias

    def encode(x):
        h = jnp.tanh(dense("encoder_hidden", x))
        return aevb.DiagNormal(dense("mean", h), 0.5 * dense("log_variance", h))

    def decode(z):
        return aevb.Bernoulli(dense("logits", jnp.tanh(dense("decoder_hidden", z))))

    return encode, decode, {}


def linen(weights):
    from aevb import nets

    model = nets.linen_model(
        nets.GaussianMLP(LATENT_DIM, (HIDDEN_DIM,)),
        nets.BernoulliMLP(DATA_DIM, (HIDDEN_DIM,)),
    )
    layers = {name: {"kernel": w, "bias": b} for name, (w, b) in weights.items()}
    params = {
        "encoder": {
            "hidden_0": layers["encoder_hidden"],
            "mean": layers["mean"],
            "log_variance": layers["log_variance"],
        },
        "decoder": {
            "hidden_0": layers["decoder_hidden"],
            "logits": layers["logits"],
        },
    }
    return partial(model.encode, params), partial(model.decode, params), {}


def nnx(weights):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            for name, (num_inputs, num_outputs) in LAYERS.items():
                setattr(self, name, nnx.Linear(num_inputs, num_outputs, rngs=rngs))

        def encode(self, x):
            h = jnp.tanh(self.encoder_hidden(x))
            return aevb.DiagNormal(self.mean(h), 0.5 * self.log_variance(h))

        def decode(self, z):
            return aevb.Bernoulli(self.logits(jnp.tanh(self.decoder_hidden(z))))

    graph, state = nnx.split(Model(nnx.Rngs(0)))
    for name, (kernel, bias) in weights.items():
        state[name]["kernel"].set_value(kernel)
        state[name]["bias"].set_value(bias)
    return (
        lambda x: nnx.merge(graph, state).encode(x),
        lambda z: nnx.merge(graph, state).decode(z),
        {},
    )


def haiku(weights):
    import haiku as hk

    def encode(x):
        h = jnp.tanh(hk.Linear(HIDDEN_DIM, name="encoder_hidden")(x))
        mean = hk.Linear(LATENT_DIM, name="mean")(h)
        log_variance = hk.Linear(LATENT_DIM, name="log_variance")(h)
        return aevb.DiagNormal(mean, 0.5 * log_variance)

    def decode(z):
        h = jnp.tanh(hk.Linear(HIDDEN_DIM, name="decoder_hidden")(z))
        return aevb.Bernoulli(hk.Linear(DATA_DIM, name="logits")(h))

    params = {name: {"w": w, "b": b} for name, (w, b) in weights.items()}
    encode, decode = (
        hk.without_apply_rng(hk.transform(function)).apply
        for function in (encode, decode)
    )
    return partial(encode, params), partial(decode, params), {}


def equinox(weights):
    import equinox as eqx

    class Model(eqx.Module):
        layers: dict[str, eqx.nn.Linear]

        def encode(self, x):
            h = jnp.tanh(self.layers["encoder_hidden"](x))
            log_variance = self.layers["log_variance"](h)
            return aevb.DiagNormal(self.layers["mean"](h), 0.5 * log_variance)

        def decode(self, z):
            h = jnp.tanh(self.layers["decoder_hidden"](z))
            return aevb.Bernoulli(self.layers["logits"](h))

    key = jax.random.key(0)
    model = Model(
        {name: eqx.nn.Linear(*dims, key=key) for name, dims in LAYERS.items()}
    )
    for name, (kernel, bias) in weights.items():
        model = eqx.tree_at(
            lambda model, name=name: (
                model.layers[name].weight,
                model.layers[name].bias,
            ),
            model,
            (kernel.T, bias),
        )
    return model.encode, model.decode, {}


def numpyro(weights):
    import numpyro.distributions as dist

    inner_encode, inner_decode, _ = plain(weights)

    def encode(x):
        q = inner_encode(x)
        return dist.Normal(q.loc, jnp.exp(q.log_scale)).to_event(1)

    def decode(z):
        return dist.Bernoulli(logits=inner_decode(z).logits).to_event(1)

    prior = dist.Normal(jnp.zeros(LATENT_DIM), jnp.ones(LATENT_DIM)).to_event(1)
    return encode, decode, {"prior": prior, "kl": dist.kl_divergence}


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)

    return {name: (draw(*shape), draw(shape[1])) for name, shape in LAYERS.items()}


def bounds(make, weights):
    """Every estimator of a minibatch of two draws, and the gradient of their sum."""

    def total(weights):
        encode, decode, options = make(weights)
        kl = {"kl": options.pop("kl")} if "kl" in options else {}

        def estimates(key):
            args = encode, decode, key, X
            return {
                "elbo": aevb.elbo(*args, **options, **kl).value,
                "stop_score": aevb.elbo_generic(
                    *args, **options, stop_score=True
                ).value,
                "iwae": aevb.iwae(*args, **options, num_samples=3),
            }

        values = jax.vmap(estimates)(jax.random.split(jax.random.key(0), 2))
        return sum(jnp.sum(value) for value in values.values()), values

    return jax.jit(jax.grad(total, has_aux=True))(weights)


@pytest.fixture(scope="module")
def reference(weights):
    return bounds(plain, weights)


@pytest.mark.parametrize("make", [linen, nnx, haiku, equinox, numpyro])
def test_the_bound_and_its_gradient_are_the_same_in_every_library(
    make, weights, reference, standard_promotion
):
    grads, values = bounds(make, weights)
    for name, value in values.items():
        np.testing.assert_allclose(value, reference[1][name], rtol=1e-5, err_msg=name)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), grads, reference[0]
    )


def test_our_kl_and_numpyros_may_be_mixed(weights, standard_promotion):
    """A numpyro q beside our prior has no closed form; `elbo_generic` needs none."""
    encode, decode, _ = numpyro(weights)
    args = encode, decode, jax.random.key(0), X
    with pytest.raises(TypeError, match=r"Independent to DiagNormal: .*elbo_generic"):
        aevb.elbo(*args)
    ours = plain(weights)[:2]
    np.testing.assert_allclose(
        aevb.elbo_generic(*args).value, aevb.elbo_generic(*ours, *args[2:]).value,
        rtol=1e-5,
    )  # fmt: skip


def test_a_numpyro_distribution_without_to_event_is_told_so(
    weights, standard_promotion
):
    import numpyro.distributions as dist

    def decode(z):
        return dist.Bernoulli(logits=plain(weights)[1](z).logits)

    with pytest.raises(ValueError, match=r"scalar: .* \(numpyro: \.to_event\(1\)\)"):
        aevb.elbo(plain(weights)[0], decode, jax.random.key(0), X)
