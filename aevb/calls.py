"""Calls of what the user passes in, and checks of what comes back.

They happen at trace time: a mistake is told in the words of the caller's own functions.
"""

from numbers import Integral

import jax
import jax.numpy as jnp

from aevb.distributions import DiagNormal
from aevb.types import Decode, Encode, Likelihood, Posterior

__all__ = [
    "call_decode",
    "call_encode",
    "check_num_samples",
    "check_scalar",
    "prior_or_normal",
]


def call_encode(encode: Encode, x: jax.Array) -> Posterior:
    """q(z|x) of x `[D]`.

    Raises:
      TypeError: what comes back cannot sample.
    """
    q = encode(x)
    if not hasattr(q, "sample"):
        raise TypeError(_not_a_distribution(q, "encode(x)", "sample(key)"))
    return q


def call_decode(decode: Decode, z: jax.Array) -> Likelihood:
    """p(x|z) of z `[J]`.

    Raises:
      TypeError: what comes back has no density.
    """
    p = decode(z)
    if not hasattr(p, "log_prob"):
        raise TypeError(_not_a_distribution(p, "decode(z)", "log_prob(x)"))
    return p


def _not_a_distribution(value: object, call: str, method: str) -> str:
    message = (
        f"{call} returned {type(value).__name__}, which has no {method}; expected a "
        "distribution"
    )
    if isinstance(value, tuple):
        return message + f": did you mean aevb.DiagNormal(*{call})?"
    if call == "decode(z)":
        return message + ": did you mean aevb.Bernoulli(decode(z))?"
    return message + " such as aevb.DiagNormal(loc, log_scale)"


def prior_or_normal(prior: Posterior | None, z: jax.Array) -> Posterior:
    """p(z): the one given, or the standard normal of z's shape."""
    if prior is not None:
        return prior
    zeros = jax.tree.map(jnp.zeros_like, z)
    return DiagNormal(zeros, zeros)


def check_scalar(value: jax.Array, name: str) -> jax.Array:
    """Returns a log density `[]` as it is.

    Raises:
      ValueError: it is not a scalar, so it is not of one datapoint.
    """
    if jnp.shape(value) != ():
        raise ValueError(
            f"{name} has shape {jnp.shape(value)}, expected a scalar: an estimator "
            "works on one datapoint: wrap it in jax.vmap, or sum the event axes "
            "(numpyro: .to_event(1))"
        )
    return value


def check_num_samples(num_samples: int) -> None:
    """Raises ValueError unless the number of samples is a positive integer."""
    if not isinstance(num_samples, Integral) or num_samples < 1:
        raise ValueError(
            f"num_samples is {num_samples}, expected an integer of at least 1"
        )
