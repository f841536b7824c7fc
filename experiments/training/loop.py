"""Runs the epochs from the last checkpoint on, and saves what must not be lost.

Training is a function of (config, data, key), and the keys of an epoch follow from the
state's step: what happens between epochs only looks at the state, so a run that goes on
from a checkpoint repeats the bits of the run that was never interrupted.
"""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import aevb
from experiments.errors import DivergenceError, StoppedError
from experiments.evaluation.bounds import bound_evaluator
from experiments.keys import run_key
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.program import Program, hyperparameters, initial_state
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.metrics import Metrics
from experiments.storage.workdir import check_room
from experiments.training import epochs
from experiments.training.epochs import Reported, all_finite
from experiments.training.progress import Pace, print_epoch

__all__ = [
    "Trained",
    "best_step",
    "kept_steps",
    "make_algorithm",
    "start",
    "train",
]


class Trained(NamedTuple):
    """A run whose epochs are done.

    Attributes:
      params: the trained parameters.
      lines: of `metrics.jsonl`.
      seconds: spent in epochs, by all processes of the run.
      num_trained: the epochs of this process.
    """

    params: Any
    lines: list[dict[str, Any]]
    seconds: float
    num_trained: int


def make_algorithm(config: ConfigDict, program: Program) -> aevb.Algorithm:
    """The algorithm at the configuration's own hyper-parameters, for one device."""
    return program.algorithm(hyperparameters(config))


def start(config: ConfigDict, program: Program) -> aevb.State:
    """The state before the first step; a function of the seed, to be traced."""
    return initial_state(program, config.seed, hyperparameters(config))


def train(
    config: ConfigDict,
    program: Program,
    workdir: Path,
    stop: StopRequest,
    mesh: Mesh | None = None,
) -> Trained:
    """All epochs from the last checkpoint on.

    Args:
      config: of the run.
      program: of the run.
      workdir: where checkpoints and metrics are; process 0 alone reads and writes it.
      stop: asked after every epoch (or block, where the data are streamed), in all
        processes.
      mesh: of the axis "data", over which minibatches are split; None is one device.

    Raises:
      CheckpointError: there are checkpoints, and none is usable.
      DivergenceError: something is not finite; the last checkpoint is.
      StoppedError: a signal came; every finished epoch is on the disk.
      WorkdirError: the disk is full.
    """
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
    like = jax.eval_shape(partial(start, config, program))
    restored = distributed.on_writer(lambda: checkpoints.restore(like))
    blocks: list[dict[str, Any]] = []
    if restored is None:
        saved, lines, seconds = None, [], 0.0
        state = jax.jit(partial(start, config, program))()
    else:
        saved, state = restored.step, restored.state
        lines, seconds = restored.record["lines"], restored.record["seconds"]
        blocks = restored.record.get("blocks", [])
        print(f"continues from step {saved:,}", flush=True)
    steps_per_epoch = program.steps_per_epoch
    first_step = int(state.step)
    last_step = program.num_epochs * steps_per_epoch
    if first_step == last_step:
        return Trained(state.params, lines, seconds, 0)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    distributed.on_writer(
        lambda: check_room(workdir, num_bytes, config.checkpoint.keep + 1)
    )
    curve = np.asarray(getattr(program, config.eval.curve))
    if mesh is not None:
        state, curve = distributed.replicate((state, curve), mesh)
    else:
        curve = jax.device_put(curve)
    evaluate = jax.jit(bound_evaluator(program, mesh=mesh))
    build = epochs.streamed if program.is_streamed else epochs.resident
    advance = build(config, program, mesh, state)

    trained_seconds, pace = 0.0, Pace()
    with closing(checkpoints), closing(Metrics(workdir, lines)) as metrics:

        def save() -> int:
            record = {"lines": metrics.lines, "seconds": seconds}
            if blocks:
                record["blocks"] = blocks
            host, step = jax.device_get(state), int(state.step)
            kept = kept_steps(config, program, metrics.lines)
            distributed.on_writer(
                lambda: checkpoints.save(step, host, record, kept=kept)
            )
            return step

        while (step := int(state.step)) < last_step:
            if distributed.any_process(stop.requested):
                if saved != step:
                    save()
                raise StoppedError
            epoch = step // steps_per_epoch + 1
            began = time.perf_counter()
            state, info, finite, num_steps = jax.block_until_ready(advance(state))
            elapsed = time.perf_counter() - began
            seconds, trained_seconds = seconds + elapsed, trained_seconds + elapsed
            if not finite:
                say = partial(_diverged, config, program, checkpoints, epoch)
                raise DivergenceError(distributed.on_writer(say))
            blocks.append(_values(info, num_steps))
            step += num_steps
            if step % steps_per_epoch:
                continue
            last = epoch == program.num_epochs
            scalars = {
                "epoch": epoch,
                "samples": step * config.batch_size,
                **_mean(blocks),
            }
            blocks = []
            due = last or epoch % config.eval.every == 0
            if due and program.has_encoder:
                found = jax.device_get(evaluate(state.params, curve))
                scalars |= {
                    f"{config.eval.curve}/{name}": float(getattr(found, name))
                    for name in ("bound", "reconstruction", "kl", "active_units")
                }
            speed = (step - first_step) * config.batch_size / trained_seconds
            metrics.write(step, scalars, events_only={"images_per_second": speed})
            if pace.shows(epoch, program.num_epochs):
                print_epoch(config, program, scalars, speed)
            due = epoch % config.checkpoint.every == 0 or epoch in config.checkpoint.at
            if due or last:
                saved = save()
    num_trained = last_step // steps_per_epoch - first_step // steps_per_epoch
    return Trained(jax.device_get(state.params), metrics.lines, seconds, num_trained)


def _values(info: Reported, num_steps: int) -> dict[str, Any]:
    """What a line of metrics has of some updates, on the host."""
    return {
        "num_steps": num_steps,
        "train/objective": float(info.objective),
        **{f"train/{name}": float(value) for name, value in info.aux.items()},
    }


def _mean(blocks: list[dict[str, Any]]) -> dict[str, float]:
    """Of an epoch, each update weighted once."""
    weights = [block["num_steps"] for block in blocks]
    names = [name for name in blocks[0] if name != "num_steps"]
    if len(blocks) == 1:
        return {name: blocks[0][name] for name in names}
    return {
        name: float(np.average([block[name] for block in blocks], weights=weights))
        for name in names
    }


def _diverged(
    config: ConfigDict, program: Program, checkpoints: Checkpoints, epoch: int
) -> str:
    restored = checkpoints.restore(jax.eval_shape(partial(start, config, program)))
    where = "its updates are read from the disk, so which one is not looked for"
    if not program.is_streamed:
        where = _locate(
            partial(
                aevb.epoch, batch_size=config.batch_size, transform=program.transform
            ),
            make_algorithm(config, program),
            run_key(config.seed),
            restored.state if restored else start(config, program),
            jnp.asarray(program.train),
            last_step=epoch * program.steps_per_epoch,
        )
    kept = "there is no checkpoint yet"
    if restored:
        kept = f"the checkpoint of step {restored.step:,} is finite"
    return (
        f"diverged in epoch {epoch}: {where}; {kept}. A smaller config.learning_rate "
        "is the usual mend"
    )


def best_step(
    config: ConfigDict, lines: list[dict[str, Any]], num_epochs: int
) -> int | None:
    """The step of the best bound on the validation split among the regular saves.

    Those are every `config.checkpoint.every` epochs, and the last one. It follows from
    the lines alone, so an interruption does not change it. None while there is none,
    and where the curve is of the test set: nothing is chosen on that.
    """
    scores = {
        line["step"]: line["valid/bound"]
        for line in lines
        if line.get("valid/bound", float("nan")) > float("-inf")
        and (
            line["epoch"] % config.checkpoint.every == 0 or line["epoch"] == num_epochs
        )
    }
    return max(scores, key=lambda step: scores[step], default=None)


def kept_steps(
    config: ConfigDict, program: Program, lines: list[dict[str, Any]]
) -> set[int]:
    """The steps whose checkpoints are kept beside the last ones: the best, and those
    that `config.checkpoint.at` asks for.
    """
    kept = {epoch * program.steps_per_epoch for epoch in config.checkpoint.at}
    best = best_step(config, lines, program.num_epochs)
    return kept if best is None else kept | {best}


def _locate(
    epoch_of: Callable[..., tuple[aevb.State, aevb.Info]],
    algorithm: aevb.Algorithm,
    key: jax.Array,
    state: aevb.State,
    data: jax.Array,
    *,
    last_step: int,
) -> str:
    """Names the step and the leaf, by going on from a good state and watching.

    The watching algorithm carries, for every value, the first step after which it was
    not finite. Nothing of this is in the program that trains.
    """

    def finite(objective: Any, grad_norm: Any, params: Any) -> dict[str, jax.Array]:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        values = {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
        values |= {"the gradient": grad_norm, "the objective": objective}
        return {name: all_finite(value) for name, value in values.items()}

    def update(
        key: jax.Array, state: aevb.State, batch: jax.Array, *, indices: Any = None
    ) -> tuple[aevb.State, aevb.Info]:
        opt_state, firsts = state.opt_state
        state = state._replace(opt_state=opt_state)
        state, info = algorithm.update(key, state, batch, indices=indices)
        is_finite = finite(info.objective, info.grad_norm, state.params)
        firsts = {
            name: jnp.where(is_finite[name] | (first >= 0), first, state.step)
            for name, first in firsts.items()
        }
        return state._replace(opt_state=(state.opt_state, firsts)), info

    watching = aevb.Algorithm(algorithm.init, update)
    one_epoch = jax.jit(partial(epoch_of, watching))
    names = finite(jnp.ones(()), jnp.ones(()), state.params)
    never = {name: jnp.full((), -1, jnp.int32) for name in names}
    state = state._replace(opt_state=(state.opt_state, never))
    bad: dict[str, int] = {}
    while not bad:
        if int(state.step) >= last_step:
            return "not finite (where, another pass over the steps did not show)"
        state, _ = one_epoch(key, state, data)
        found = jax.device_get(state.opt_state[1])
        bad = {name: int(step) for name, step in found.items() if step >= 0}
    step = min(bad.values())
    first, *others = [name for name in names if bad.get(name) == step]
    more = f" and {len(others)} more are" if others else " is"
    return f"after step {step:,}, {first}{more} not finite"
