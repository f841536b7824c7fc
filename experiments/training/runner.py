"""A whole run: data, epochs, evaluation.

The same call on the same workdir goes on where it stopped, and ends with the same bits
as a run that was never interrupted. `experiments.reports` turns its `Result` into what
a person reads.
"""

import contextlib
import hashlib
import json
import sys
import time
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.errors import ConfigError, WorkdirError
from experiments.evaluation.bounds import bound_evaluator
from experiments.evaluation.points import stop_together
from experiments.evaluation.probes import probe_codes
from experiments.evaluation.sampled import SampledLikelihood, log_likelihood
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.program import Program, build, load_dataset
from experiments.storage.atomic import read_json, write_json
from experiments.storage.manifest import make_manifest
from experiments.storage.workdir import check_continues, depends_on_length
from experiments.training import precision
from experiments.training.loop import Trained, train
from experiments.training.progress import announce, print_points
from experiments.training.result import Result

__all__ = ["default_workdir", "run"]


def default_workdir(name: str, config: ConfigDict) -> Path:
    """`runs/NAME-DIGEST`: one place for each configuration, whatever its length.

    The number of epochs, the evaluation, the checkpoints and where the data lie are
    left out of the digest: asking for more of the same run continues it.
    """
    fields = config.to_dict()
    for field in ("epochs", "train_samples", "eval", "checkpoint"):
        fields.pop(field)
    fields["data"].pop("stream")
    fields["data"]["path"] = ""
    text = json.dumps(fields, sort_keys=True)
    return Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run(
    config: ConfigDict, workdir: Path, stop: StopRequest, *, num_devices: int = 0
) -> Result:
    """Trains and evaluates a configuration; continues what is in `workdir`.

    Args:
      config: validated.
      workdir: held by the caller (`experiments.storage.workdir.held`).
      stop: asked where nothing is lost: after an epoch, a block, a batch of points.
      num_devices: over which minibatches and evaluations are split; 0 is one device of
        one process, or all devices of several.

    Returns:
      `Result`; the files are described in `experiments.storage.workdir`.

    Raises:
      ConfigError: the configuration does not fit the data.
      DataError: the data cannot be read.
      WorkdirError: the workdir cannot be written, or holds another run.
      CheckpointError: it has checkpoints, and none is usable.
      DivergenceError: something is not finite.
      StoppedError: a signal came, and what was done is saved.
    """
    started = time.perf_counter()
    mesh = _mesh(config, num_devices)
    earlier = distributed.on_writer(lambda: precision.before(workdir))
    if config.precision == "auto" and earlier is not None:
        config = precision.with_precision(config, earlier["chosen"])
    manifest = make_manifest() | {"num_devices": mesh.size if mesh else 1}

    def check() -> list[str]:
        return check_continues(workdir, config, manifest)

    distributed.on_writer(check)  # before the data are read: that takes longer
    dataset = load_dataset(config)
    settled = distributed.on_writer(lambda: precision.settle(config, dataset, earlier))
    config = precision.with_precision(config, settled["chosen"])
    program = build(config, dataset)
    manifest |= {
        "precision": settled,
        "data_sha256": dataset.sha256,
        "data_source": dataset.source,
        "num_epochs": program.num_epochs,
        "steps_per_epoch": program.steps_per_epoch,
    }
    warnings = distributed.on_writer(check)
    manifest["grown_from"], grown = distributed.on_writer(
        lambda: _lengths(config, workdir, program)
    )
    slow = "" if earlier else precision.advice(settled)
    if distributed.is_writer():
        for warning in filter(None, [*warnings, *grown, slow]):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        write_json(workdir / "run.json", manifest)
        write_json(workdir / "config.json", config.to_dict())
    announce(config, dataset, program, manifest["num_devices"])
    if chosen := precision.describe(settled):
        print(chosen)
    print(f"workdir {workdir}", flush=True)

    trained = train(config, program, workdir, stop, mesh)
    stop_together(stop)
    test = None
    if program.has_encoder:
        evaluate = jax.jit(bound_evaluator(program, mesh=mesh))
        params, images = trained.params, program.test
        if mesh is not None:
            params, images = distributed.replicate((params, images), mesh)
        test = jax.device_get(evaluate(params, images))
    stop_together(stop)
    likelihood = None
    if config.eval.num_samples and program.is_likelihood and program.has_encoder:
        print(
            f"log p(x) of test images with {config.eval.num_samples:,} importance "
            "samples each"
        )
        likelihood = log_likelihood(
            config,
            program,
            trained.params,
            dataset.sha256,
            workdir,
            stop,
            mesh,
            print_points,
        )
    probes = None
    if test is not None:
        host = jax.device_get(trained.params)
        probes = distributed.on_writer(
            lambda: probe_codes(config, program, host, dataset, test.means)
        )
    return Result(
        config,
        dataset,
        program,
        trained.params,
        trained.lines,
        test,
        likelihood,
        probes,
        _timings(config, program, trained, likelihood, workdir, started),
    )


def _timings(
    config: ConfigDict,
    program: Program,
    trained: Trained,
    likelihood: SampledLikelihood | None,
    workdir: Path,
    started: float,
) -> dict[str, float]:
    num_samples = program.num_epochs * program.steps_per_epoch * config.batch_size
    timings = {
        "training_seconds": trained.seconds,
        "training_images_per_second": num_samples / trained.seconds,
    }
    if likelihood is not None:
        points = likelihood.points
        speed = len(points.indices) / points.seconds
        timings["evaluation_images_per_second"] = speed
    timings["total_seconds"] = time.perf_counter() - started
    with contextlib.suppress(WorkdirError, KeyError):
        # A finished run that is shown again keeps the time that it took.
        if not trained.num_trained:
            results = read_json(workdir / "results.json")
            timings["total_seconds"] = results["timings"]["total_seconds"]
    return timings


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


def _lengths(
    config: ConfigDict, workdir: Path, program: Program
) -> tuple[list[int], list[str]]:
    """The earlier lengths of a run that was made longer, and a warning."""
    if not (workdir / "run.json").exists():
        return [], []
    before = read_json(workdir / "run.json")
    lengths = list(before.get("grown_from", []))
    length = before.get("num_epochs", program.num_epochs)
    if program.num_epochs < length:
        raise WorkdirError(
            f"{workdir} holds a run of {length} epochs, and {program.num_epochs} are "
            "asked for: a run may grow, not shrink; choose another --workdir"
        )
    if program.num_epochs == length:
        return lengths, []
    if not depends_on_length(config):
        return [*lengths, length], []
    return [*lengths, length], [
        f"the run grows from {length} to {program.num_epochs} epochs, and its step "
        f"sizes (schedule={config.schedule}, warmup={config.warmup:g}) depend on its "
        "length: from here on they are those of the longer run, but what is done was "
        "done with the old ones, so this is not the run that was long from the start"
    ]
