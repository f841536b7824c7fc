"""An estimator of log p(x) as a function, and the record that describes it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from experiments.keys import Stream

__all__ = ["Estimator", "Function", "Kind"]

Function = Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]
"""`function(params, key, x [D]) -> {name: array}`, of one datapoint, in nats."""


class Kind(NamedTuple):
    """What there is to know of an estimator, whatever its settings.

    Attributes:
      name: one word, of files and rows.
      label: `label(settings)`, what a person calls it.
      stream: of its keys.
      meaning: what its expectation is to log p(x): "lower", "upper", "truth"; "" where
        it estimates something else.
      tightness: which of two lower bounds on the same points is quoted: the higher.
      size: the setting that a better estimate has more of; "" where there is none.
      estimates: which of its values is the estimate.
      variants: `{value: label}`, further estimates of log p(x) among its values; the
        error of each, if there is one, is the value `NAME_std_error`.
      simulated: whether it makes its own datapoints from the model.
      remedy: why it may be apart from the truth, and what mends it.
    """

    name: str
    label: Callable[[Mapping[str, Any]], str]
    stream: Stream
    meaning: str = ""
    tightness: int = 0
    size: str = ""
    estimates: str = "log_likelihood"
    variants: Mapping[str, str] = {}
    simulated: bool = False
    remedy: str = ""

    def name_of(self, settings: Mapping[str, Any]) -> str:
        """The name of an estimate: "importance-5000"."""
        return f"{self.name}-{settings[self.size]}" if self.size else self.name


class Estimator(NamedTuple):
    """An estimator at one setting.

    Attributes:
      kind: what there is to know of it.
      settings: whatever its values depend on beside parameters, data and keys (JSON).
      function: of one datapoint.
      batch_size: datapoints at a time, on each device.
      across: `across(axis_name)`, the function where the devices of an axis share the
        work of a datapoint; None where they cannot.
    """

    kind: Kind
    settings: dict[str, Any]
    function: Function
    batch_size: int
    across: Callable[[str], Function] | None = None

    @property
    def name(self) -> str:
        """Of its file and its row."""
        return self.kind.name_of(self.settings)
