"""From a configuration and its data to the pure functions of a run: a `Program`.

Networks (`models`), families of q(z|x) with their priors (`posteriors`), training
algorithms (`algorithms`), and `assembly`, which puts them together.
"""

from experiments.program.algorithms import Hyperparameters
from experiments.program.assembly import (
    Program,
    binarize,
    build,
    drawn_once,
    hyperparameters,
    initial_state,
    load_dataset,
    remembering_loader,
)

__all__ = [
    "Hyperparameters",
    "Program",
    "binarize",
    "build",
    "drawn_once",
    "hyperparameters",
    "initial_state",
    "load_dataset",
    "remembering_loader",
]
