"""A run that was interrupted ends with the bits of one that was not."""

import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small
from ml_collections import ConfigDict

from experiments import data, mnist, verify
from experiments.errors import (
    CheckpointError,
    DivergenceError,
    StoppedError,
    WorkdirError,
)
from experiments.processes.interruption import StopRequest
from experiments.program import build
from experiments.storage.atomic import read_json, write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.parts import Parts
from experiments.training import loop as training
from experiments.training import runner
from experiments.training.opened import load_run
from experiments.training.progress import print_epoch, print_points

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("standard_promotion")

EPOCHS = 5


TINY = {
    "data.num_train": 200,
    "batch_size": 50,
    "epochs": EPOCHS,
    "schedule": "constant",
    "warmup": 0.0,
    "learning_rate": 1e-3,
    "eval.every": 2,
    "eval.num_samples": 8,
    "eval.num_points": 12,
    "eval.batch_size": 4,
    "eval.chunk_size": 4,
    "checkpoint.every": 1,
    "checkpoint.keep": 100,
}


def tiny(**changes: object) -> ConfigDict:
    return small(**{**TINY, **changes})


def outcome(workdir: Path) -> dict[str, object]:
    """Every number that a run ends with: what has to be the same."""
    steps = Checkpoints(workdir).steps()
    record = Checkpoints(workdir).verify(steps[-1]).record
    found: dict[str, object] = {
        "step": steps[-1],
        "leaves": record["leaves"],
        "metrics": (workdir / "metrics.jsonl").read_text(),
    }
    if (workdir / "results.json").exists():
        found["results"] = read_json(workdir / "results.json")
        del found["results"]["timings"]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache) -> Path:
    """A run that was never interrupted, with a checkpoint of every epoch."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(tiny(), workdir)
    return workdir


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "moved")


def forget(workdir: Path, after: int) -> None:
    """Deletes the checkpoints after a step, and the results."""
    for step in Checkpoints(workdir).steps():
        if step > after:
            shutil.rmtree(workdir / "checkpoints" / str(step))
            (workdir / "checkpoints" / f"{step}.sha256").unlink()
    (workdir / "results.json").unlink(missing_ok=True)


def built(config: ConfigDict):
    dataset = data.load("mnist", num_valid=100, num_train=200, num_test=50)
    return build(config, dataset)


@pytest.mark.default_flags
def test_every_saved_step_replays_to_the_same_bits(finished, tmp_path, cache):
    config, expected = tiny(), outcome(finished)
    del expected["results"]
    program = built(config)
    for step in Checkpoints(finished).steps()[:-1]:
        workdir = shutil.copytree(finished, tmp_path / str(step))
        forget(workdir, step)
        with (workdir / "metrics.jsonl").open("a") as file:
            file.write('{"step": 9')
        training.train(config, program, workdir, StopRequest())
        assert outcome(workdir) == expected


def test_a_finished_run_shows_its_result_again(copy, monkeypatch):
    expected = outcome(copy)
    before = read_json(copy / "results.json")["timings"]
    done = {path: path.stat().st_mtime_ns for path in (copy / "checkpoints").iterdir()}

    def put(*_: object) -> None:
        raise AssertionError("a finished part is computed again")

    monkeypatch.setattr(Parts, "put_all", put)
    result = mnist.run(tiny(), copy)
    assert outcome(copy) == expected
    assert read_json(copy / "results.json")["timings"] == before
    assert result.likelihood is not None
    for path, changed in done.items():
        assert path.stat().st_mtime_ns == changed


def test_damaged_checkpoints_fall_back_and_the_bits_are_the_same(copy, capsys):
    expected = outcome(copy)
    steps = Checkpoints(copy).steps()
    for step in steps[-2:]:
        target = next((copy / "checkpoints" / str(step)).rglob("manifest.ocdbt"))
        target.write_bytes(target.read_bytes()[:-1])
    # What must not be looked at any more: the parts are of these very parameters.
    (copy / "evaluation" / "log_likelihood.jsonl").write_text("{")
    mnist.run(tiny(), copy)
    assert outcome(copy) == expected
    err = capsys.readouterr().err
    for step in steps[-2:]:
        assert f"checkpoint {step} is damaged: back to step {steps[-3]}" in err


def test_with_no_usable_checkpoint_nothing_is_touched(copy):
    for path in (copy / "checkpoints").glob("*.sha256"):
        path.write_text("")
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.name != "lock"}
    with pytest.raises(CheckpointError):
        training.train(tiny(), built(tiny()), copy, StopRequest())
    after = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.name != "lock"}
    assert before == after
    assert verify.verify(copy)[1] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(
    number, finished, tmp_path, monkeypatch, cache, capsys
):
    expected = outcome(finished)
    # Far apart, so that what is saved is saved for the signal.
    config = tiny(**{"checkpoint.every": 100})

    def interrupt(config, program, scalars, speed):
        print_epoch(config, program, scalars, speed)
        if scalars["epoch"] == 2:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    monkeypatch.setattr(training, "print_epoch", interrupt)
    with pytest.raises(StoppedError):
        mnist.run(config, tmp_path / "run")
    assert number.name in capsys.readouterr().err
    # Two epochs, and, the signal having come after the second was written, no more.
    assert Checkpoints(tmp_path / "run").steps()[-1] <= 3 * 4
    assert signal.getsignal(number) is not None

    monkeypatch.setattr(training, "print_epoch", print_epoch)

    def interrupt_evaluation(progress):
        if progress.done == 4:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    monkeypatch.setattr(runner, "print_points", interrupt_evaluation)
    with pytest.raises(StoppedError):
        mnist.run(config, tmp_path / "run")
    monkeypatch.setattr(runner, "print_points", print_points)
    kept = tmp_path / "run" / "evaluation" / "log_likelihood.jsonl"
    first = kept.read_text()
    mnist.run(config, tmp_path / "run")
    assert kept.read_text().startswith(first)
    assert outcome(tmp_path / "run") == expected


def _child(workdir: str, cache: str) -> None:
    """A run in a process of its own, to be killed."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_num_cpu_devices", 8)  # part of a compiled program's name
    mnist.run(tiny(), Path(workdir))


def test_kill_9_at_random_moments(finished, tmp_path, cache):
    generator = random.Random(0)
    processes = multiprocessing.get_context("spawn")
    workdir = tmp_path / "run"
    metrics = workdir / "metrics.jsonl"
    for kill in range(2):
        process = processes.Process(target=_child, args=(str(workdir), cache))
        process.start()
        while process.is_alive() and not (
            metrics.exists() and metrics.read_text().count("\n") > kill
        ):
            time.sleep(0.002)
        time.sleep(0.03 * generator.random())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    # The lock went with the process.
    mnist.run(tiny(), workdir)
    assert outcome(workdir) == outcome(finished)


def _poisoned(what: str, config: ConfigDict):
    """A program in which something is not finite from step 7 on (epoch 2)."""
    program = built(config)

    def transform(key, x):
        # The keys of step 7, and so the batch of it.
        del key
        return jnp.where(x[0] == 255, jnp.nan, program.transform(jax.random.key(0), x))

    def algorithm(hyperparameters, axis_name=None):
        sound = program.algorithm(hyperparameters, axis_name=axis_name)

        def update(key, state, batch, *, indices=None):
            state, info = sound.update(key, state, batch, indices=indices)
            bad = jnp.where(state.step == 7, jnp.nan, 0.0)
            params = jax.tree.map(lambda leaf: leaf, state.params)
            if what == "step size":
                params = jax.tree.map(lambda leaf: leaf + bad, params)
            else:
                layer = params["decoder"]["logits"]
                layer["kernel"] = layer["kernel"] + bad
            return state._replace(params=params), info

        return sound._replace(update=update)

    if what != "batch":
        return program._replace(algorithm=algorithm)
    train = np.array(program.train)
    train[5, 0] = 255  # it comes in every epoch
    return program._replace(train=train, transform=transform)


@pytest.mark.parametrize("what", ["params", "batch", "step size"])
def test_divergence_stops_and_names_step_and_leaf(what, tmp_path, cache):
    config = tiny()
    sound = tiny(epochs=1)
    if what == "batch":
        first, at = 0, r"epoch 1: after step [1-4], "
    else:
        first, at = 1, r"epoch 2: after step 7, "
        training.train(sound, built(sound), tmp_path, StopRequest())
    with pytest.raises(DivergenceError, match=at) as error:
        training.train(config, _poisoned(what, config), tmp_path, StopRequest())
    assert "params['" in str(error.value)
    if what == "params":
        assert "params['decoder']['logits']['kernel'] is not" in str(error.value)
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert lines.count("\n") == first
    assert "NaN" not in lines
    assert Checkpoints(tmp_path).steps() == [4] * first
    if first:
        assert "the checkpoint of step 4 is finite" in str(error.value)
        leaves = Checkpoints(tmp_path).verify(4).state
        assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_a_field_that_is_newer_than_the_run_had_its_default(copy):
    stored = read_json(copy / "config.json")
    del stored["beta"]
    write_json(copy / "config.json", stored)
    assert load_run(copy).config.beta == 1
    mnist.run(tiny(), copy)
    write_json(copy / "config.json", stored)
    with pytest.raises(WorkdirError, match=r"config.beta: 1.0 -> 2.0"):
        mnist.run(tiny(beta=2.0), copy)


def test_another_run_is_refused_with_the_list_of_what_differs(copy):
    with pytest.raises(WorkdirError) as error:
        mnist.run(tiny(latent_dim=3, seed=1), copy)
    assert "(config.latent_dim: 2 -> 3; config.seed: 0 -> 1)" in str(error.value)
    manifest = read_json(copy / "run.json")
    manifest["packages"]["jax"] = "0.9.0"
    manifest["data_sha256"] = "0" * 64
    write_json(copy / "run.json", manifest)
    with pytest.raises(WorkdirError, match=r"packages.jax: 0.9.0 -> 0"):
        mnist.run(tiny(), copy)
    manifest["packages"]["jax"] = jax.__version__
    write_json(copy / "run.json", manifest)
    with pytest.raises(WorkdirError, match=r"data_sha256: 0000"):
        mnist.run(tiny(), copy)
    with pytest.raises(WorkdirError, match="was trained on 0000"):
        load_run(copy)
    (copy / "run.json").unlink()
    with pytest.raises(WorkdirError, match=r"no config.json or no run.json"):
        mnist.run(tiny(), copy)


def test_a_run_may_grow_and_not_shrink(copy, tmp_path, capsys, cache):
    with pytest.raises(WorkdirError, match=r"5 epochs, and 4 are asked for"):
        mnist.run(tiny(epochs=4), copy)
    before = (copy / "metrics.jsonl").read_text()
    mnist.run(tiny(epochs=6, **{"eval.num_points": 4}), copy)
    assert "warning" not in capsys.readouterr().err
    assert (copy / "metrics.jsonl").read_text().startswith(before)
    assert Checkpoints(copy).steps()[-1] == 6 * 4
    assert read_json(copy / "run.json")["grown_from"] == [5]
    assert verify.verify(copy)[1] == 0
    # The parameters are those of a run that was longer from the start.
    config = tiny(epochs=6)
    training.train(config, built(config), tmp_path, StopRequest())
    assert outcome(tmp_path)["leaves"] == outcome(copy)["leaves"]


def test_the_fields_of_checkpoint_decide_what_is_kept(tmp_path, cache):
    # Epochs 2 and 3, of which the last is kept; nothing is the best on the test set.
    changes = {"checkpoint.every": 2, "checkpoint.keep": 1, "eval.curve": "test"}
    config = tiny(epochs=3, **changes)
    training.train(config, built(config), tmp_path, StopRequest())
    assert Checkpoints(tmp_path).steps() == [12]
    lines = [{"step": 8, "epoch": 2, "valid/bound": -9.0}, {"step": 12, "epoch": 3}]
    assert training.best_step(config, lines, 10) == 8
    assert training.best_step(config, lines[1:], 10) is None


def test_the_checkpoints_of_chosen_epochs_are_kept(tmp_path, cache):
    changes = {"checkpoint.every": 10, "checkpoint.keep": 1, "eval.curve": "test"}
    config = tiny(epochs=4, **changes, **{"checkpoint.at": (1, 3)})
    training.train(config, built(config), tmp_path, StopRequest())
    assert Checkpoints(tmp_path).steps() == [4, 12, 16]


def test_monte_carlo_em_goes_on_to_the_same_bits(tmp_path, cache):
    """Its chains are in the checkpoint, and it has neither an encoder nor a bound."""
    changes = {"algorithm": "mcem", "checkpoint.every": 1, "checkpoint.keep": 9}
    config = tiny(**changes)
    whole = tmp_path / "whole"
    whole.mkdir()
    training.train(config, built(config), whole, StopRequest())
    half = shutil.copytree(whole, tmp_path / "half")
    forget(half, 4)
    result = training.train(config, built(config), half, StopRequest())
    assert result.num_trained == config.epochs - 1
    like = jax.eval_shape(functools.partial(training.start, config, built(config)))
    one, other = (Checkpoints(folder).read(like).state for folder in (whole, half))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert np.any(one.opt_state.chains != 0)
    assert "encoder" not in one.params
    assert not any("bound" in name for line in result.lines for name in line)


def test_growth_under_a_schedule_is_told():
    program = built(tiny(epochs=6, schedule="cosine"))
    workdir = Path("unused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", lambda _: True)
        patch.setattr(runner, "read_json", lambda _: {"num_epochs": 5})
        grown, warnings = runner._lengths(
            tiny(epochs=6, schedule="cosine"), workdir, program
        )
    assert grown == [5]
    assert "grows from 5 to 6 epochs" in warnings[0]


def test_a_run_is_opened_from_where_it_was_moved(copy, finished):
    opened = load_run(copy)
    assert opened.step == EPOCHS * 4
    assert opened.config.to_dict() == tiny().to_dict()
    lines = [json.loads(x) for x in (copy / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["valid/bound"] for line in lines if "valid/kl" in line}
    best = load_run(copy, step="best")
    assert best.step == max(scores, key=lambda step: scores[step])
    assert load_run(copy, step=8).step == 8
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 9"):
        load_run(copy, step=9)
    with pytest.raises(WorkdirError, match="none holds no run"):
        load_run(copy / "none")
    # It opens what is still being written, and leaves no trace.
    assert outcome(copy) == outcome(finished)


def test_verify_says_what_is_there(copy, capsys):
    assert verify.main([f"--workdir={copy}"]) == 0
    out = capsys.readouterr().out
    assert "DAMAGED" not in out
    assert "metrics.jsonl: 5 lines, no gap" in out

    def damaged(what: str) -> None:
        assert verify.main([f"--workdir={copy}"]) == 1
        out = capsys.readouterr().out
        assert [line for line in out.splitlines() if "DAMAGED" in line] != []
        assert f"DAMAGED  {what}" in out

    path = copy / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:1], *lines[2:]]))
    damaged("metrics.jsonl: line 2 is not that of epoch 2")
    path.write_text("".join(lines).replace("1", "2", 20))
    damaged("metrics.jsonl")
    path.write_text("".join(lines))
    for name in ("config.json", "results.json", "checkpoints/20/_CHECKPOINT_METADATA"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-5])
        damaged("checkpoint 20" if "/" in name else name)
        (copy / name).write_bytes(content)
    assert verify.main([f"--workdir={copy}"]) == 0
