"""The small models that the tests of log p(x) share; the truth about each is known."""

import jax
import jax.numpy as jnp

import aevb
from aevb import testing


def standard_normal(latent_dim):
    """N(0, I)."""
    return aevb.DiagNormal(jnp.zeros(latent_dim), jnp.zeros(latent_dim))


def linear_model(data_dim, latent_dim):
    """A linear-Gaussian model of those sizes: everything in closed form."""
    key = jax.random.fold_in(jax.random.key(10), 100 * data_dim + latent_dim)
    weights = jax.random.normal(key, (data_dim, latent_dim))
    return testing.linear_gaussian(weights, jnp.ones(data_dim), -0.5)


def bernoulli_decoder(latent_dim, data_dim=8):
    """A Bernoulli decoder with a posterior that is not Gaussian: by quadrature."""
    return testing.bernoulli_decoder(
        jax.random.key(latent_dim), latent_dim=latent_dim, data_dim=data_dim, scale=1.0
    )


def bernoulli_model(latent_dim, data_dim=8):
    """Such a decoder, and a datapoint of it."""
    decode = bernoulli_decoder(latent_dim, data_dim)
    return decode, decode(jnp.full(latent_dim, 0.7)).sample(jax.random.key(5))


def starts(key, num_chains, latent_dim):
    """Where chains start: draws of the prior."""
    return jax.random.normal(key, (num_chains, latent_dim))
