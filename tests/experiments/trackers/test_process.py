"""A run with a tracker is the run without it, whatever the tracker does."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest
from configurations import small
from ml_collections import ConfigDict
from tracked import lines, write_run

from experiments import cli, mnist, single, sweep
from experiments.errors import DONE, LOST, STOPPED, USAGE, ConfigError, StoppedError
from experiments.processes.interruption import StopRequest
from experiments.reports.numbers import numbers_of
from experiments.storage.atomic import read_json, write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.workdir import held
from experiments.sweeps.runner import Sweep
from experiments.trackers import process, sinks
from experiments.trackers.process import copied, read_flag
from experiments.training import loop, runner
from experiments.training.progress import print_epoch
from experiments.training.result import Result
from experiments.verify import verify

pytestmark = [
    # optax.adam raises a float to an integer power.
    pytest.mark.usefixtures("standard_promotion"),
    # ml_collections' config files.
    pytest.mark.filterwarnings("ignore:the load_module"),
]

BY_HAND = [sys.executable, "-P", "-m", "experiments.trackers", "--tracker=wandb"]
ROOT = Path(__file__).resolve().parents[3]


def tiny() -> ConfigDict:
    """Five epochs of four steps, as in `test_resume`: compiled once for both."""
    return small(
        **{
            "data.num_train": 200,
            "batch_size": 50,
            "epochs": 5,
            "schedule": "constant",
            "warmup": 0.0,
            "learning_rate": 1e-3,
            "eval.every": 2,
            "eval.num_samples": 8,
            "eval.num_points": 12,
            "eval.batch_size": 4,
            "eval.chunk_size": 4,
            "checkpoint.every": 2,
            "checkpoint.keep": 100,
        }
    )


def outcome(workdir: Path) -> dict[str, Any]:
    """All that a run ends with, but for how long it took."""
    step = Checkpoints(workdir).steps()[-1]
    results = read_json(workdir / "results.json")
    del results["timings"]
    return {
        "step": step,
        "leaves": Checkpoints(workdir).verify(step).record["leaves"],
        "metrics": (workdir / "metrics.jsonl").read_text(),
        "config": (workdir / "config.json").read_text(),
        "results": results,
    }


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"}


def by_hand(workdir: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*BY_HAND, f"--workdir={workdir}"],
        env=environment(),
        capture_output=True,
        text=True,
    )


def write_numbers(result: Result, workdir: Path) -> None:
    """In place of a report, whose pictures are most of a small run's time."""
    write_json(workdir / "results.json", numbers_of(result))


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    monkeypatch.setattr(single, "write_run_report", write_numbers)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache) -> Path:
    """A run without a tracker."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "write_run_report", write_numbers)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            mnist.run(tiny(), workdir)
    return workdir


@pytest.fixture
def copy(tmp_path) -> Path:
    """The files of a finished run."""
    return write_run(tmp_path / "run", 5)


def test_the_bits_are_the_same_and_the_tracker_has_all_of_it(
    finished, fake, tmp_path, capfd
):
    workdir = tmp_path / "run"
    mnist.run(tiny(), workdir, tracker="wandb")
    assert outcome(workdir) == outcome(finished)
    out, err = capfd.readouterr()
    [[_, token, settings]] = fake.calls("init")
    assert out.count(f"tracker wandb: https://wandb.test/runs/{token}\n") == 1
    assert err == ""
    assert settings["name"] == "run"
    assert settings["loaded"] == []
    [[_, _, described]] = fake.calls("config")
    assert described.pop("run") == read_json(workdir / "run.json")
    assert described == read_json(workdir / "config.json")
    assert fake.rows() == lines(workdir)
    assert fake.figures() == sorted(p.name for p in (workdir / "figures").iterdir())
    [[_, _, summary]] = fake.calls("summary")
    found = read_json(workdir / "results.json")
    assert summary["results/test_bound"] == found["test_bound"]
    sampled = found["importance_sampling"]["log_likelihood"]
    assert summary["results/importance_sampling/log_likelihood"] == sampled
    assert fake.codes() == [DONE]
    assert verify(workdir)[1] == DONE


@pytest.mark.usefixtures("no_pictures")
def test_a_stopped_run_goes_on_as_the_same_run(finished, fake, tmp_path, stop_after):
    workdir = tmp_path / "run"

    def stop() -> None:
        with held(workdir), copied("wandb", workdir):
            runner.run(tiny(), workdir, stop_after(2))

    with pytest.raises(StoppedError):
        stop()
    assert [row["epoch"] for row in fake.rows()] == [1, 2]
    assert fake.codes() == [STOPPED]
    mnist.run(tiny(), workdir)  # without one
    assert fake.codes() == [STOPPED]
    mnist.run(tiny(), workdir, tracker="wandb")
    assert outcome(workdir) == outcome(finished)
    assert fake.rows() == lines(workdir)
    assert len(fake.ids()) == 1
    assert fake.codes() == [STOPPED, DONE]
    assert len(fake.calls("config")) == 1

    # The finished run is shown again, and the tracker is not asked.
    before = fake.calls()
    mnist.run(tiny(), workdir, tracker="wandb")
    assert fake.calls() == before


def _child(workdir: str, cache: str) -> None:
    """A run that gets no further than the third epoch, to be killed there."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_num_cpu_devices", 8)  # part of a compiled program's name

    def wait(config, program, scalars, speed):
        print_epoch(config, program, scalars, speed)
        if scalars["epoch"] == 3:
            time.sleep(1000)

    loop.print_epoch = wait
    mnist.run(tiny(), workdir, tracker="wandb")


@pytest.mark.usefixtures("no_pictures")
def test_kill_9_leaves_no_gap_and_no_line_twice(finished, fake, tmp_path, cache):
    """After the checkpoint of epoch 2 and the line of epoch 3, which comes again."""
    workdir = tmp_path / "run"
    run = multiprocessing.get_context("spawn").Process(
        target=_child, args=(str(workdir), cache)
    )
    run.start()
    while run.is_alive() and len(fake.rows()) < 3:
        time.sleep(0.05)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    # At once: the process that followed the killed one may be at its end still.
    mnist.run(tiny(), workdir, tracker="wandb")
    assert outcome(workdir) == outcome(finished)
    assert fake.rows() == lines(workdir)
    assert len(fake.ids()) == 1
    assert fake.codes() == [LOST, DONE]


@pytest.mark.parametrize("call", ["init", "config", "log", "summary", "finish"])
def test_a_failure_is_one_warning_and_the_rest_can_be_sent(
    call, fake, copy, monkeypatch, capfd
):
    monkeypatch.setenv("FAKE_WANDB_DOES", f"fail {call}")
    with copied("wandb", copy):
        pass
    command = f"`python -m experiments.trackers --tracker=wandb --workdir={copy}`"
    assert capfd.readouterr().err == (
        "warning: tracker wandb: RuntimeError: no route to host; the run goes on, this "
        f"is tried again, and {command} sends what is missing then\n"
    )
    failed = by_hand(copy)
    assert failed.returncode == USAGE
    assert failed.stderr.startswith("error: wandb failed (RuntimeError: no route to h")
    monkeypatch.delenv("FAKE_WANDB_DOES")
    sent = by_hand(copy)
    assert (sent.returncode, sent.stderr) == (DONE, "")
    assert sent.stdout.endswith(f"wandb has all of {copy}\n")
    assert fake.rows() == lines(copy)
    assert len(fake.ids()) == 1
    assert fake.codes() == [DONE]
    assert len(fake.calls("summary")) == (3 if call == "finish" else 1)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_whose_tracker_fails_is_the_run(
    finished, fake, tmp_path, monkeypatch, capfd
):
    """It fails once: the rest is sent at the end."""
    monkeypatch.setenv("FAKE_WANDB_DOES", "fail log 1")
    mnist.run(tiny(), tmp_path / "run", tracker="wandb")
    assert outcome(tmp_path / "run") == outcome(finished)
    err = capfd.readouterr().err
    assert err.count("warning: tracker wandb: ") == err.count("\n") == 1
    assert fake.rows() == lines(tmp_path / "run")
    assert fake.codes() == [DONE]


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_hangs_is_left(call, fake, copy, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_WANDB_DOES", f"hang {call}")
    monkeypatch.setattr(process, "_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(process, "_LEFT_SECONDS", 0.5)
    with copied("wandb", copy):
        pass
    err = capfd.readouterr().err
    assert err.startswith(
        "warning: tracker wandb: it is left alone, as it did not end "
    )
    assert err.count("\n") == 1
    monkeypatch.delenv("FAKE_WANDB_DOES")
    monkeypatch.setattr(process, "_WAIT_SECONDS", 60.0)
    with copied("wandb", copy):
        pass
    assert capfd.readouterr().err == ""
    assert fake.rows() == lines(copy)
    assert fake.codes() == [DONE]


def test_a_stopped_run_does_not_wait_for_long(fake, copy, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_WANDB_DOES", "hang init")
    monkeypatch.setattr(process, "_WAIT_WHEN_STOPPED_SECONDS", 0.5)
    monkeypatch.setattr(process, "_LEFT_SECONDS", 0.5)
    with pytest.raises(StoppedError), copied("wandb", copy):
        raise StoppedError
    assert "as it did not end in 0.5 s" in capfd.readouterr().err


def test_who_reads_what_a_run_prints_does_not_wait_for_a_tracker(
    fake, copy, monkeypatch
):
    monkeypatch.setenv("FAKE_WANDB_DOES", "hang init")
    follower = subprocess.Popen(
        [*BY_HAND, "--follow", f"--workdir={copy}"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    follower.stdin.write(b"0 0.1 60")
    follower.stdin.close()
    assert follower.stdout.read() == b""
    assert follower.poll() is None
    follower.kill()
    follower.wait()
    follower.stdout.close()


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("die log", "its process ended with 9"),
        ("no python", "its process cannot be started (No such file or directory)"),
    ],
)
def test_a_process_that_dies_is_told(does, message, fake, copy, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_WANDB_DOES", does)
    if does == "no python":
        monkeypatch.setattr(sys, "executable", "/no/python")
    with copied("wandb", copy):
        pass
    assert capfd.readouterr().err == (
        f"warning: tracker wandb: {message}; nothing of the run is lost, and `python "
        f"-m experiments.trackers --tracker=wandb --workdir={copy}` sends what is "
        "missing\n"
    )


def test_a_library_that_cannot_be_imported_is_a_warning(fake, copy, capfd):
    (fake.folder / "wandb" / "__init__.py").write_text("import no_such_module")
    with copied("wandb", copy):
        pass
    err = capfd.readouterr().err
    assert err.startswith("warning: tracker wandb: ModuleNotFoundError: No module nam")
    assert err.count("\n") == 1


def test_what_the_library_prints_is_in_a_file(fake, copy, capfd):
    with (fake.folder / "wandb" / "__init__.py").open("a") as file:
        file.write("print('hello'); os.system('echo and hello')\n")
    with copied("wandb", copy):
        pass
    assert "hello" not in "".join(capfd.readouterr())
    assert "hello" in (copy / "tracker" / "wandb.log").read_text()


def test_only_the_process_that_writes_has_a_tracker(fake, copy, monkeypatch):
    monkeypatch.setattr(process, "is_writer", lambda: False)
    with copied("wandb", copy):
        pass
    assert not (copy / "tracker").exists()


def test_a_sweep_is_followed_too(fake, tmp_path, monkeypatch):
    """What of it is copied, `test_sweep` shows of a real one."""
    names = ["seed=0", "seed=1"]

    def train(asked: Sweep, workdir: Path, stop: StopRequest) -> list[dict[str, Any]]:
        write_json(workdir / "sweep.json", {"runs": dict.fromkeys(names)})
        row = {"status": "done", "test_bound": -3.0}
        parts = [json.dumps({"name": name, "value": row}) for name in names]
        for name in names:
            write_run(workdir / "runs" / name, 2)
        (workdir / "rows.jsonl").write_text("\n".join(parts))
        return [row, row]

    monkeypatch.setattr(sweep, "train", train)
    monkeypatch.setattr(sweep, "write_sweep_report", lambda *_: None)
    workdir = tmp_path / "grid"
    arguments = ["sweep", "--sweep.seed=0:2", f"--workdir={workdir}"]
    assert sweep.main([*arguments, "--tracker=wandb"]) == DONE
    assert [call[2]["name"] for call in fake.calls("init")] == names
    assert {call[2]["group"] for call in fake.calls("init")} == {"grid"}
    assert fake.rows() == 2 * lines(workdir / "runs" / "seed=0")
    assert fake.codes() == [DONE, DONE]


# ---- the flag ----


def test_the_flag_is_taken_from_the_others(fake):
    argv = ["mnist", "--config.seed=1", "--tracker=wandb", "--workdir=run"]
    assert read_flag(argv) == ("wandb", ["mnist", "--config.seed=1", "--workdir=run"])
    assert read_flag(["sweep", "--tracker", "wandb"]) == ("wandb", ["sweep"])
    assert read_flag(argv[:2]) == ("", argv[:2])


def test_an_unknown_tracker_is_refused():
    with pytest.raises(ConfigError, match="--tracker=wandbb: expected wandb or mlflow"):
        read_flag(["mnist", "--tracker=wandbb"])


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_missing_library_is_refused_before_training(
    is_folder, tmp_path, monkeypatch, capsys
):
    """Also where the library has left a folder of its name in the working directory."""
    monkeypatch.setitem(sinks.TRACKERS, "no_such_library", "weights_and_biases")
    monkeypatch.syspath_prepend(str(tmp_path))
    if is_folder:
        (tmp_path / "no_such_library").mkdir()
    monkeypatch.setattr(sys, "argv", ["mnist", "--tracker=no_such_library"])

    def run(*_: object) -> None:
        raise AssertionError("it began to train")

    with pytest.raises(SystemExit) as stopped:
        cli.main(run, config_file="smoke.py", usage="")
    assert stopped.value.code == USAGE
    assert capsys.readouterr().err == (
        "error: --tracker=no_such_library: the library is not installed; install it by "
        "pip install -e '.[no_such_library]', or leave the flag out\n"
    )


def test_the_command_by_hand_refuses_what_is_no_run(fake, tmp_path):
    refused = by_hand(tmp_path)
    assert refused.returncode == USAGE
    assert refused.stderr == f"error: {tmp_path} holds neither a run nor a sweep\n"
    with held(tmp_path):
        assert "is in use by process" in by_hand(tmp_path).stderr
