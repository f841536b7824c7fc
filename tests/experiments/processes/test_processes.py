"""Two processes of four devices each, joined by gloo, on this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from configurations import flags

from experiments.errors import LOST, ConfigError
from experiments.processes import distributed

ROOT = Path(__file__).resolve().parents[3]
SMALL = flags(**{"checkpoint.every": 1})
SWEEP = ["--sweep.learning_rate=1e-3,3e-3", "--sweep.seed=0:3", "--lanes=3"]


def start(module: str, *arguments: str, processes: int, devices: int) -> list:
    """The processes of a job, each with its output to be read."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONUNBUFFERED": "1",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *arguments]
    job = []
    for i in range(processes):
        own = [
            f"--coordinator=localhost:{port}",
            f"--num_processes={processes}",
            f"--process_id={i}",
        ]
        job.append(
            subprocess.Popen(
                command + own * (processes > 1),
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return job


def finish(job: list, seconds: float = 120) -> tuple[list[int], list[str]]:
    """Exit codes and outputs; whoever is late is killed."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in job]
    finally:
        for process in job:
            process.kill()
    return [process.returncode for process in job], outputs


def wait_for(process: subprocess.Popen, pattern: str) -> None:
    for line in process.stdout:
        if re.search(pattern, line):
            return
    pytest.fail(f"it ended before it printed {pattern!r}")


def table(workdir: Path) -> list[dict]:
    lines = (workdir / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("cache")
def test_a_sweep_survives_the_death_of_a_process(tmp_path, assert_same_table):
    """Its partner leaves in seconds; again, they end with the table of one device."""
    arguments = [*SMALL, *SWEEP, "--config.epochs=8"]
    place = f"--workdir={tmp_path / 'two'}"
    job = start("experiments.sweep", *arguments, place, processes=2, devices=4)
    wait_for(job[0], r"epoch 3/8")
    job[1].send_signal(signal.SIGKILL)
    codes, outputs = finish(job)
    assert codes == [LOST, -signal.SIGKILL]
    assert "process 1 of this job was lost: start all processes again" in outputs[0]
    assert not (tmp_path / "two" / "results.jsonl").exists()

    one = start(
        "experiments.sweep",
        *arguments,
        f"--workdir={tmp_path / 'one'}",
        processes=1,
        devices=1,
    )
    assert finish(one)[0] == [0]
    job = start("experiments.sweep", *arguments, place, processes=2, devices=4)
    codes, outputs = finish(job)
    assert codes == [0, 0], outputs
    assert_same_table(table(tmp_path / "two"), table(tmp_path / "one"))
    assert "Settings by valid bound" in outputs[0]
    assert "Settings" not in outputs[1]


@pytest.mark.usefixtures("cache")
def test_one_run_over_two_processes_survives_too(tmp_path):
    """Process 0 dies, with the workdir; the run goes on on one process of two."""
    arguments = [*SMALL, "--config.epochs=8", f"--workdir={tmp_path / 'run'}"]
    job = start("experiments.mnist", *arguments, processes=2, devices=4)
    wait_for(job[0], r"epoch 3/8")
    job[0].send_signal(signal.SIGKILL)
    codes, outputs = finish(job)
    assert codes == [-signal.SIGKILL, LOST], outputs
    assert "process 0 of this job was lost" in outputs[1]

    again = start(
        "experiments.mnist", *arguments, "--devices=2", processes=1, devices=2
    )
    codes, outputs = finish(again)
    assert codes == [0], outputs
    assert "continues from step" in outputs[0]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))


@pytest.mark.usefixtures("cache")
def test_an_error_of_one_process_stops_the_job_with_its_message(tmp_path):
    workdir = tmp_path / "no" / "such"
    job = start(
        "experiments.mnist", *SMALL, f"--workdir={workdir}", processes=2, devices=1
    )
    codes, outputs = finish(job)
    assert codes == [1, LOST]
    assert "is not a directory" in outputs[0]
    assert "process 0 of this job has stopped with exit code 1" in outputs[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--process_id=1"], "together"),
        (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "from 0 to 1"),
        (["--coordinator=h", "--num_processes=2", "--process_id=1"], "HOST:PORT"),
        (["--distributed", "--process_id=1"], "one or the other"),
        (["--devices=-1"], "0 \\(all\\) or more"),
        (["--devices=two"], "two"),
    ],
)
def test_wrong_flags_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        distributed.read_flags(["mnist", *arguments])


def test_no_flags_are_no_job():
    assert distributed.read_flags(["mnist", "--x=1"]) == (None, 0, ["mnist", "--x=1"])
