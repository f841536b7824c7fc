"""A whole run: data, epochs, evaluation, figures, report; and a run opened again.

The same call on the same workdir goes on where it stopped, and ends with the same bits
as a run that was never interrupted.
"""

import contextlib
import hashlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import data, distributed, lock, records, training
from experiments import workdir as workdirs
from experiments.checkpoints import Checkpoints
from experiments.config import ConfigError
from experiments.evaluation import (
    BoundEvaluation,
    LikelihoodEvaluation,
    bound_evaluator,
    evenly_spaced,
    likelihood_evaluator,
)
from experiments.interruption import StoppedError, StopRequest
from experiments.lock import WorkdirError
from experiments.program import Program, build
from experiments.progress import announce, print_likelihood

__all__ = ["Opened", "Result", "default_workdir", "load_run", "run"]


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


class Opened(NamedTuple):
    """A run that was opened from its workdir, finished or not.

    Attributes:
      config: its configuration.
      dataset: its data, by their sha256.
      program: its functions.
      params: the parameters of a checkpoint.
      step: the step of that checkpoint.
    """

    config: ConfigDict
    dataset: data.Dataset
    program: Program
    params: Any
    step: int


def default_workdir(name: str, config: ConfigDict) -> Path:
    """`runs/NAME-DIGEST`: one place for each configuration, whatever its length.

    The number of epochs, the evaluation, the checkpoints and where the data lie are
    left out of the digest: asking for more of the same run continues it.
    """
    fields = config.to_dict()
    for field in ("epochs", "train_samples", "eval", "checkpoint"):
        fields.pop(field)
    fields["data"].pop("stream")
    text = json.dumps(fields, sort_keys=True)
    return Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run(config: ConfigDict, workdir: Path, *, num_devices: int = 0) -> Result:
    """Trains, evaluates and reports a configuration; continues what is in `workdir`.

    Args:
      config: validated.
      workdir: made where it does not exist; its parent must, `runs` excepted.
      num_devices: over which minibatches and evaluations are split; 0 is one device of
        one process, or all devices of several.

    Returns:
      `Result`; the files are described in `experiments.records`.

    Raises:
      ConfigError: the configuration does not fit the data.
      DataError: the data cannot be read.
      WorkdirError: the workdir cannot be written, is in use, or holds another run.
      CheckpointError: it has checkpoints, and none is usable.
      DivergenceError: something is not finite.
      StoppedError: a signal came, and what was done is saved.
    """
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if records.is_writer():
            if workdir.parent == Path("runs"):
                workdir.parent.mkdir(exist_ok=True)
            stack.enter_context(lock.locked(workdir))
        stop = stack.enter_context(StopRequest())
        try:
            return _run(config, workdir, stop, started, _mesh(config, num_devices))
        except OSError as error:
            if error.errno is None:  # not of a file: a library that cannot be loaded
                raise
            raise WorkdirError(
                f"{error.filename or workdir} cannot be written ({error.strerror}): "
                "what was there is whole; mend that and run the same command again"
            ) from error


def _run(
    config: ConfigDict,
    workdir: Path,
    stop: StopRequest,
    started: float,
    mesh: Mesh | None,
) -> Result:
    manifest = records.manifest() | {"num_devices": mesh.size if mesh else 1}

    def check() -> list[str]:
        return workdirs.check_continues(workdir, config, manifest)

    warnings = distributed.on_writer(check)
    dataset = _load(config)
    program = build(config, dataset)
    manifest |= {
        "data_sha256": dataset.sha256,
        "num_epochs": program.num_epochs,
        "steps_per_epoch": program.steps_per_epoch,
    }
    distributed.on_writer(check)
    manifest["grown_from"], grown = distributed.on_writer(
        lambda: _lengths(config, workdir, program)
    )
    if records.is_writer():
        for warning in warnings + grown:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        records.write_json(workdir / "run.json", manifest)
        records.write_json(workdir / "config.json", config.to_dict())
    announce(config, dataset, program, manifest["num_devices"])
    print(f"workdir {workdir}", flush=True)
    # Imported once the command is not refused, and before hours of work: matplotlib.
    from experiments.summary import write_summary

    trained = training.train(config, program, workdir, stop, mesh)
    _check_stop(stop)
    evaluate = jax.jit(bound_evaluator(program, mesh=mesh))
    params, images = trained.params, program.test
    if mesh is not None:
        params, images = distributed.replicate((params, images), mesh)
    test = jax.device_get(evaluate(params, images))
    _check_stop(stop)
    timings = {"training_seconds": trained.seconds}
    num_samples = program.num_epochs * program.steps_per_epoch * config.batch_size
    timings["training_images_per_second"] = num_samples / trained.seconds
    likelihood = None
    if config.eval.num_samples and program.is_likelihood:
        likelihood = _log_likelihood(
            config, program, trained.params, dataset.sha256, workdir, stop, mesh
        )
        timings["evaluation_images_per_second"] = likelihood.images_per_second
    timings["total_seconds"] = time.perf_counter() - started
    with contextlib.suppress(WorkdirError, KeyError):
        # A finished run that is shown again keeps the time that it took.
        if not trained.num_trained:
            results = records.read_json(workdir / "results.json")
            timings["total_seconds"] = results["timings"]["total_seconds"]
    result = Result(
        config,
        dataset,
        program,
        trained.params,
        trained.lines,
        test,
        likelihood,
        timings,
    )
    if records.is_writer():
        write_summary(result, workdir)
    return result


def load_run(workdir: Path, *, step: int | str | None = None) -> Opened:
    """Opens a finished or interrupted run for reading; changes nothing in it.

    Args:
      workdir: of `run`; it may have been moved.
      step: of the checkpoint: None is the last usable one, "best" the best bound on the
        validation split among those kept.

    Raises:
      WorkdirError: it holds no run, or the data are not those of the run.
      DataError: the data cannot be read.
      CheckpointError: there is no usable checkpoint, or not the one that was asked for.
    """
    config = workdirs.read_config(workdir)
    dataset = _load(config)
    expected = records.read_json(workdir / "run.json").get("data_sha256")
    if dataset.sha256 != expected:
        raise WorkdirError(
            f"{dataset.source} has sha256 {dataset.sha256}, but {workdir} was trained "
            f"on {expected}: put those data back"
        )
    program = build(config, dataset)
    checkpoints = Checkpoints(workdir)
    like = jax.eval_shape(partial(training.start, config, program))
    found = checkpoints.read(like, step if isinstance(step, int) else None)
    if step == "best":
        kept = set(checkpoints.steps())
        lines = [line for line in found.record["lines"] if line["step"] in kept]
        best = training.best_step(config, lines)
        if best is not None:
            found = checkpoints.read(like, best)
    return Opened(config, dataset, program, found.state.params, found.step)


def _mesh(config: ConfigDict, num_devices: int) -> Mesh | None:
    """Of the axis "data", or None for one device."""
    if not num_devices and jax.process_count() == 1:
        return None
    mesh = distributed.mesh("data", num_devices)
    if mesh.size == 1:
        return None
    if config.batch_size % mesh.size:
        raise ConfigError(
            f"config.batch_size is {config.batch_size}, expected a multiple of the "
            f"{mesh.size} devices that share it: change it, or --devices"
        )
    return mesh


def _check_stop(stop: StopRequest) -> None:
    if distributed.any_process(stop.requested):
        raise StoppedError


def _load(config: ConfigDict) -> data.Dataset:
    return data.load(
        config.data.name,
        config.data.path,
        num_valid=config.data.num_valid,
        num_train=config.data.num_train,
    )


def _lengths(
    config: ConfigDict, workdir: Path, program: Program
) -> tuple[list[int], list[str]]:
    """The earlier lengths of a run that was made longer, and a warning."""
    if not (workdir / "run.json").exists():
        return [], []
    before = records.read_json(workdir / "run.json")
    lengths = list(before.get("grown_from", []))
    length = before.get("num_epochs", program.num_epochs)
    if program.num_epochs < length:
        raise WorkdirError(
            f"{workdir} holds a run of {length} epochs, and {program.num_epochs} are "
            "asked for: a run may grow, not shrink; choose another --workdir"
        )
    if program.num_epochs == length:
        return lengths, []
    if config.schedule == "constant" and not config.warmup:
        return [*lengths, length], []
    return [*lengths, length], [
        f"the run grows from {length} to {program.num_epochs} epochs, and its step "
        f"sizes (schedule={config.schedule}, warmup={config.warmup:g}) depend on its "
        "length: from here on they are those of the longer run, but what is done was "
        "done with the old ones, so this is not the run that was long from the start"
    ]


def _log_likelihood(
    config: ConfigDict,
    program: Program,
    params: Any,
    data_sha256: str,
    workdir: Path,
    stop: StopRequest,
    mesh: Mesh | None,
) -> LikelihoodEvaluation:
    evaluate = likelihood_evaluator(
        program,
        num_samples=config.eval.num_samples,
        chunk_size=config.eval.chunk_size,
        batch_size=config.eval.batch_size,
        mesh=mesh,
    )
    indices = evenly_spaced(len(program.test), config.eval.num_points)
    parts = records.Parts(
        workdir / "evaluation" / "log_likelihood.jsonl",
        {
            "params": records.digests(params),
            "data": data_sha256,
            "binarization": config.data.binarization,
            "num_samples": config.eval.num_samples,
            "chunk_size": config.eval.chunk_size,
            "batch_size": config.eval.batch_size,
            "indices": indices.tolist(),
        },
    )
    print(
        f"log p(x) of {len(indices):,} test images with {config.eval.num_samples:,} "
        "importance samples each"
    )

    def progress(done: int, total: int, speed: float) -> None:
        print_likelihood(done, total, speed)
        if done < total:
            _check_stop(stop)

    return evaluate(params, program.test, indices, progress, parts)
