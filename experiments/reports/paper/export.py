"""`curves.csv`: every curve of the page as numbers, in the columns of the paper's."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.reproduction.outcome import Outcome
from experiments.storage.atomic import write_atomically

__all__ = ["COLUMNS", "write_curves"]

COLUMNS = (
    "panel",
    "dataset",
    "n_z",
    "n_train",
    "method",
    "seed",
    "step_size",
    "split",
    "train_samples",
    "quantity",
    "nats",
    "std_error",
)
# Points of a curve at most; a small data set has thousands of epochs.
_NUM_POINTS = 60


def write_curves(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Writes the bounds along training and the estimates of log p(x) of all runs.

    Args:
      outcomes: of the panels.
      path: of the file.

    Returns:
      The path.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for outcome in outcomes:
        writer.writerows(_rows(outcome))
    return write_atomically(path, text.getvalue().encode())


def _rows(outcome: Outcome) -> Iterator[tuple[object, ...]]:
    panel, config = outcome.panel, outcome.panel.config
    what = panel.name, config.data.name, config.latent_dim
    for curve in outcome.curves:
        run = curve.method, curve.seed, f"{curve.step_size:g}"
        for split in ("train", "test"):
            points = curve.points(f"{split}/bound")
            num_train = config.data.num_train or None
            for i in _evenly(np.array([x for x, _ in points])):
                samples, value = points[i]
                yield (
                    *what,
                    num_train,
                    *run,
                    split,
                    f"{samples:.0f}",
                    "bound",
                    f"{value:.3f}",
                    None,
                )
    sizes = {curve.method: f"{curve.step_size:g}" for curve in outcome.curves}
    for one in outcome.marginals:
        run = one.method, panel.seeds[0], sizes.get(one.method, "")
        place = *what, config.data.num_train, *run, one.split, one.samples
        yield (*place, "appendix_d", f"{one.value:.3f}", f"{one.std_error:.3f}")
        if one.truth is not None:
            error = f"{one.truth_std_error:.3f}"
            yield (*place, "quadrature", f"{one.truth:.3f}", error)


def _evenly(samples: np.ndarray) -> np.ndarray:
    """Indices of points that are even on a logarithmic axis, the ends among them."""
    if len(samples) <= _NUM_POINTS:
        return np.arange(len(samples))
    wanted = np.geomspace(samples[0], samples[-1], _NUM_POINTS)
    nearest = np.abs(np.log(samples[None]) - np.log(wanted[:, None])).argmin(axis=1)
    return np.unique(nearest)
