"""Schedules of annealed importance sampling: inverse temperatures from 0 to 1."""

import jax
import jax.numpy as jnp
import numpy as np

from aevb.calls import check_count

__all__ = ["check_temperatures", "linear_temperatures", "sigmoid_temperatures"]


def linear_temperatures(num_temperatures: int) -> jax.Array:
    """The schedule β_t = t / (T − 1), t = 0 .. T − 1.

    >>> print(linear_temperatures(5))
    [0.   0.25 0.5  0.75 1.  ]
    """
    num_temperatures = check_count("num_temperatures", num_temperatures, least=2)
    return jnp.linspace(0, 1, num_temperatures)


def sigmoid_temperatures(num_temperatures: int, *, width: float = 4.0) -> jax.Array:
    """The schedule β_t ∝ sigmoid(δ (2t / (T − 1) − 1)), moved and scaled to [0, 1].

    It takes small steps near both ends, where the path from a prior changes fastest.

    Args:
      num_temperatures: T, both ends included.
      width: δ.

    Returns:
      `[T]` from 0 to 1, increasing.

    Source: Wu et al., arXiv 1611.04273, section 5 (δ = 4).

    >>> print(*(f"{beta:.2f}" for beta in sigmoid_temperatures(5)))
    0.00 0.10 0.50 0.90 1.00
    """
    num_temperatures = check_count("num_temperatures", num_temperatures, least=2)
    beta = jax.nn.sigmoid(width * jnp.linspace(-1, 1, num_temperatures))
    return (beta - beta[0]) / (beta[-1] - beta[0])


def check_temperatures(temperatures: jax.Array) -> None:
    """Refuses what is not a schedule; the values are seen where they are not traced.

    Args:
      temperatures: `[T]`.

    Raises:
      ValueError: not one axis of two or more, or not increasing from 0 to 1.

    >>> check_temperatures(linear_temperatures(3))
    """
    if temperatures.ndim != 1 or len(temperatures) < 2:
        raise ValueError(
            f"temperatures have shape {temperatures.shape}, expected [T] with T >= 2: "
            "did you mean aevb.sigmoid_temperatures(T)?"
        )
    if isinstance(temperatures, jax.core.Tracer):
        return
    values = np.asarray(temperatures)
    if values[0] != 0 or values[-1] != 1 or np.any(np.diff(values) < 0):
        raise ValueError(
            f"temperatures go from {values[0]} to {values[-1]}, expected to increase "
            "from 0 to 1: did you mean aevb.sigmoid_temperatures(T)?"
        )
