"""The one loop that applies an estimator to many datapoints.

`experiments.mnist`, sweeps and `experiments.marginal_likelihood` all evaluate log p(x)
here: datapoints go through the compiled estimator in batches, each value is kept as it
is made, and long work can be stopped, continued and extended. A datapoint's key depends
on its index and the estimator's stream alone, so a point's value does not depend on
which other points are evaluated, or on the number of devices.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from experiments.errors import StoppedError
from experiments.evaluation.kinds import Estimator, Kind
from experiments.keys import stream_key
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.storage.digests import digests
from experiments.storage.parts import Parts

__all__ = [
    "Measured",
    "Progress",
    "evenly_spaced",
    "point_evaluator",
    "points_identity",
    "shown_nowhere",
    "stop_together",
]


class Measured(NamedTuple):
    """The values of one estimator on some datapoints.

    Attributes:
      kind: of the estimator.
      settings: of the estimator.
      indices: `[n]` which datapoints of the split.
      values: `{name: [n, ...]}`, in nats where they are log densities.
      seconds: that all points together took, compilation left out.
    """

    kind: Kind
    settings: Mapping[str, Any]
    indices: np.ndarray
    values: Mapping[str, np.ndarray]
    seconds: float

    @property
    def name(self) -> str:
        """Of its file and its row: "importance-5000"."""
        return self.kind.name_of(self.settings)

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.kind.label(self.settings)

    @property
    def size(self) -> int | None:
        """The setting that a better estimate has more of: samples, temperatures."""
        return self.settings[self.kind.size] if self.kind.size else None


class Progress(NamedTuple):
    """How far the evaluation of an estimator is.

    Attributes:
      name: of the estimator.
      done: points with a value.
      total: points that are asked for.
      mean: over the values so far, of what the estimator estimates, in nats; NaN where
        that is not kept.
      points_per_second: of this process, compilation left out.
    """

    name: str
    done: int
    total: int
    mean: float
    points_per_second: float

    @property
    def seconds_left(self) -> float:
        """At the speed so far."""
        return (self.total - self.done) / self.points_per_second


def shown_nowhere(progress: Progress) -> None:
    """The report of an evaluation that nobody watches."""


def _everything(name: str) -> bool:
    return True


def evenly_spaced(num_points: int, num_wanted: int) -> np.ndarray:
    """Indices of `num_wanted` of `num_points`, evenly spaced; 0 or too many: all.

    >>> evenly_spaced(10, 3).tolist()
    [0, 3, 6]
    """
    if not 0 < num_wanted < num_points:
        return np.arange(num_points)
    return np.arange(num_wanted) * num_points // num_wanted


def point_evaluator(
    estimator: Estimator,
    to_input: Callable[[jax.Array], jax.Array],
    *,
    seed: int = 0,
    mesh: Mesh | None = None,
    share: bool = False,
    lanes: bool = False,
) -> Callable[..., Measured]:
    """Returns `evaluate(params, images, indices, *, keep, parts, stop, report)`.

    Its arguments are the parameters; `[N, D]` uint8, the whole split; `[n]`, which
    points; `keep(name)`, whether a value is wanted (all are, unless told); where
    finished values are kept (`Parts`, or None); a `StopRequest` that is asked after
    every batch, in all processes; and `report(Progress)`, called after every batch. It
    returns `Measured`, and raises `StoppedError` after a signal, with the finished
    batches on the disk. Programs are compiled once for each batch size, for all calls.

    Args:
      estimator: what to apply, `estimator.batch_size` points at a time on each device.
      to_input: bytes `[D]` to x.
      seed: other draws for the same points; 0 are the ones that are reported.
      mesh: of one axis, whose devices share the points; None is the default device. How
        many devices there are changes no value.
      share: where there are fewer points than devices, they share the work of each
        point, if the estimator can: the values then differ by the order of sums.
      lanes: `params` has a leading axis of runs, spread over the mesh instead of the
        points; so have the values, after the axis of the points.
    """
    key = stream_key(estimator.kind.stream, seed)

    programs: dict[tuple[int, bool], Any] = {}

    def compiled(size: int, shared: bool, *arguments: Any) -> Any:
        if (size, shared) not in programs:
            batch = _batch(estimator, to_input, key, mesh, shared=shared, lanes=lanes)
            programs[size, shared] = batch.lower(*arguments).compile()
        return programs[size, shared]

    def evaluate(
        params: Any,
        images: np.ndarray,
        indices: np.ndarray,
        *,
        keep: Callable[[str], bool] = _everything,
        parts: Parts | None = None,
        stop: StopRequest | None = None,
        report: Callable[[Progress], None] = shown_nowhere,
    ) -> Measured:
        names = [str(index) for index in indices]
        values: dict[str, Any] = {}
        if parts is not None:
            values = distributed.on_writer(partial(_finished, parts, names))
        missing = [int(index) for index in indices if str(index) not in values]
        num_devices = mesh.size if mesh is not None and not lanes else 1
        shared = share and estimator.across is not None and len(indices) < num_devices
        # Else always the whole batch: a value must not depend on how many were asked.
        size = len(indices) if shared else estimator.batch_size * num_devices
        if mesh is not None and not lanes:
            params = distributed.replicate(params, mesh)
        spent = 0.0
        for first in range(0, len(missing), size):
            own = missing[first : first + size]
            # The last batch is filled up with its own points: one shape, one program.
            chosen = np.resize(np.array(own), size)
            arguments: Any = (chosen, images[chosen])
            if mesh is not None:
                arguments = distributed.replicate(arguments, mesh)
            run = compiled(size, shared, params, *arguments)
            began = time.perf_counter()
            found = distributed.to_host(run(params, *arguments))
            seconds = time.perf_counter() - began
            spent += seconds
            made = {}
            for i, index in enumerate(own):
                value = {
                    name: (leaf[:, i] if lanes else leaf[i]).tolist()
                    for name, leaf in found.items()
                    if keep(name)
                }
                made[str(index)] = value | {"seconds": seconds / len(own)}
            values |= made
            if parts is not None:
                parts.put_all(made)
            estimates = [
                value.get(estimator.kind.estimates, np.nan) for value in values.values()
            ]
            mean, speed = float(np.mean(estimates)), (first + len(own)) / spent
            report(Progress(estimator.name, len(values), len(names), mean, speed))
            if stop is not None and len(values) < len(names):
                stop_together(stop)
        return _gather(estimator, indices, [values[name] for name in names])

    return evaluate


def _batch(
    estimator: Estimator,
    to_input: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    mesh: Mesh | None,
    *,
    shared: bool,
    lanes: bool,
) -> Any:
    """Jits `batch(params, indices [n], images [n, D]) -> {name: [n, ...]}` for a mesh.

    With `shared` its devices share the work of each point; with `lanes` they share the
    runs that `params` has, and values are `[runs, n, ...]`.
    """
    function = estimator.function
    if shared and mesh is not None and estimator.across is not None:
        function = estimator.across(mesh.axis_names[0])

    def batch(params: Any, indices: Any, images: Any) -> dict[str, jax.Array]:
        def one(index: jax.Array, image: jax.Array) -> dict[str, jax.Array]:
            return function(params, jax.random.fold_in(key, index), to_input(image))

        return jax.vmap(one)(indices, images)

    def lane_by_lane(params: Any, indices: Any, images: Any) -> dict[str, jax.Array]:
        # One after another, so that a device needs the memory of one.
        return jax.lax.map(lambda own: batch(own, indices, images), params)

    if mesh is None:
        return jax.jit(batch)
    everywhere, split = PartitionSpec(), PartitionSpec(mesh.axis_names[0])
    if lanes:
        specs, out = (split, everywhere, everywhere), split
    elif shared:
        specs, out = (everywhere, everywhere, everywhere), everywhere
    else:
        specs, out = (everywhere, split, split), split
    spread = jax.shard_map(
        lane_by_lane if lanes else batch,
        mesh=mesh,
        in_specs=specs,
        out_specs=out,
        check_vma=shared,  # else each device has points, or lanes, of its own
    )
    if lanes:
        return jax.jit(spread)
    return jax.jit(spread, out_shardings=NamedSharding(mesh, everywhere))


def points_identity(
    config: ConfigDict, params: Any, data_sha256: str
) -> dict[str, Any]:
    """What the value of a datapoint depends on beside its estimator: of `Parts`."""
    return {
        "params": digests(params),
        "data": data_sha256,
        "binarization": config.data.binarization,
        "scale": config.data.scale,
        "precision": config.eval.precision,
    }


def stop_together(stop: StopRequest) -> None:
    """Raises `StoppedError` in every process after a signal in any; all must ask."""
    if distributed.any_process(stop.requested):
        raise StoppedError


def _finished(parts: Parts, names: list[str]) -> dict[str, Any]:
    found = {name: parts.get(name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _gather(
    estimator: Estimator, indices: np.ndarray, found: list[dict[str, Any]]
) -> Measured:
    values = {
        name: np.array([value[name] for value in found], np.float64)
        for name in (found[0] if found else {})
    }
    seconds = float(values.pop("seconds").sum()) if found else 0.0
    return Measured(estimator.kind, estimator.settings, indices, values, seconds)
