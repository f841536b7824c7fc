"""The epochs of a run, from where it stopped, with what must not be lost saved.

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
from ml_collections import ConfigDict

import aevb
from experiments.checkpoints import Checkpoints
from experiments.evaluation import bound_evaluator
from experiments.interruption import StoppedError, StopRequest
from experiments.program import Hyperparameters, Program
from experiments.progress import print_epoch
from experiments.records import Metrics
from experiments.workdir import check_room

__all__ = [
    "DivergenceError",
    "Trained",
    "best_step",
    "make_algorithm",
    "start",
    "train",
]


class DivergenceError(RuntimeError):
    """A loss, gradient or parameter is not finite; exit code 2."""


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
    """The algorithm at the configuration's own hyper-parameters."""
    return program.algorithm(Hyperparameters(config.learning_rate, config.weight_prior))


def start(config: ConfigDict, program: Program) -> aevb.State:
    """The state before the first step; a function of the seed, to be traced."""
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    return make_algorithm(config, program).init(program.init(key))


def train(
    config: ConfigDict, program: Program, workdir: Path, stop: StopRequest
) -> Trained:
    """All epochs from the last checkpoint on.

    Raises:
      CheckpointError: there are checkpoints, and none is usable.
      DivergenceError: something is not finite; the last checkpoint is.
      StoppedError: a signal came; every finished epoch is on the disk.
      WorkdirError: the disk is full.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    algorithm = make_algorithm(config, program)
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
    like = jax.eval_shape(partial(start, config, program))
    restored = checkpoints.restore(like)
    if restored is None:
        saved, lines, seconds = None, [], 0.0
        state = jax.jit(partial(start, config, program))()
    else:
        saved, state = restored.step, restored.state
        lines, seconds = restored.record["lines"], restored.record["seconds"]
        print(f"continues from step {saved:,}", flush=True)
    first = int(state.step) // program.steps_per_epoch
    epochs = range(first + 1, program.num_epochs + 1)
    if not epochs:
        return Trained(state.params, lines, seconds, 0)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    check_room(workdir, num_bytes, config.checkpoint.keep + 1)

    data = jax.device_put(program.train)
    curve = jax.device_put(getattr(program, config.eval.curve))
    evaluate = jax.jit(bound_evaluator(program))
    epoch_of = partial(
        aevb.epoch, batch_size=config.batch_size, transform=program.transform
    )

    @partial(jax.jit, donate_argnums=1)
    def one_epoch(key: jax.Array, state: aevb.State, data: jax.Array) -> tuple:
        state, info = epoch_of(algorithm, key, state, data)
        watched = (info.objective, info.grad_norm, state.params)
        return state, info, _all_finite(watched)

    compiled = one_epoch.lower(key, state, data).compile()
    samples_per_epoch = program.steps_per_epoch * config.batch_size
    trained_seconds = 0.0
    with closing(checkpoints), closing(Metrics(workdir, lines)) as metrics:

        def save() -> int:
            checkpoints.save(
                int(state.step),
                state,
                {"lines": metrics.lines, "seconds": seconds},
                best=best_step(config, metrics.lines),
            )
            return int(state.step)

        for epoch in epochs:
            if stop.requested:
                if saved != int(state.step):
                    save()
                raise StoppedError
            began = time.perf_counter()
            state, info, finite = jax.block_until_ready(compiled(key, state, data))
            elapsed = time.perf_counter() - began
            seconds, trained_seconds = seconds + elapsed, trained_seconds + elapsed
            if not finite:
                restored = checkpoints.restore(like)
                good = restored.state if restored else start(config, program)
                where = _locate(
                    epoch_of,
                    algorithm,
                    key,
                    good,
                    data,
                    last_step=epoch * program.steps_per_epoch,
                )
                raise DivergenceError(
                    f"diverged in epoch {epoch}: {where}; "
                    + (
                        f"the checkpoint of step {restored.step:,} is finite"
                        if restored
                        else "there is no checkpoint yet"
                    )
                    + ". A smaller config.learning_rate is the usual mend"
                )
            last = epoch == program.num_epochs
            scalars = {
                "epoch": epoch,
                "samples": epoch * samples_per_epoch,
                "train/objective": float(info.objective),
                **{f"train/{name}": float(value) for name, value in info.aux.items()},
            }
            if last or epoch % config.eval.every == 0:
                found = jax.device_get(evaluate(state.params, curve))
                scalars |= {
                    f"{config.eval.curve}/{name}": float(getattr(found, name))
                    for name in ("bound", "reconstruction", "kl", "active_units")
                }
            speed = (epoch - first) * samples_per_epoch / trained_seconds
            step = int(state.step)
            metrics.write(step, scalars, events_only={"images_per_second": speed})
            print_epoch(config, program, scalars, speed)
            if last or epoch % config.checkpoint.every == 0 or stop.requested:
                saved = save()
    return Trained(state.params, metrics.lines, seconds, len(epochs))


def best_step(config: ConfigDict, lines: list[dict[str, Any]]) -> int | None:
    """The step of the best bound on the validation split among the regular saves.

    It follows from the lines alone, so an interruption does not change it. None while
    there is none, and where the curve is of the test set: nothing is chosen on that.
    """
    scores = {
        line["step"]: line["valid/bound"]
        for line in lines
        if line.get("valid/bound", float("nan")) > float("-inf")
        and line["epoch"] % config.checkpoint.every == 0
    }
    return max(scores, key=lambda step: scores[step], default=None)


def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(
        jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)])
    )


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
        return {name: _all_finite(value) for name, value in values.items()}

    def update(
        key: jax.Array, state: aevb.State, batch: jax.Array
    ) -> tuple[aevb.State, aevb.Info]:
        opt_state, firsts = state.opt_state
        state, info = algorithm.update(key, state._replace(opt_state=opt_state), batch)
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
