"""log p(x) by importance sampling with K = 5000: this package beside PyTorch.

    pip install torch
    python -m benchmarks.importance_speed              # a few minutes on two cores

The 784-500-20 model of the paper, the same weights and datapoints in both, float32 and
bfloat16 matrix products. Programs take turns, and the fastest of their repeats counts,
so that other load on the machine hits both. Each may choose its chunk size. The last
column is the share of the time that the decoder's matrix products would take alone, at
the rate that one product of that size reaches in the same library.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

import aevb
from aevb import nets

DATA_DIM, HIDDEN_DIM, LATENT_DIM = 784, 500, 20
CHUNK_SIZES = (250, 1000, 5000)


def jax_model(dot_general: Callable[..., jax.Array]) -> aevb.Model:
    """The model of section 5: one hidden layer of 500 tanh units."""
    options = {"hidden_dims": (HIDDEN_DIM,), "dot_general": dot_general}
    return nets.linen_model(
        nets.GaussianMLP(LATENT_DIM, **options), nets.BernoulliMLP(DATA_DIM, **options)
    )


def torch_log_likelihood(
    weights: dict, xs: torch.Tensor, num_samples: int, chunk_size: int
) -> torch.Tensor:
    """The same estimate as PyTorch code would make it: log p(x) of each datapoint."""
    values = []
    for x in xs:
        hidden = torch.tanh(torch.addmv(weights["b3"], weights["w3"].T, x))
        loc = (hidden @ weights["w4"] + weights["b4"]).float()
        log_scale = 0.5 * (hidden @ weights["w5"] + weights["b5"]).float()
        log_w = []
        for first in range(0, num_samples, chunk_size):
            size = min(chunk_size, num_samples - first)
            eps = torch.randn(size, LATENT_DIM)
            z = loc + torch.exp(log_scale) * eps
            hidden = torch.tanh(
                torch.addmm(weights["b1"], z.to(weights["w1"].dtype), weights["w1"])
            )
            logits = torch.addmm(weights["b2"], hidden, weights["w2"]).float()
            log_p_x = -torch.nn.functional.binary_cross_entropy_with_logits(
                logits, x.float().expand_as(logits), reduction="none"
            ).sum(-1)
            # The normalisers of p(z) and q(z|x) cancel but for log sigma.
            log_ratio = 0.5 * (eps**2 - z**2).sum(-1) + log_scale.sum()
            log_w.append(log_p_x + log_ratio)
        values.append(torch.logsumexp(torch.cat(log_w), 0) - math.log(num_samples))
    return torch.stack(values)


def torch_weights(params: dict, dtype: torch.dtype) -> dict:
    """The flax parameters as torch tensors, [in, out]."""
    encoder, decoder = params["encoder"], params["decoder"]
    layers = {
        "1": decoder["hidden_0"],
        "2": decoder["logits"],
        "3": encoder["hidden_0"],
        "4": encoder["mean"],
        "5": encoder["log_variance"],
    }
    return {
        letter + name: torch.tensor(np.asarray(layer[leaf])).to(dtype)
        for name, layer in layers.items()
        for letter, leaf in (("w", "kernel"), ("b", "bias"))
    }


def product_rate(product: Callable[[], object]) -> float:
    """GFLOP/s of the decoder's large matrix product, the best of 20."""
    seconds = min(elapsed(product) for _ in range(20))
    return 2e-9 * 5000 * HIDDEN_DIM * DATA_DIM / seconds


def elapsed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Prints one line a program: time a datapoint, their ratio, the products' share."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-datapoints", type=int, default=4)
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()

    models = {
        "float32": jax_model(jax.lax.dot_general),
        "bfloat16": jax_model(nets.bfloat16_dot_general),
    }
    # Weights twice as large as at the start of training: logits of some size.
    params = models["float32"].init(jax.random.key(0), jnp.zeros(DATA_DIM))
    params = jax.tree.map(lambda leaf: 2 * leaf, params)
    shape = (args.num_datapoints, DATA_DIM)
    xs = jax.random.bernoulli(jax.random.key(1), 0.3, shape).astype(jnp.float32)
    generator = np.random.default_rng(0)
    lhs = generator.normal(size=(5000, HIDDEN_DIM)).astype(np.float32)
    rhs = generator.normal(size=(HIDDEN_DIM, DATA_DIM)).astype(np.float32)

    programs: dict[tuple[str, str, int], Callable[[], np.ndarray]] = {}
    rates: dict[tuple[str, str], float] = {}
    for name, model in models.items():
        dtype = getattr(torch, name)
        weights = torch_weights(params, dtype)
        torch_xs = torch.tensor(np.asarray(xs)).to(dtype)
        left, right = torch.tensor(lhs).to(dtype), torch.tensor(rhs).to(dtype)
        rates["torch", name] = product_rate(partial(torch.mm, left, right))
        dot = jax.jit(partial(jnp.dot, preferred_element_type=jnp.float32))
        operands = (jnp.asarray(lhs, name), jnp.asarray(rhs, name))
        rates["aevb", name] = product_rate(
            lambda dot=dot, operands=operands: dot(*operands).block_until_ready()
        )
        for chunk_size in CHUNK_SIZES:
            estimate = partial(
                aevb.importance_log_likelihood,
                partial(model.encode, params),
                partial(model.decode, params),
                num_samples=args.num_samples,
                chunk_size=chunk_size,
            )
            ours = jax.jit(partial(aevb.map_datapoints, estimate, jax.random.key(2)))
            programs["aevb", name, chunk_size] = lambda ours=ours: np.asarray(
                ours(xs).log_likelihood
            )
            programs["torch", name, chunk_size] = (
                lambda weights=weights, torch_xs=torch_xs, chunk_size=chunk_size: (
                    torch_log_likelihood(
                        weights, torch_xs, args.num_samples, chunk_size
                    ).numpy()
                )
            )

    with torch.inference_mode():
        values = {which: run() for which, run in programs.items()}  # compiles
        seconds = dict.fromkeys(programs, math.inf)
        for _ in range(args.repeats):
            for which, run in programs.items():
                seconds[which] = min(seconds[which], elapsed(run))

    flops = 2 * args.num_samples * HIDDEN_DIM * (LATENT_DIM + DATA_DIM)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ", end="")
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print("program   products  chunk   ms/point   torch/it   GFLOP/s   products' share")
    for name in models:
        best = {
            library: min(CHUNK_SIZES, key=lambda c: seconds[library, name, c])
            for library in ("torch", "aevb")
        }
        reference = seconds["torch", name, best["torch"]]
        for library, chunk_size in best.items():
            time_taken = seconds[library, name, chunk_size]
            rate = rates[library, name]
            share = flops / (1e9 * rate) * args.num_datapoints / time_taken
            print(
                f"{library:8}  {name:8}  {chunk_size:5}   "
                f"{1e3 * time_taken / args.num_datapoints:8.1f}   "
                f"{reference / time_taken:8.2f}   {rate:7.0f}   {share:14.0%}"
            )
    print("mean log p(x), nats (draws differ between the libraries):")
    for (library, name, chunk_size), value in values.items():
        if chunk_size == CHUNK_SIZES[0]:
            print(f"{library:8}  {name:8}  {value.mean():.3f}")


if __name__ == "__main__":
    main()
