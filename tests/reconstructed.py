"""What tests of `experiments.reconstruct` share: a run, the command, its files."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import mnist, reconstruct
from experiments.configs import smoke
from experiments.training.opened import Opened

HEIGHT, WIDTH = 14, 12
NUM_POINTS, NUM_SHOWN = 4, 2
QUICK = {
    "--methods": "mean,lair",
    "--steps": 8,
    "--chains": 4,
    "--temperatures": 5,
    "--leapfrog-steps": 2,
    "--num-points": NUM_POINTS,
    "--shown": NUM_SHOWN,
    "--simulated": 2,
    "--batch-size": 2,
}


def train(digits: Path, workdir: Path, **changes: object) -> Path:
    config = smoke.get_config()
    config.update_from_flattened_dict(
        {
            "data.name": "digits",
            "data.path": str(digits),
            "data.num_train": 400,
            "data.num_valid": 20,
            "batch_size": 20,
            "epochs": 30,
            "eval.every": 30,
            "checkpoint.every": 30,
            "latent_dim": 1,
            "hidden_dims": (8,),
            "eval.num_samples": 0,
            **changes,
        }
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(config, workdir)
    return workdir


def command(workdir: Path, out: Path, *flags: str, **changes: object) -> list[str]:
    options = {**QUICK, "--workdir": workdir, "--out": out}
    options |= {f"--{name.replace('_', '-')}": v for name, v in changes.items()}
    return [*[f"{name}={value}" for name, value in options.items()], *flags]


def finish(*arguments: Any, **changes: object) -> Path:
    """Runs a command to its end; the folder that it wrote to."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert reconstruct.main(command(*arguments, **changes)) == 0
    return arguments[1]


def results(out: Path) -> dict[str, Any]:
    """results.json; a number that JSON has not is refused."""
    text = (out / "results.json").read_text()
    return json.loads(text, parse_constant=pytest.fail)


def points(out: Path, task: str, name: str) -> dict[str, Any]:
    """{index: values} of a file, the seconds left out."""
    text = (out / "points" / task / f"{name}.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line]
    found = {line["name"]: line["value"] for line in lines}
    for value in found.values():
        if isinstance(value, dict):
            value.pop("seconds")
    return found


def pictures(out: Path, task: str, method: str, name: str) -> np.ndarray:
    """`[n, ..., H, W]`, in the order of the images."""
    found = points(out, task, f"{method}-pictures")
    values = [found[index][name] for index in sorted(found, key=int)]
    array = np.array(values, np.float64)
    return array.reshape(*array.shape[:-1], HEIGHT, WIDTH)


def truth(opened: Opened) -> np.ndarray:
    """`[n, H, W]` the images that are measured: evenly spaced ones."""
    images = np.asarray(opened.program.test, np.float64).reshape(-1, HEIGHT, WIDTH)
    return images[np.arange(NUM_POINTS) * len(images) // NUM_POINTS]


def training_mean(opened: Opened) -> np.ndarray:
    """`[H, W]` P(x = 1) of each pixel, none of which is certain."""
    mean = opened.program.train.reshape(-1, HEIGHT, WIDTH).mean(axis=0) / 255
    return np.clip(mean, 1e-3, 1 - 1e-3)


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)
