"""What a channel p(y|x) is, and checks that every channel makes."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from aevb.types import Likelihood, PyTree

__all__ = ["Channel", "check_all", "check_broadcasts", "of_kind"]


class Channel(Protocol):
    """A known p(y|x), for likelihoods p(x|z) for which what follows is in closed form.

    Only the call is needed for p(z|y) and log p(y).
    """

    def __call__(self, likelihood: Likelihood) -> Likelihood:
        """p(y|z) = E p(y|x) under p(x|z)."""
        ...

    def given(self, x: PyTree) -> Likelihood:
        """p(y|x): draws of it are corrupted data."""
        ...

    def restore(self, likelihood: Likelihood, y: PyTree) -> Likelihood:
        """p(x|z, y), with `sample(key)`, `mean` and `log_prob(x)`."""
        ...


def of_kind(kinds: Any, likelihood: Any, channel: str) -> Any:
    """The likelihood, if the channel has a closed form for it.

    Args:
      kinds: a class, or a tuple of them.
      likelihood: what the channel was called on.
      channel: its name, for the error.

    Raises:
      TypeError: it is of another kind.

    >>> of_kind(float, 0.5, "halved")
    0.5
    """
    if isinstance(likelihood, kinds):
        return likelihood
    names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else [kinds])]
    raise TypeError(
        f"{channel} has a closed form for {' and '.join(names)} likelihoods, got "
        f"{type(likelihood).__name__}: a channel for it is a function of yours from "
        "p(x|z) to p(y|z)"
    )


def check_all(name: str, value: Any, good: Any, expected: str) -> None:
    """Refuses numbers that are not as expected, where they are not traced.

    Args:
      name: of the argument, for the error.
      value: `[...]` numbers; a traced value passes unseen.
      good: `good(values) -> bool` of each.
      expected: what they should be, for the error.

    Raises:
      ValueError: a number is not as expected.

    >>> check_all("rate", 0.5, lambda rate: rate > 0, "above 0")
    """
    if isinstance(value, jax.core.Tracer):
        return
    values = np.asarray(value)
    wrong = values[~good(values)]
    if wrong.size:
        raise ValueError(f"{name} is {wrong.flat[0]}, expected {expected}")


def check_broadcasts(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuses what would make a value of more dimensions than x has.

    Args:
      name: of the argument, for the error.
      value: an array, or a number.
      shape: of x, or of y.

    Raises:
      ValueError: it does not broadcast to the shape alone.

    >>> check_broadcasts("rate", 0.5, (3,))
    """
    own = jnp.shape(value)
    fits = len(own) <= len(shape)
    if not fits or jnp.broadcast_shapes(own, shape) != shape:
        raise ValueError(
            f"{name} has the shape {own}, expected {shape}, or what broadcasts to it: "
            "reshape it, or wrap the call in jax.vmap"
        )
