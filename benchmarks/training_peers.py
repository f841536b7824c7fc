"""Programs that train the same networks as `experiments.mnist`, written as others do.

Each is `peer(case, images) -> call`: one call trains so many updates on images that
are in memory, and returns when they are done. A peer whose library is not installed
raises ImportError.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

__all__ = ["PEERS", "Case", "products"]

DATA_DIM = 784


class Case(NamedTuple):
    """What is trained.

    Attributes:
      net: "paper" (784-500-20, tanh, Adam) or "default" (784-500-500-40, GELU, NAdam).
      batch_size: M.
      binarization: "dynamic" (drawn anew every time) or "static".
      precision: of the matrix products, "float32" or "bfloat16".
    """

    net: str
    batch_size: int
    binarization: str
    precision: str

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """The widths of the encoder."""
        return (500,) if self.net == "paper" else (500, 500)

    @property
    def latent_dim(self) -> int:
        """N_z."""
        return 20 if self.net == "paper" else 40

    @property
    def learning_rate(self) -> float:
        """Small: the time of a step does not depend on it."""
        return 1e-3


def products(case: Case, images: np.ndarray) -> Callable[[], object]:
    """The matrix products of the updates alone, one jitted program: the limit.

    Forward, with respect to the inputs and with respect to the weights, at the shapes
    of the case; nothing is activated, drawn, summed or updated.
    """
    dtype = jnp.dtype(case.precision)
    widths = case.hidden_dims
    generator = np.random.default_rng(0)

    def weight(rows: int, columns: int) -> jax.Array:
        normal = generator.normal(size=(rows, columns)) / math.sqrt(rows)
        return jnp.asarray(normal, dtype)

    def chain(dims: tuple[int, ...]) -> list[jax.Array]:
        return [weight(*pair) for pair in pairwise(dims)]

    weights = {
        "encoder": chain((DATA_DIM, *widths)),
        "heads": [weight(widths[-1], case.latent_dim) for _ in range(2)],
        "decoder": chain((case.latent_dim, *widths[::-1], DATA_DIM)),
    }
    num_steps = len(images) // case.batch_size
    shape = (num_steps, case.batch_size, DATA_DIM)
    xs = jnp.asarray(generator.normal(size=shape), dtype)

    def dot(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
        return lax.dot_general(
            a,
            b,
            (((axes[0],), (axes[1],)), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    def backward(inputs: list, weights: list, g: jax.Array) -> tuple[list, jax.Array]:
        """The weights' gradients, last layer first, and that of the first output."""
        grads = []
        for h, w in zip(inputs[::-1], weights[::-1], strict=True):
            grads.append(dot(h, g.astype(dtype), (0, 0)))
            if h is not inputs[0]:
                g = dot(g.astype(dtype), w, (1, 1))
        return grads, g

    def step(weights: dict, x: jax.Array) -> tuple:
        hs, zs = [x], []
        for w in weights["encoder"]:
            hs.append(dot(hs[-1], w, (1, 0)).astype(dtype))
        mean, log_variance = (
            dot(hs[-1], w, (1, 0)).astype(dtype) for w in weights["heads"]
        )
        zs.append(mean)
        for w in weights["decoder"]:
            zs.append(dot(zs[-1], w, (1, 0)).astype(dtype))
        decoder, g = backward(zs[:-1], weights["decoder"], zs[-1])
        g = dot(g.astype(dtype), weights["decoder"][0], (1, 1))
        h, gs = hs[-1], (g.astype(dtype), log_variance)
        heads = [dot(h, g, (0, 0)) for g in gs]
        back = [dot(g, w, (1, 1)) for g, w in zip(gs, weights["heads"], strict=True)]
        encoder, _ = backward(hs[:-1], weights["encoder"], back[0])
        return decoder, heads, encoder, back[1]

    @jax.jit
    def program(weights: dict, xs: jax.Array) -> Any:
        shapes = jax.eval_shape(partial(step, weights), xs[0])
        first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return lax.scan(lambda _, x: (step(weights, x), None), first, xs)[0]

    return lambda: program(weights, xs)


class _Encoder(nn.Module):
    case: Case

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for width in self.case.hidden_dims:
            x = _activation(self.case)(_dense(self.case, width)(x))
        return (
            _dense(self.case, self.case.latent_dim)(x).astype(jnp.float32),
            _dense(self.case, self.case.latent_dim)(x).astype(jnp.float32),
        )


class _Decoder(nn.Module):
    case: Case

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for width in self.case.hidden_dims[::-1]:
            z = _activation(self.case)(_dense(self.case, width)(z))
        return _dense(self.case, DATA_DIM)(z).astype(jnp.float32)


def _activation(case: Case) -> Callable[[jax.Array], jax.Array]:
    return nn.tanh if case.net == "paper" else nn.gelu


def _dense(case: Case, width: int) -> nn.Dense:
    # As flax users say it: parameters float32, computation in the other type.
    return nn.Dense(width, dtype=jnp.dtype(case.precision))


def _optax(case: Case) -> optax.GradientTransformation:
    optimizer = optax.adam if case.net == "paper" else optax.nadam
    return optimizer(case.learning_rate)


def _prepared(case: Case, images: np.ndarray) -> np.ndarray:
    """Grey values in [0, 1], or pixels drawn once."""
    grey = images.astype(np.float32) / 255
    if case.binarization == "dynamic":
        return grey
    return (np.random.default_rng(0).random(grey.shape) < grey).astype(np.float32)


def jit_loop(case: Case, images: np.ndarray) -> Callable[[], object]:
    """A loop in Python over a jitted step, as in flax's example of a VAE."""
    encoder, decoder, optimizer = _Encoder(case), _Decoder(case), _optax(case)
    data = _prepared(case, images)

    def loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        mean, log_variance = encoder.apply(params["encoder"], x)
        eps = jax.random.normal(key, mean.shape)
        logits = decoder.apply(
            params["decoder"], mean + jnp.exp(0.5 * log_variance) * eps
        )
        nll = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
        kl = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance), axis=-1)
        return jnp.mean(nll + kl)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, key: jax.Array) -> tuple:
        pixel_key, noise_key = jax.random.split(key)
        if case.binarization == "dynamic":
            x = jax.random.bernoulli(pixel_key, x).astype(jnp.float32)
        grads = jax.grad(loss)(params, x, noise_key)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(0)
    params = {
        "encoder": encoder.init(key, jnp.zeros((1, DATA_DIM))),
        "decoder": decoder.init(key, jnp.zeros((1, case.latent_dim))),
    }
    first = (params, optimizer.init(params))

    def call() -> object:
        params, state = first
        order = np.random.default_rng(0).permutation(len(data))
        for i in range(len(data) // case.batch_size):
            batch = data[order[i * case.batch_size : (i + 1) * case.batch_size]]
            step_key = jax.random.fold_in(key, i)
            params, state = step(params, state, batch, step_key)
        return params

    return call


def numpyro(case: Case, images: np.ndarray) -> Callable[[], object]:
    """SVI with an epoch in one jitted loop, as in numpyro's example of a VAE.

    As there, the loss is added up; it is what a user looks at.
    """
    import numpyro
    from numpyro import distributions as dist
    from numpyro.contrib.module import flax_module
    from numpyro.infer import SVI, TraceMeanField_ELBO

    def model(x: jax.Array) -> None:
        decode = flax_module("decoder", _Decoder(case), input_shape=(case.latent_dim,))
        with numpyro.plate("batch", len(x)):
            standard = dist.Normal(jnp.zeros(case.latent_dim), 1).to_event(1)
            z = numpyro.sample("z", standard)
            likelihood = dist.Bernoulli(logits=decode(z)).to_event(1)
            numpyro.sample("x", likelihood, obs=x)

    def guide(x: jax.Array) -> None:
        encode = flax_module("encoder", _Encoder(case), input_shape=(DATA_DIM,))
        mean, log_variance = encode(x)
        with numpyro.plate("batch", len(x)):
            scale = jnp.exp(0.5 * log_variance)
            numpyro.sample("z", dist.Normal(mean, scale).to_event(1))

    optimizer = numpyro.optim.optax_to_numpyro(_optax(case))
    svi = SVI(model, guide, optimizer, TraceMeanField_ELBO())
    data = jnp.asarray(_prepared(case, images))
    size = case.batch_size

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> tuple:
        order = jax.random.permutation(key, len(data))

        def step(i: jax.Array, carry: tuple) -> tuple:
            total, state = carry
            x = data[lax.dynamic_slice_in_dim(order, i * size, size)]
            if case.binarization == "dynamic":
                pixels = jax.random.bernoulli(jax.random.fold_in(key, i), x)
                x = pixels.astype(jnp.float32)
            state, loss = svi.update(state, x)
            return total + loss, state

        return lax.fori_loop(0, len(data) // size, step, (jnp.zeros(()), state))

    first = svi.init(jax.random.key(0), data[:size])
    return lambda: epoch(first, jax.random.key(1))[0]


def torch_eager(
    case: Case, images: np.ndarray, *, compiled: bool = False
) -> Callable[[], object]:
    """PyTorch, data in memory, fused Adam; bfloat16 by autocast."""
    import torch
    from torch import nn as tnn

    act = tnn.Tanh if case.net == "paper" else partial(tnn.GELU, approximate="tanh")

    def layers(dims: tuple[int, ...]) -> list:
        made: list = []
        for rows, columns in pairwise(dims):
            made += [tnn.Linear(rows, columns), act()]
        return made

    class VAE(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = case.hidden_dims
            self.hidden = tnn.Sequential(*layers((DATA_DIM, *widths)))
            self.mean = tnn.Linear(widths[-1], case.latent_dim)
            self.log_variance = tnn.Linear(widths[-1], case.latent_dim)
            self.decoder = tnn.Sequential(
                *layers((case.latent_dim, *widths[::-1])),
                tnn.Linear(widths[0], DATA_DIM),
            )

        def forward(self, x: Any) -> Any:
            bfloat16 = case.precision == "bfloat16"
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                h = self.hidden(x)
                mean, log_variance = self.mean(h).float(), self.log_variance(h).float()
                z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                logits = self.decoder(z).float()
            nll = tnn.functional.binary_cross_entropy_with_logits(
                logits, x, reduction="sum"
            )
            kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
            return (nll + kl) / len(x)

    torch.compiler.reset()  # it counts how often it compiled the same lines
    model = VAE()
    loss = torch.compile(model, dynamic=False) if compiled else model
    if case.net == "paper":
        optimizer: Any = torch.optim.Adam(
            model.parameters(), case.learning_rate, fused=True
        )
    else:  # has no fused form
        optimizer = torch.optim.NAdam(
            model.parameters(), case.learning_rate, foreach=True
        )
    data = torch.from_numpy(_prepared(case, images))

    def call() -> object:
        order = torch.randperm(len(data))
        for i in range(len(data) // case.batch_size):
            x = data[order[i * case.batch_size : (i + 1) * case.batch_size]]
            if case.binarization == "dynamic":
                x = torch.bernoulli(x)
            optimizer.zero_grad(set_to_none=True)
            loss(x).backward()
            optimizer.step()
        return None

    return call


PEERS: dict[str, Callable[[Case, np.ndarray], Callable[[], object]]] = {
    "jit loop": jit_loop,
    "numpyro": numpyro,
    "PyTorch": torch_eager,
    "PyTorch compiled": partial(torch_eager, compiled=True),
}
