"""Tasks in processes of their own: order, errors, a stop, and deaths."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.errors import DivergenceError, ExperimentError, StoppedError
from experiments.processes.interruption import StopRequest
from experiments.processes.workers import Task, cores, run_tasks


def _write(name: str, stop: StopRequest, *, folder: Path) -> None:
    """What a task does: begins, says on which cores it is, ends."""
    (folder / f"{name}.begun").write_text(f"{time.monotonic()}")
    print(f"{name} in hand")
    time.sleep(0.3)
    (folder / f"{name}.ended").write_text(f"{time.monotonic()} {cores()}")


def _fail(name: str, stop: StopRequest, *, folder: Path) -> None:
    if name == "bad":
        _wait_for(folder / "long.begun")
        raise DivergenceError("it is not finite")
    if name == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{name}.begun").touch()
    while not stop.requested:
        time.sleep(0.01)
    (folder / f"{name}.saved").touch()
    raise StoppedError


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _times(folder: Path, name: str) -> tuple[float, float]:
    begun = (folder / f"{name}.begun").read_text()
    return float(begun), float((folder / f"{name}.ended").read_text().split()[0])


def test_all_are_done_on_shares_of_the_cores(tmp_path, capfd):
    tasks = [Task(name, name) for name in "abc"]
    run = partial(_write, folder=tmp_path)
    done = list(run_tasks(run, tasks, num_workers=2, stop=StopRequest()))
    assert {task.name for task in done} == set("abc")
    used = {(tmp_path / f"{name}.ended").read_text().split(" ", 1)[1] for name in "abc"}
    shares = [cores()[0::2], cores()[1::2] or cores()]
    assert used == {str(share) for share in shares}
    assert "b: b in hand\n" in capfd.readouterr().out


def test_what_one_makes_the_other_waits_for(tmp_path):
    shared = frozenset({"trial"})
    tasks = [
        Task("first", "first", shared),
        Task("second", "second", shared),
        Task("other", "other"),
        Task("third", "third", shared),
    ]
    run = partial(_write, folder=tmp_path)
    for _ in run_tasks(run, tasks, num_workers=3, stop=StopRequest()):
        pass
    times = {task.name: _times(tmp_path, task.name) for task in tasks}
    assert times["other"][0] < times["second"][0]
    # Made by the first; then there is nothing to wait for.
    assert times["second"][0] > times["first"][1]
    assert times["third"][0] < times["second"][1]


def test_an_error_stops_the_others_and_is_raised(tmp_path):
    tasks = [Task("long", "long"), Task("bad", "bad"), Task("never", "never")]
    run = partial(_fail, folder=tmp_path)
    with pytest.raises(DivergenceError, match="it is not finite"):
        list(run_tasks(run, tasks, num_workers=2, stop=StopRequest()))
    assert (tmp_path / "long.saved").exists()
    assert not (tmp_path / "never.begun").exists()


def test_a_worker_that_dies_is_told_of(tmp_path):
    run = partial(_fail, folder=tmp_path)
    with pytest.raises(ExperimentError, match="process of dead died"):
        list(run_tasks(run, [Task("dead", "dead")], num_workers=2, stop=StopRequest()))


def test_a_request_to_stop_lets_all_save(tmp_path):
    stop = StopRequest()
    tasks = [Task(name, name) for name in ("long", "longer", "never")]
    running = run_tasks(
        partial(_fail, folder=tmp_path), tasks, num_workers=2, stop=stop
    )
    stop.requested = True
    with pytest.raises(StoppedError):
        list(running)
    assert not (tmp_path / "never.begun").exists()


def _parent(folder: Path) -> None:
    tasks = [Task(name, name) for name in ("long", "longer")]
    with StopRequest() as stop:
        try:
            list(
                run_tasks(
                    partial(_fail, folder=folder), tasks, num_workers=2, stop=stop
                )
            )
        except StoppedError:
            (folder / "stopped").touch()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_to_the_first_process(tmp_path, number):
    """SIGTERM lets the workers save; with kill -9 they die too, and write no more."""
    process = multiprocessing.get_context("spawn").Process(
        target=_parent, args=(tmp_path,)
    )
    process.start()
    _wait_for(tmp_path / "long.begun")
    _wait_for(tmp_path / "longer.begun")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [int(word) for word in children.read_text().split()]
    assert len(workers) >= 2
    os.kill(process.pid, number)
    process.join(60)
    saved = number == signal.SIGTERM
    assert (tmp_path / "stopped").exists() == saved
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/stat").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (tmp_path / "long.saved").exists() == saved
    assert (tmp_path / "longer.saved").exists() == saved
