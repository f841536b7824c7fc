"""Calls of what the user passes in, and checks of what comes back.

The checks run at trace time, and an error names the caller's own function.
"""

from numbers import Integral

import jax
import jax.numpy as jnp

from aevb.distributions import DiagNormal, check_binary
from aevb.types import Decode, Encode, Likelihood, Posterior, PyTree

__all__ = [
    "call_decode",
    "call_encode",
    "check_binary",
    "check_count",
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


def call_decode(decode: Decode, z: PyTree) -> Likelihood:
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


def prior_or_normal(prior: Posterior | None, z: PyTree) -> Posterior:
    """p(z): the one given, or the standard normal of z's shape.

    Args:
      prior: p(z), or None.
      z: `[J]`, or a pytree: gives the structure, the shapes and the dtypes alone.

    Returns:
      `prior`, or `DiagNormal` of zeros.

    >>> print(prior_or_normal(None, jnp.ones(2)).loc)
    [0. 0.]
    """
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


def check_count(name: str, value: object, least: int = 1) -> int:
    """Returns a count as a Python integer, whatever integer type it came in.

    Args:
      name: of the argument, for the error.
      value: what the caller passed: a Python or NumPy integer.
      least: the smallest count that makes sense.

    Returns:
      The count.

    Raises:
      ValueError: it is not an integer, or below `least`.

    >>> check_count("num_samples", 5)
    5
    >>> check_count("num_samples", 2.5)
    Traceback (most recent call last):
        ...
    ValueError: num_samples is 2.5, expected an integer of at least 1: pass an int
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        mend = "pass an int, which jax.jit does not trace (static_argnames)"
        if not isinstance(value, jax.Array):
            mend = "pass an int"
        raise ValueError(
            f"{name} is {value}, expected an integer of at least {least}: {mend}"
        )
    if value < least:
        raise ValueError(
            f"{name} is {value}, expected an integer of at least {least}: pass a "
            "larger one"
        )
    return int(value)
