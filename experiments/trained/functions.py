"""The functions of a run as a user calls them, of one datapoint and pure."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import aevb
from experiments.evaluation.annealing import prior_of
from experiments.evaluation.bounds import datapoint_bound
from experiments.evaluation.estimators import importance
from experiments.program import Program, binarize
from experiments.program.posteriors import closed_form_std
from experiments.trained.arrays import Bound, Codes, Likelihood, Pixels, Sampled

__all__ = ["binarizer", "bounder", "decoder", "encoder", "likelihooder", "sampler"]

# Of a q(z|x) whose variance is not known in closed form: Weibull, Kumaraswamy.
_SPREAD_DRAWS = 1000


def binarizer(scale: int) -> Callable[..., jax.Array]:
    """`draw(key, index, image [D] uint8) -> x [D]`, binary."""

    def draw(key: jax.Array, index: jax.Array, image: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, index)
        return binarize(own, image, scale).astype(jnp.float32)

    return draw


def encoder(program: Program, num_draws: int) -> Callable[..., Codes]:
    """`encode((params, key), index, x [D]) -> Codes`, with `num_draws` draws."""

    def encode(shared: Any, index: jax.Array, x: jax.Array) -> Codes:
        params, key = shared
        q: Any = program.model.encode(params, x)
        draw_key, spread_key = jax.random.split(jax.random.fold_in(key, index))
        draws = jax.vmap(q.sample)(jax.random.split(draw_key, num_draws))
        std = closed_form_std(q)
        if std is None:
            keys = jax.random.split(spread_key, _SPREAD_DRAWS)
            std = jnp.std(jax.vmap(q.sample)(keys), axis=0)
        return Codes(q.mean, std, draws)

    return encode


def decoder(program: Program) -> Callable[..., Pixels]:
    """`decode(params, z [J]) -> Pixels`."""

    def decode(params: Any, z: jax.Array) -> Pixels:
        p: Any = program.model.decode(params, z)
        std = closed_form_std(p)
        return Pixels(p.mean, jnp.sqrt(p.mean * (1 - p.mean)) if std is None else std)

    return decode


def sampler(program: Program, latent_dim: int) -> Callable[..., Sampled]:
    """`sample((params, key), index) -> Sampled`."""
    x = jnp.zeros(program.test.shape[1])

    def sample(shared: Any, index: jax.Array) -> Sampled:
        params, key = shared
        z_key, x_key = jax.random.split(jax.random.fold_in(key, index))
        if program.has_encoder:
            prior = prior_of(program.model, params, x)
        else:
            zeros = jnp.zeros(latent_dim)
            prior = aevb.prior_or_normal(program.model.prior(params), zeros)
        z = prior.sample(z_key)
        p: Any = program.model.decode(params, z)
        return Sampled(z, p.mean, p.sample(x_key).astype(jnp.float32))

    return sample


def likelihooder(
    program: Program, fields: ConfigDict, num_samples: int
) -> Callable[..., Likelihood]:
    """`estimate((params, key), index, x [D]) -> Likelihood`, by importance sampling.

    Args:
      program: of the run.
      fields: `config.eval`.
      num_samples: K.
    """
    function = importance(
        program.likelihood_model,
        num_samples=num_samples,
        chunk_size=fields.chunk_size,
        batch_size=fields.batch_size,
    ).function

    def estimate(shared: Any, index: jax.Array, x: jax.Array) -> Likelihood:
        params, key = shared
        found = function(params, jax.random.fold_in(key, index), x)
        return Likelihood(*(found[name] for name in Likelihood._fields))

    return estimate


def bounder(program: Program) -> Callable[..., Bound]:
    """`bound(params, index, x [D]) -> Bound`, with the noise of the report."""

    def bound(params: Any, index: jax.Array, x: jax.Array) -> Bound:
        elbo, _ = datapoint_bound(program, params, index, x)
        return Bound(elbo.value, elbo.reconstruction, elbo.kl)

    return bound
