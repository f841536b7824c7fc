"""The families of q(z|x) that a configuration names, each with its prior.

The outputs of an encoder are real numbers; a family makes a distribution of them, which
is the prior where all of them are 0. A decoder gets z standardised by the prior's mean
and standard deviation, so that it starts alike whatever the family.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import aevb

__all__ = ["Family", "closed_form_std", "family_of", "prior_shape"]


class Family(NamedTuple):
    """A family of q(z|x) with its prior.

    Attributes:
      posterior: `posterior(r_1 [J], …, r_P [J]) -> q`, of real numbers.
      num_parameters: P.
      prior: p(z); None is the standard normal.
      loc: the mean of a dimension of the prior.
      scale: its standard deviation, or another width where that is infinite.
    """

    posterior: Callable[..., Any]
    num_parameters: int
    prior: Any
    loc: float = 0.0
    scale: float = 1.0


def prior_shape(config: ConfigDict) -> float:
    """The shape of the prior: a concentration, or degrees of freedom."""
    return config.prior_shape or (5.0 if config.posterior == "student_t" else 1.0)


def family_of(config: ConfigDict) -> Family:
    """The family of a validated configuration."""
    return _FAMILIES[config.posterior](prior_shape(config), config.latent_dim)


def _normal(shape: float, dim: int) -> Family:
    del shape, dim
    return Family(
        lambda loc, log_variance: aevb.DiagNormal(loc, log_variance / 2), 2, None
    )


def _laplace(shape: float, dim: int) -> Family:
    del shape
    prior = aevb.Laplace(jnp.zeros(dim), jnp.ones(dim))
    return Family(
        lambda loc, log: aevb.Laplace(loc, jnp.exp(log)), 2, prior, scale=math.sqrt(2)
    )


def _logistic(shape: float, dim: int) -> Family:
    del shape
    prior = aevb.Logistic(jnp.zeros(dim), jnp.ones(dim))
    return Family(
        lambda loc, log: aevb.Logistic(loc, jnp.exp(log)),
        2,
        prior,
        scale=math.pi / math.sqrt(3),
    )


def _student_t(shape: float, dim: int) -> Family:
    df = jnp.full(dim, shape)

    def posterior(loc: jax.Array, log: jax.Array, log_df: jax.Array) -> Any:
        # More than 1, where it has a mean.
        return aevb.StudentT(1 + (df - 1) * jnp.exp(log_df), loc, jnp.exp(log))

    prior = aevb.StudentT(df, jnp.zeros(dim), jnp.ones(dim))
    scale = math.sqrt(shape / (shape - 2)) if shape > 2 else 1.0
    return Family(posterior, 3, prior, scale=scale)


def _gamma(shape: float, dim: int) -> Family:
    """Of mean 1, at first and in the prior."""
    concentration = jnp.full(dim, shape)

    def posterior(log_mean: jax.Array, log: jax.Array) -> Any:
        own = concentration * jnp.exp(log)
        return aevb.Gamma(own, own * jnp.exp(-log_mean))

    prior = aevb.Gamma(concentration, concentration)
    return Family(posterior, 2, prior, loc=1.0, scale=1 / math.sqrt(shape))


def _log_normal(shape: float, dim: int) -> Family:
    del shape
    prior = aevb.LogNormal(jnp.zeros(dim), jnp.zeros(dim))
    return Family(
        lambda loc, log_variance: aevb.LogNormal(loc, log_variance / 2),
        2,
        prior,
        loc=math.exp(0.5),
        scale=math.sqrt((math.e - 1) * math.e),
    )


def _weibull(shape: float, dim: int) -> Family:
    """A gamma prior: the pair of Weibull autoencoders (arXiv 1803.01328)."""
    gamma = _gamma(shape, dim)

    def posterior(log_scale: jax.Array, log: jax.Array) -> Any:
        return aevb.Weibull(jnp.exp(log), jnp.exp(log_scale))

    return gamma._replace(posterior=posterior)


def _bounded(kind: Callable[..., Any], shape: float, dim: int) -> Family:
    ends = jnp.full(dim, shape)

    def posterior(logit: jax.Array, log: jax.Array) -> Any:
        total = 2 * ends * jnp.exp(log)
        mean = jax.nn.sigmoid(logit)
        return kind(total * mean, total * (1 - mean))

    prior = kind(ends, ends)
    variance = 1 / (4 * (2 * shape + 1))
    return Family(posterior, 2, prior, loc=0.5, scale=math.sqrt(variance))


def _beta(shape: float, dim: int) -> Family:
    return _bounded(aevb.Beta, shape, dim)


def _kumaraswamy(shape: float, dim: int) -> Family:
    return _bounded(aevb.Kumaraswamy, shape, dim)


def _dirichlet(shape: float, dim: int) -> Family:
    concentration = jnp.full(dim, shape)
    prior = aevb.Dirichlet(concentration)
    variance = (dim - 1) / (dim**2 * (dim * shape + 1))
    return Family(
        lambda log: aevb.Dirichlet(concentration * jnp.exp(log)),
        1,
        prior,
        loc=1 / dim,
        scale=math.sqrt(variance),
    )


_FAMILIES: dict[str, Callable[[float, int], Family]] = {
    "normal": _normal,
    "laplace": _laplace,
    "logistic": _logistic,
    "student_t": _student_t,
    "gamma": _gamma,
    "log_normal": _log_normal,
    "weibull": _weibull,
    "beta": _beta,
    "kumaraswamy": _kumaraswamy,
    "dirichlet": _dirichlet,
}


def closed_form_std(distribution: Any) -> jax.Array | None:
    """The standard deviation of a distribution; None where it has no closed form.

    >>> closed_form_std(aevb.DiagNormal(jnp.zeros(1), jnp.zeros(1)))
    Array([1.], dtype=float32)
    """
    if isinstance(distribution, aevb.DiagNormal):
        return jnp.exp(distribution.log_scale)
    if hasattr(distribution, "variance"):
        return jnp.sqrt(distribution.variance)
    return None
