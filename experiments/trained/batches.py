"""A function of one datapoint over many, compiled once whatever their number."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

__all__ = ["Batched"]


class Batched:
    """Compiled programs by name, each of batches of one shape.

    >>> batched = Batched()
    >>> batched("twice", lambda factor, row: factor * row, 2, np.arange(3)).tolist()
    [0, 2, 4]
    """

    def __init__(self) -> None:
        """Has nothing compiled yet."""
        self._programs: dict[Hashable, Callable[..., Any]] = {}

    def __call__(
        self,
        name: Hashable,
        function: Callable[..., Any],
        shared: Any,
        *rows: Any,
        batch_size: int = 500,
    ) -> Any:
        """Applies a function to every row.

        Args:
          name: of the function: the same name is the same program.
          function: `function(shared, *row)`, pure.
          shared: arguments of all rows; may differ from call to call.
          *rows: pytrees of arrays with a leading axis of rows.
          batch_size: rows at a time.

        Returns:
          What `function` returns, in memory, with that axis.
        """
        if name not in self._programs:
            over = (None, *[0] * len(rows))
            self._programs[name] = jax.jit(jax.vmap(function, over))
        count = len(jax.tree.leaves(rows)[0])
        found = []
        for first in range(0, count, batch_size):
            # The last batch is filled up with its last row: one shape, one program.
            chosen = np.minimum(np.arange(first, first + batch_size), count - 1)
            batch = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], rows)
            found.append(jax.device_get(self._programs[name](shared, *batch)))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)
