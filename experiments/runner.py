"""A whole run: data, epochs, evaluation, checkpoints, figures, report.

Training is a function of (config, data, key): what happens between epochs only looks
at it. The step is `aevb.epoch` under one `jax.jit`, its state donated.
"""

import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import aevb
from experiments import data, records
from experiments.evaluation import (
    BoundEvaluation,
    LikelihoodEvaluation,
    bound_evaluator,
    evenly_spaced,
    likelihood_evaluator,
)
from experiments.program import Hyperparameters, Program, build
from experiments.summary import write_summary

__all__ = ["Result", "run"]


class Result(NamedTuple):
    """What a finished run found.

    Attributes:
      config: the configuration.
      dataset: the data, split.
      program: the run's functions.
      params: the trained parameters.
      metrics: the lines of `metrics.jsonl`.
      test: the bound on all of the test split.
      likelihood: log p(x) of test points, or None where it is not defined or asked for.
      timings: seconds and images per second, which differ from run to run.
    """

    config: ConfigDict
    dataset: data.Dataset
    program: Program
    params: Any
    metrics: list[dict[str, Any]]
    test: BoundEvaluation
    likelihood: LikelihoodEvaluation | None
    timings: dict[str, float]


def default_workdir(name: str, config: ConfigDict) -> Path:
    """`runs/NAME-DIGEST`: one place for each configuration, whatever its length.

    The number of epochs and the evaluation are left out of the digest: asking for more
    of the same run continues it.
    """
    fields = config.to_dict()
    for field in ("epochs", "train_samples", "eval"):
        fields.pop(field)
    text = json.dumps(fields, sort_keys=True)
    return Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run(config: ConfigDict, workdir: Path) -> Result:
    """Trains, evaluates and reports a configuration; continues what is in `workdir`.

    Args:
      config: validated.
      workdir: made where it does not exist.

    Returns:
      `Result`; the files are described in `experiments.records`.

    Raises:
      ConfigError: the configuration does not fit the data or the workdir.
      DataError: the data cannot be read.
    """
    started = time.perf_counter()
    dataset = data.load(
        config.data.name,
        config.data.path,
        num_valid=config.data.num_valid,
        num_train=config.data.num_train,
    )
    program = build(config, dataset)
    workdir.mkdir(parents=True, exist_ok=True)
    records.write_json(workdir / "config.json", config.to_dict())
    records.write_json(workdir / "run.json", records.manifest(dataset.sha256))
    _announce(config, dataset, program, workdir)

    params, timings = _train(config, program, workdir)

    test = jax.device_get(jax.jit(bound_evaluator(program))(params, program.test))
    likelihood = None
    if config.eval.num_samples and program.is_likelihood:
        likelihood = _log_likelihood(config, program, params)
        timings["evaluation_images_per_second"] = likelihood.images_per_second
    timings["total_seconds"] = time.perf_counter() - started
    result = Result(
        config,
        dataset,
        program,
        params,
        records.Metrics.read(workdir),
        test,
        likelihood,
        timings,
    )
    write_summary(result, workdir)
    return result


def _train(
    config: ConfigDict, program: Program, workdir: Path
) -> tuple[Any, dict[str, float]]:
    """All epochs from the last checkpoint on; returns the parameters."""
    root = jax.random.key(config.seed)
    init_key, train_key = jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
    algorithm = program.algorithm(
        Hyperparameters(config.learning_rate, config.weight_prior)
    )
    state = jax.jit(lambda key: algorithm.init(program.init(key)))(init_key)
    checkpoints = records.Checkpoints(workdir)
    restored = checkpoints.restore(state)
    if restored is not None:
        state = restored[1]
        print(f"continues from step {restored[0]:,}")
    metrics = records.Metrics(workdir, last_step=int(state.step))

    train = jax.device_put(program.train)
    curve = jax.device_put(getattr(program, config.eval.curve))
    evaluate = jax.jit(bound_evaluator(program))
    one_epoch = (
        jax.jit(
            partial(
                aevb.epoch,
                algorithm,
                batch_size=config.batch_size,
                transform=program.transform,
            ),
            donate_argnums=1,
        )
        .lower(train_key, state, train)
        .compile()
    )

    first = int(state.step) // program.steps_per_epoch
    samples_per_epoch = program.steps_per_epoch * config.batch_size
    seconds = 0.0
    for epoch in range(first + 1, program.num_epochs + 1):
        start = time.perf_counter()
        state, info = jax.block_until_ready(one_epoch(train_key, state, train))
        seconds += time.perf_counter() - start
        scalars = {
            "epoch": epoch,
            "samples": epoch * samples_per_epoch,
            "train/objective": float(info.objective),
            **{f"train/{name}": float(value) for name, value in info.aux.items()},
        }
        last = epoch == program.num_epochs
        if last or epoch % config.eval.every == 0:
            found = jax.device_get(evaluate(state.params, curve))
            scalars |= {
                f"{config.eval.curve}/{name}": float(getattr(found, name))
                for name in ("bound", "reconstruction", "kl", "active_units")
            }
        speed = (epoch - first) * samples_per_epoch / seconds
        metrics.write(
            int(state.step), scalars, events_only={"images_per_second": speed}
        )
        _progress(config, program, scalars, speed)
        if last or epoch % config.eval.every == 0:
            checkpoints.save(int(state.step), state)
    metrics.close()
    checkpoints.close()
    timings = {"training_seconds": seconds}
    if seconds:
        trained = program.num_epochs - first
        timings["training_images_per_second"] = trained * samples_per_epoch / seconds
    return state.params, timings


def _log_likelihood(
    config: ConfigDict, program: Program, params: Any
) -> LikelihoodEvaluation:
    evaluate = likelihood_evaluator(
        program,
        num_samples=config.eval.num_samples,
        chunk_size=config.eval.chunk_size,
        batch_size=config.eval.batch_size,
    )
    indices = evenly_spaced(len(program.test), config.eval.num_points)
    print(
        f"log p(x) of {len(indices):,} test images with {config.eval.num_samples:,} "
        "importance samples each"
    )

    def progress(done: int, total: int, speed: float) -> None:
        end = "\n" if done == total else "\r"
        left = _duration((total - done) / speed)
        print(
            f"  {done:,}/{total:,} images, {speed:.1f} images/s, {left} left   ",
            end=end,
            flush=True,
        )

    return evaluate(params, program.test, indices, progress)


def _announce(
    config: ConfigDict, dataset: data.Dataset, program: Program, workdir: Path
) -> None:
    splits = (dataset.train, dataset.valid, dataset.test)
    sizes = " / ".join(f"{len(split.images):,}" for split in splits)
    widths = "-".join(map(str, (dataset.train.images.shape[1], *config.hidden_dims)))
    print(f"{dataset.name} ({config.data.binarization}), {sizes} train / valid / test")
    print(
        f"{widths}-{config.latent_dim} {config.activation}, {config.estimator} with "
        f"{config.num_samples} sample{'s' * (config.num_samples > 1)}, "
        f"{config.optimizer} {config.learning_rate:g}, batches of {config.batch_size}, "
        f"{program.num_epochs:,} epochs on {jax.devices()[0].device_kind}"
    )
    print(f"workdir {workdir}", flush=True)


def _progress(
    config: ConfigDict, program: Program, scalars: dict[str, float], speed: float
) -> None:
    """One line an epoch, in nats per image."""
    epoch = int(scalars["epoch"])
    left = (program.num_epochs - epoch) * program.steps_per_epoch * config.batch_size
    parts = [f"epoch {epoch:>{len(str(program.num_epochs))}}/{program.num_epochs}"]
    parts.append(f"train bound {scalars['train/bound']:8.2f}")
    if "train/kl" in scalars:
        parts.append(
            f"reconstruction {scalars['train/reconstruction']:8.2f} "
            f"KL {scalars['train/kl']:5.2f}"
        )
    curve = config.eval.curve
    if f"{curve}/bound" in scalars:
        parts.append(
            f"{curve} bound {scalars[f'{curve}/bound']:8.2f} "
            f"KL {scalars[f'{curve}/kl']:5.2f} "
            f"active {scalars[f'{curve}/active_units']:.0f}"
        )
    parts.append(f"{speed:,.0f} images/s, {_duration(left / speed)} left")
    print("  ".join(parts), flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
