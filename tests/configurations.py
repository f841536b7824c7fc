"""The small configurations that the tests of programs share."""

from ml_collections import ConfigDict

from experiments.config import base
from experiments.validation import validate

SMALL = {
    "data.num_train": 320,
    "data.num_valid": 100,
    "latent_dim": 2,
    "hidden_dims": (8,),
    "batch_size": 32,
    "optimizer": "adam",
    "eval.num_samples": 10,
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
