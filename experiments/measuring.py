"""An estimator applied to many datapoints, each value kept as it is made.

Long work can be stopped, continued and extended: more points only do what is not there.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from experiments.interruption import StopRequest
from experiments.program import FIXED_SEED
from experiments.records import Parts

__all__ = ["Estimator", "Measured", "measure"]

# Each has a stream of keys of its own: the order is part of the numbers.
_KINDS = (
    "importance", "annealed", "sandwich", "reciprocal", "quadrature", "inference_gap"
)  # fmt: skip


class Estimator(NamedTuple):
    """An estimator at one setting.

    Attributes:
      name: of its file: "importance-5000".
      settings: whatever its values depend on beside parameters, data and keys (JSON).
      function: `function(params, key, x [D]) -> {name: array}` in nats.
      batch_size: datapoints at a time, on each device.
    """

    name: str
    settings: dict[str, Any]
    function: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]
    batch_size: int


class Measured(NamedTuple):
    """The values of one estimator on some datapoints.

    Attributes:
      name: of the estimator.
      settings: of the estimator.
      indices: `[n]` which datapoints.
      values: `{name: [n, ...]}` in nats.
      seconds: that all points together took, compilation left out.
    """

    name: str
    settings: dict[str, Any]
    indices: np.ndarray
    values: dict[str, np.ndarray]
    seconds: float


def measure(
    estimator: Estimator,
    params: Any,
    to_input: Callable[[jax.Array], jax.Array],
    images: np.ndarray,
    indices: np.ndarray,
    *,
    seed: int,
    folder: Path,
    identity: dict[str, Any],
    stop: StopRequest,
    report: Callable[[str, int, int, float, float], None],
    mesh: Mesh | None = None,
) -> Measured:
    """Applies an estimator to the chosen datapoints that have no value yet.

    A point's key depends on its index, the seed and the kind of estimator alone: the
    draws of a smaller K are the first of a larger one.

    Args:
      estimator: what to apply.
      params: of the model.
      to_input: bytes `[D]` to x.
      images: `[N, D]` uint8, the whole split.
      indices: `[n]` the points.
      seed: other draws for the same points.
      folder: finished batches go to `folder/NAME.jsonl`.
      identity: what else the values depend on, the parameters' digest among it.
      stop: asked after every batch.
      report: `report(name, done, total, mean, seconds left)`, after every batch.
      mesh: of the axis "points", whose devices share a batch; None is the default
        device. How many there are changes no value.

    Raises:
      StoppedError: a signal came; finished batches are on the disk.
    """
    kind = estimator.name.partition("-")[0]
    key = jax.random.fold_in(jax.random.key(FIXED_SEED), 5)
    for stream in (seed, _KINDS.index(kind)):
        key = jax.random.fold_in(key, stream)
    parts = Parts(
        folder / f"{estimator.name}.jsonl",
        {**identity, **estimator.settings, "seed": seed},
    )

    def batch(params: Any, indices: jax.Array, images: jax.Array) -> Any:
        def one(index: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
            return estimator.function(
                params, jax.random.fold_in(key, index), to_input(image)
            )

        return jax.vmap(one)(indices, images)

    num_devices = mesh.size if mesh else 1
    if mesh is not None and num_devices > 1:
        points = PartitionSpec("points")
        batch = jax.shard_map(
            batch,
            mesh=mesh,
            in_specs=(PartitionSpec(), points, points),
            out_specs=points,
            check_vma=False,  # each device has points of its own
        )
    missing = [int(index) for index in indices if parts.get(str(index)) is None]
    size, compiled, started = estimator.batch_size * num_devices, None, 0.0
    for first in range(0, len(missing), size):
        # The last batch is filled up: one shape, one program.
        chosen = np.resize(np.array(missing[first : first + size]), size)
        arguments = (params, chosen, images[chosen])
        if compiled is None:
            compiled = jax.jit(batch).lower(*arguments).compile()
            started = time.perf_counter()
        begun = time.perf_counter()
        found = jax.device_get(compiled(*arguments))
        seconds = (time.perf_counter() - begun) / min(size, len(missing) - first)
        for i, index in enumerate(missing[first : first + size]):
            values = {name: np.asarray(v[i]).tolist() for name, v in found.items()}
            parts.put(str(index), {**values, "seconds": seconds})
        done = min(first + size, len(missing))
        speed = done / (time.perf_counter() - started)
        known = [p for i in indices if (p := parts.get(str(i))) is not None]
        lead = "log_likelihood" if "log_likelihood" in known[0] else "bound"
        mean = float(np.mean([value[lead] for value in known]))
        left = (len(missing) - done) / speed
        report(estimator.name, len(known), len(indices), mean, left)
        if done < len(missing):
            stop.check()
    return _gather(estimator, indices, [parts.get(str(i)) for i in indices])


def _gather(
    estimator: Estimator, indices: np.ndarray, found: Sequence[Any]
) -> Measured:
    values = {
        name: np.array([value[name] for value in found], np.float64)
        for name in (found[0] if found else {})
    }
    seconds = float(values.pop("seconds").sum()) if found else 0.0
    return Measured(estimator.name, estimator.settings, indices, values, seconds)
