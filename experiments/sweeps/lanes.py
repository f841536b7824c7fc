"""Runs that train as lanes of one compiled program: `aevb.epoch` under `jax.vmap`.

A lane has the keys, the data order and the noise of its single run: the same initial
parameters bit for bit, and from there on the same numbers up to the rounding of batched
matrix products (1e-5 relative after 100 steps). The lane axis is sharded over the
devices of all processes, the data are on each of them, and no device waits for another.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import aevb
from experiments.errors import StoppedError
from experiments.evaluation.bounds import BoundEvaluation, bound_evaluator
from experiments.evaluation.estimators import importance
from experiments.evaluation.points import (
    Measured,
    Progress,
    evenly_spaced,
    point_evaluator,
)
from experiments.keys import run_key
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.program import Hyperparameters, Program, initial_state
from experiments.storage.checkpoints import Checkpoints
from experiments.sweeps.begun import read_begun
from experiments.sweeps.grid import OPTIMIZER, Run, traced
from experiments.training.epochs import Reported, reported

__all__ = [
    "Lanes",
    "TrainedLanes",
    "Trainer",
    "by_lane",
    "one_epoch",
    "put",
    "start",
    "train_lanes",
]


class Lanes(NamedTuple):
    """What tells lanes apart, on the host.

    Attributes:
      seeds: `[R]` uint32.
      hyperparameters: leaves `[R]`.
    """

    seeds: Any
    hyperparameters: Hyperparameters

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Lanes":
        """Of runs of one group."""
        values = [traced(run.config) for run in runs]

        def column(name: str) -> Any:
            return np.array([value.get(name, 0.0) for value in values], np.float32)

        names = [name for name in values[0] if name.startswith(OPTIMIZER)]
        return cls(
            np.array([run.config.seed for run in runs], np.uint32),
            Hyperparameters(
                column("learning_rate"),
                column("weight_prior"),
                column("beta"),
                {name.removeprefix(OPTIMIZER): column(name) for name in names},
            ),
        )


class TrainedLanes(NamedTuple):
    """Lanes whose epochs are done; on the host of every process.

    Attributes:
      state: leaves `[R, ...]`.
      kept: earlier states, those after the epochs of `config.checkpoint.at`.
      lines: of `metrics.jsonl`, one list a lane; it ends where the lane diverged.
      diverged: the epoch in which a lane was not finite any more, 0 where never; `[R]`.
      test: the bound on the test split, leaves `[R, ...]`; None without an encoder.
      likelihood: log p(x) of test points, one a lane, or None.
      seconds: in epochs, by all processes' sessions of this chunk.
    """

    state: aevb.State
    kept: list[aevb.State]
    lines: list[list[dict[str, Any]]]
    diverged: list[int]
    test: BoundEvaluation | None
    likelihood: list[Measured] | None
    seconds: float


class Trainer:
    """The compiled programs of a group of runs, for a fixed number of lanes.

    Each device has its share of the lanes; there is no collective in any of them.
    """

    def __init__(self, config: Any, program: Program, mesh: Mesh, num_lanes: int):
        """Prepares the programs; each is compiled when it is first needed.

        Args:
          config: of one run of the group.
          program: of that run; the others differ in what is traced.
          mesh: of the axis "lane".
          num_lanes: filled up to a multiple of the mesh's size.
        """
        self.config, self.program, self.mesh = config, program, mesh
        self.num_lanes = num_lanes + -num_lanes % mesh.size
        self.data = distributed.replicate(program.train, mesh)
        self.curve = distributed.replicate(getattr(program, config.eval.curve), mesh)
        self._start = by_lane(mesh, partial(start, program))
        self._epoch = by_lane(
            mesh, partial(one_epoch, program, config.batch_size), shared=1, donate=(1,)
        )
        self._bound = by_lane(mesh, _one_by_one(bound_evaluator(program)), shared=1)
        self._compiled_epoch: Any = None
        self._points: Any = None

    def start(self, lanes: Lanes) -> aevb.State:
        """The states before the first step."""
        return self._start(lanes)

    def epoch(self, lanes: Lanes, state: aevb.State) -> tuple:
        """An epoch of every lane; its seconds are last: compilation is left out."""
        arguments = (lanes, state, self.data)
        if self._compiled_epoch is None:
            self._compiled_epoch = self._epoch.lower(*arguments).compile()
        began = time.perf_counter()
        found = jax.block_until_ready(self._compiled_epoch(*arguments))
        return (*found, time.perf_counter() - began)

    def bound(self, params: Any, images: jax.Array) -> BoundEvaluation | None:
        """The bound of every lane on a split, on the host; None without an encoder."""
        if not self.program.has_encoder:
            return None
        return distributed.to_host(self._bound(params, images))

    def log_likelihood(
        self, params: Any, stop: StopRequest, report: Callable[[Progress], None]
    ) -> list[Measured] | None:
        """log p(x) of test points for every lane, or None where none is asked for.

        Args:
          params: leaves `[R, ...]`.
          stop: asked after every batch of points, in all processes.
          report: called after every batch of points.
        """
        fields, program = self.config.eval, self.program
        if not (fields.num_samples and program.is_likelihood and program.has_encoder):
            return None
        if self._points is None:
            estimator = importance(
                program.likelihood_model,
                num_samples=fields.num_samples,
                chunk_size=fields.chunk_size,
                batch_size=fields.batch_size,
            )
            self._points = point_evaluator(
                estimator, program.to_input, mesh=self.mesh, lanes=True
            )
        indices = evenly_spaced(len(program.test), fields.num_points)
        found = self._points(params, program.test, indices, stop=stop, report=report)
        return [
            found._replace(
                values={name: leaf[:, i] for name, leaf in found.values.items()}
            )
            for i in range(self.num_lanes)
        ]


def start(program: Program, lanes: Lanes) -> aevb.State:
    """The states before the first step, leaves `[R, ...]`; to be traced."""
    return _side_by_side(
        partial(initial_state, program), lanes.seeds, lanes.hyperparameters
    )


def one_epoch(
    program: Program, batch_size: int, lanes: Lanes, state: aevb.State, data: jax.Array
) -> tuple[aevb.State, aevb.Info, jax.Array]:
    """An epoch of every lane, and which of them are finite; to be traced."""

    def one(
        seed: jax.Array, hyperparameters: Hyperparameters, state: aevb.State
    ) -> tuple[aevb.State, Reported, jax.Array]:
        state, info = aevb.epoch(
            program.algorithm(hyperparameters),
            run_key(seed),
            state,
            data,
            batch_size=batch_size,
            transform=program.transform,
        )
        return state, *reported(state, info)

    return _side_by_side(one, lanes.seeds, lanes.hyperparameters, state)


def _side_by_side(function: Callable, *arguments: Any) -> Any:
    """`jax.vmap`; of a lane alone the program of a single run, which is faster."""
    if len(jax.tree.leaves(arguments)[0]) > 1:
        return jax.vmap(function)(*arguments)
    found = function(*jax.tree.map(lambda leaf: leaf[0], arguments))
    return jax.tree.map(lambda leaf: leaf[None], found)


def by_lane(
    mesh: Mesh, function: Callable, *, shared: int = 0, donate: tuple[int, ...] = ()
) -> Any:
    """Jits `function(per lane, ..., shared, ...)`, each device with its lanes alone."""

    def call(*arguments: Any) -> Any:
        count = len(arguments) - shared
        specs = [PartitionSpec("lane")] * count + [PartitionSpec()] * shared
        split = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=PartitionSpec("lane"),
            check_vma=False,  # nothing is ever summed over lanes
        )
        return split(*arguments)

    # Named, or one device's would be told as replicated: for lanes that are read from
    # the disk the same program would be compiled again.
    lanes = NamedSharding(mesh, PartitionSpec("lane"))
    return jax.jit(call, donate_argnums=donate, out_shardings=lanes)


def _one_by_one(function: Callable) -> Callable:
    """`function(params, ...)` of each lane in turn: with the memory of one."""

    def call(params: Any, *shared: Any) -> Any:
        return jax.lax.map(lambda own: function(own, *shared), params)

    return call


def train_lanes(
    trainer: Trainer,
    runs: Sequence[Run],
    folder: Path,
    stop: StopRequest,
    report: Callable[[int, float, float], None],
    report_points: Callable[[Progress], None],
) -> TrainedLanes:
    """Trains runs of one group side by side, from where they stopped.

    Args:
      trainer: for the group.
      runs: at most as many as it has lanes; one may have its beginning elsewhere.
      folder: for the checkpoint of the lanes.
      stop: asked after every epoch, in all processes.
      report: `report(epoch, seconds, best train bound)`, after every epoch; without an
        encoder the best objective.
      report_points: called after every batch of the points for log p(x).

    Raises:
      StoppedError: a signal came in some process, and the lanes are saved.
    """
    config, program, mesh = trainer.config, trainer.program, trainer.mesh
    num_lanes = len(runs)
    sharding = NamedSharding(mesh, PartitionSpec("lane"))

    def fill(tree: Any) -> Any:
        """Lanes that are not runs repeat the last one."""
        index = np.minimum(np.arange(trainer.num_lanes), num_lanes - 1)
        return put(jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree), sharding)

    def first(tree: Any) -> Any:
        """The runs, on the host."""
        return jax.tree.map(lambda leaf: leaf[:num_lanes], distributed.to_host(tree))

    own_lanes = Lanes.of(runs)
    lanes = fill(own_lanes)
    checkpoints = Checkpoints(folder, keep=1)
    like = jax.eval_shape(partial(start, program), own_lanes)
    restored = distributed.on_writer(
        lambda: checkpoints.restore(like) or read_begun(runs, like, program.num_epochs)
    )
    lines: list[list[dict[str, Any]]] = [[] for _ in runs]
    diverged, seconds, epoch = [0] * num_lanes, 0.0, 0
    if restored is None:
        state = trainer.start(lanes)
    else:
        state, record = fill(restored.state), restored.record
        lines, diverged = record["lines"], record["diverged"]
        seconds, epoch = record["seconds"], record["epoch"]

    def save() -> None:
        host = first(state)
        record = {"lines": lines, "diverged": diverged, "seconds": seconds}
        record |= {"epoch": epoch}
        distributed.on_writer(
            lambda: checkpoints.save(
                epoch * program.steps_per_epoch, host, record, kept=asked
            )
        )

    asked = {own * program.steps_per_epoch for own in config.checkpoint.at}
    saved, found = epoch, None
    with closing(checkpoints):
        while epoch < program.num_epochs:
            if distributed.any_process(stop.requested):
                if saved != epoch:
                    save()
                raise StoppedError
            state, info, finite, elapsed = trainer.epoch(lanes, state)
            seconds, epoch = seconds + elapsed, epoch + 1
            last = epoch == program.num_epochs
            found = None
            if last or epoch % config.eval.every == 0:
                found = trainer.bound(state.params, trainer.curve)
            info, finite = distributed.to_host((info, finite))
            for i, own in enumerate(lines):
                if not finite[i] and not diverged[i]:
                    diverged[i] = epoch
                if diverged[i]:
                    continue
                own.append(
                    _line(config, i, epoch, program.steps_per_epoch, info, found)
                )
            values = info.aux.get("bound", info.objective)
            best = np.max(values[np.isfinite(values)], initial=-np.inf)
            report(epoch, elapsed, float(best))
            due = epoch % config.checkpoint.every == 0 or epoch in config.checkpoint.at
            if last or due:
                save()
                saved = epoch

    # The curve's last point, where the curve is of the test split.
    test = found if config.eval.curve == "test" else None
    if test is None:
        test = trainer.bound(state.params, distributed.replicate(program.test, mesh))
    likelihood = trainer.log_likelihood(state.params, stop, report_points)
    final = program.num_epochs * program.steps_per_epoch

    def earlier() -> list[aevb.State]:
        steps = [step for step in checkpoints.steps() if step in asked - {final}]
        return [checkpoints.read(like, step).state for step in steps]

    return TrainedLanes(
        first(state),
        distributed.on_writer(earlier),
        lines,
        diverged,
        jax.tree.map(lambda leaf: leaf[:num_lanes], test),
        likelihood and likelihood[:num_lanes],
        seconds,
    )


def _line(
    config: Any, lane: int, epoch: int, steps_per_epoch: int, info: Any, found: Any
) -> dict[str, Any]:
    """The line that the single run writes after an epoch."""
    line = {
        "step": epoch * steps_per_epoch,
        "epoch": epoch,
        "samples": epoch * steps_per_epoch * config.batch_size,
        "train/objective": float(info.objective[lane]),
        **{f"train/{name}": float(value[lane]) for name, value in info.aux.items()},
    }
    if found is not None:
        for name in ("bound", "reconstruction", "kl", "active_units"):
            value = float(getattr(found, name)[lane])
            line[f"{config.eval.curve}/{name}"] = value
    return line


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, the same in every process, with each device's share on it."""

    def put(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

    return jax.tree.map(put, tree)
