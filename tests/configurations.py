"""The small configurations that the tests of programs share."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from experiments import marginal_likelihood
from experiments.config import base, validate
from experiments.evaluation import annealing

SMALL = {
    "data.num_train": 320,
    "data.num_valid": 100,
    "latent_dim": 2,
    "hidden_dims": (8,),
    "batch_size": 32,
    "optimizer": "adam",
    "eval.num_samples": 10,
    "eval.probe_points": 0,
    "eval.num_points": 6,
    "eval.batch_size": 3,
}
"""A run of ten steps an epoch, on MNIST's first images: seconds, compilation included.
"""


def small(**changes: object) -> ConfigDict:
    """The configuration `SMALL` over the defaults, some fields changed; checked."""
    config = base()
    config.update_from_flattened_dict({**SMALL, **changes})
    validate(config)
    return config


def flags(**changes: object) -> list[str]:
    """`SMALL` as `--config.FIELD=VALUE` arguments of a command."""
    return [f"--config.{name}={value}" for name, value in {**SMALL, **changes}.items()]


def measured(workdir: Path, **changes: object) -> set[str]:
    """What `experiments.marginal_likelihood` estimates log p(x) of a run with."""
    options = {
        "num-points": 4,
        "importance-samples": 300,
        "temperatures": 30,
        "simulated": 2,
        "gap-points": 2,
        "gap-steps": 10,
        "reciprocal-points": 0,
        "quadrature-points": 0,
        "leapfrog-steps": 3,
        "rows": 8,
        **changes,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annealing, "_TUNED_TEMPERATURES", 30)
        patch.setattr(annealing, "_TUNED_POINTS", 4)
        assert marginal_likelihood.main([f"--workdir={workdir}", *arguments]) == 0
    points = workdir / "marginal_likelihood" / "points"
    return {path.stem for path in points.glob("*.jsonl")} - {"step_sizes"}
