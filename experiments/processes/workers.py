"""Tasks side by side, each in a process with its share of this machine's cores.

A step on a small model does not keep two cores busy; two steps do. JAX in one process
shares its threads among all programs, so each worker is a process, pinned to its cores
before JAX counts them.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from experiments.errors import ExperimentError, StoppedError
from experiments.processes.interruption import StopRequest

__all__ = ["Task", "cores", "run_tasks"]


class Task(NamedTuple):
    """What a worker is given.

    Attributes:
      name: shown before each line that it prints.
      argument: of the function; it is pickled.
      makes: what tasks share, and the first of them makes. No two tasks run at once
        that lack the same thing.
    """

    name: str
    argument: Any
    makes: frozenset[Any] = frozenset()


class _Worker(NamedTuple):
    process: Any
    connection: Connection


def cores() -> list[int]:
    """The cores that this process may use.

    >>> len(cores()) >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_tasks(
    function: Callable[[Any, StopRequest], None],
    tasks: Sequence[Task],
    *,
    num_workers: int,
    stop: StopRequest,
    setup: Callable[[], None] | None = None,
) -> Generator[Task]:
    """Calls `function(task.argument, stop)` of every task, and yields those done.

    Tasks start in their order, but for those that wait for what another one makes.
    A worker dies with the process that called this.

    Args:
      function: at the top level of a module. Its `stop` is requested when the one below
        is, or another task fails; it is to save, and to raise `StoppedError`.
      tasks: what it is called with.
      num_workers: processes; each has its share of the cores.
      stop: asked a few times a second.
      setup: called first in each process, such as for settings of JAX.

    Raises:
      StoppedError: a stop was requested.
      ExperimentError: the first that a task raised, after the others have stopped; or
        a worker died.
    """
    context = multiprocessing.get_context("spawn")
    told = context.Event()
    waiting, running = list(tasks), dict[Connection, Task]()
    made: set[Any] = set()
    errors: list[ExperimentError] = []
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(_started(context, function, share, told, setup))
            for share in _shares(cores(), min(num_workers, len(tasks)))
        ]
        workers = {worker.connection: worker for worker in idle}
        stack.callback(told.set)  # runs before the workers are waited for
        while waiting or running:
            if stop.requested:
                told.set()
            while (
                idle and not told.is_set() and (task := _next(waiting, running, made))
            ):
                worker = idle.pop()
                worker.connection.send(task)
                running[worker.connection] = task
            if not running:
                break
            for ready in wait(list(running), timeout=0.2):
                assert isinstance(ready, Connection)
                worker, task = workers[ready], running.pop(ready)
                error = _answer(worker, task)
                if error is None:
                    made |= task.makes
                    idle.append(worker)
                    yield task
                else:
                    errors.append(error)
                    told.set()
    for error in errors:
        if not isinstance(error, StoppedError):
            raise error
    if errors or waiting:
        raise StoppedError


def _next(
    waiting: list[Task], running: dict[Connection, Task], made: set[Any]
) -> Task | None:
    """Takes the first task that lacks nothing which a running one makes."""
    in_hand = {thing for task in running.values() for thing in task.makes - made}
    for task in waiting:
        if not (task.makes & in_hand):
            waiting.remove(task)
            return task
    return None


def _shares(cores: list[int], count: int) -> list[list[int]]:
    """The cores of each worker; where there are too few, two have the same.

    >>> _shares([0, 1, 2, 3, 4], 2)
    [[0, 2, 4], [1, 3]]
    >>> _shares([0], 2)
    [[0], [0]]
    """
    return [
        cores[index::count] or [cores[index % len(cores)]] for index in range(count)
    ]


@contextlib.contextmanager
def _started(
    context: Any,
    function: Callable[[Any, StopRequest], None],
    share: list[int],
    told: Any,
    setup: Callable[[], None] | None,
) -> Iterator[_Worker]:
    """A worker; at the end its connection is closed, and it is waited for."""
    here, there = context.Pipe()
    process = context.Process(
        target=_work, args=(function, share, there, told, setup), daemon=True
    )
    process.start()
    there.close()
    try:
        yield _Worker(process, here)
    finally:
        here.close()
        process.join()
        process.close()


def _answer(worker: _Worker, task: Task) -> ExperimentError | None:
    """What a worker says of its task."""
    try:
        return worker.connection.recv()
    except EOFError:
        worker.process.join()
        return ExperimentError(
            f"the process of {task.name} died (exit code {worker.process.exitcode}; -9 "
            "may be a lack of memory): run the same command again, with fewer jobs"
        )


def _work(
    function: Callable[[Any, StopRequest], None],
    share: list[int],
    connection: Connection,
    told: Any,
    setup: Callable[[], None] | None,
) -> None:
    """The life of a worker."""
    # A signal to the whole group is for the first process, which tells.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    if setup is not None:
        setup()
    # Nothing is left to do, or nobody to tell.
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task = connection.recv()
            with contextlib.redirect_stdout(_Prefixed(task.name)):
                answer: ExperimentError | None = None
                try:
                    function(task.argument, _Told(told))
                except ExperimentError as error:
                    answer = error
            connection.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Told(StopRequest):
    """A request to stop that comes from the first process."""

    def __init__(self, told: Any) -> None:
        self._told = told

    @property
    def requested(self) -> bool:  # type: ignore[override]
        return self._told.is_set()


class _Prefixed(io.TextIOBase):
    """The standard output, a line at a time, each after a name."""

    def __init__(self, name: str) -> None:
        self._name, self._line = name, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            print(
                *(f"{self._name}: {line}" for line in lines),
                sep="\n",
                file=sys.__stdout__,
                flush=True,
            )
        return len(text)
