"""What there is of the paper's experiments in a workdir, finished or not."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.reproduction.frey import FreyFace, find_frey_face
from experiments.reproduction.marginal import Marginal, find_marginals
from experiments.reproduction.protocol import Panel
from experiments.reproduction.training import (
    Curve,
    StepSizes,
    find_curves,
    find_step_sizes,
)

__all__ = ["Outcome", "collect", "first_reached", "value_at"]


class Outcome(NamedTuple):
    """What there is of a panel; empty where it is not done.

    Attributes:
      panel: what is run.
      step_sizes: `{method: StepSizes}`.
      curves: its finished runs.
      marginals: log p(x), of a panel of Fig. 3.
      frey_face: of a panel on Frey Face.
    """

    panel: Panel
    step_sizes: dict[str, StepSizes]
    curves: list[Curve]
    marginals: list[Marginal]
    frey_face: list[FreyFace]

    def curve(self, method: str) -> Curve | None:
        """The method's run of the first seed, if it did not diverge."""
        own = [one for one in self.curves if one.method == method]
        return next((one for one in own if one.status == "done"), None)


def collect(panels: Sequence[Panel], workdir: Path) -> list[Outcome]:
    """What there is of each panel, read from the disk alone."""
    return [
        Outcome(
            panel,
            find_step_sizes(panel, workdir),
            find_curves(panel, workdir),
            find_marginals(panel, workdir),
            find_frey_face(panel, workdir),
        )
        for panel in panels
    ]


def value_at(points: Sequence[tuple[float, float]], samples: float) -> float | None:
    """A curve's value, interpolated over the logarithm of the samples.

    Returns:
      The value, or None where the curve does not reach so far (5 % beyond its ends is
      its end: the digitised points are not at round numbers).

    >>> value_at([(1e5, -200.0), (1e7, -100.0)], 1e6)
    -150.0
    """
    if not points:
        return None
    xs, ys = np.array(sorted(points)).T
    if not xs[0] / 1.05 <= samples <= xs[-1] * 1.05:
        return None
    return float(np.interp(np.log(samples), np.log(xs), ys))


def first_reached(points: Sequence[tuple[float, float]], value: float) -> float | None:
    """Where a curve first has a value, interpolated as in `value_at`; None if never.

    >>> round(first_reached([(1e5, -200.0), (1e7, -100.0)], -150.0))
    1000000
    """
    points = sorted(points)
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 < value <= y1:
            share = (value - y0) / (y1 - y0)
            return float(np.exp(np.log(x0) + share * np.log(x1 / x0)))
    return points[0][0] if points and points[0][1] >= value else None
