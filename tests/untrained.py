"""Runs of first weights, for tests of pages: no step was made."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.data import Dataset
from experiments.evaluation.bounds import BoundEvaluation
from experiments.explorer.contents import Explored
from experiments.explorer.networks import for_page
from experiments.program import Program, build, load_dataset
from experiments.storage.atomic import write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.training.loop import make_algorithm
from experiments.training.opened import Opened


def untrained(config: ConfigDict, dataset: Dataset, gain: float = 1.0) -> Explored:
    """What a page needs of a run, with the codes of its encoder, and no bound.

    Args:
      config: validated.
      dataset: its data.
      gain: of each layer.
    """
    program = build(config, dataset)
    params = _weights(program, gain)

    @jax.jit
    def mean(image: jax.Array) -> jax.Array:
        q: Any = program.model.encode(params, program.to_input(image))
        return q.mean

    means = np.asarray(jax.vmap(mean)(program.test))
    test = BoundEvaluation(*[np.float32(-90)] * 4, np.zeros(0), 0, means)
    opened = Opened(config, dataset, program, params, 0)
    return Explored(opened, for_page(opened)[0], program, params, test)


def write_untrained(workdir: Path, config: ConfigDict, gain: float = 1.0) -> None:
    """The workdir of a run, as far as `load_run` looks at it."""
    dataset = load_dataset(config)
    program = build(config, dataset)
    state = make_algorithm(config, program).init(_weights(program, gain))
    workdir.mkdir(parents=True)
    write_json(workdir / "config.json", config.to_dict())
    write_json(workdir / "run.json", {"data_sha256": dataset.sha256})
    checkpoints = Checkpoints(workdir)
    checkpoints.save(10, jax.device_get(state), {"lines": []})
    checkpoints.close()


def _weights(program: Program, gain: float) -> Any:
    rng = np.random.default_rng(0)

    def weight(leaf: Any) -> jax.Array:
        scale = gain / math.sqrt(leaf.shape[0])
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map(weight, jax.eval_shape(program.init, jax.random.key(0)))
