"""A trained run as an object to compute with: `open_run`, from Python and notebooks."""

from experiments.trained.arrays import (
    Bound,
    Codes,
    Images,
    Likelihood,
    Pixels,
    Restored,
    Sampled,
)
from experiments.trained.restoring import RESTORERS
from experiments.trained.run import TrainedRun, open_run

__all__ = [
    "RESTORERS",
    "Bound",
    "Codes",
    "Images",
    "Likelihood",
    "Pixels",
    "Restored",
    "Sampled",
    "TrainedRun",
    "open_run",
]
