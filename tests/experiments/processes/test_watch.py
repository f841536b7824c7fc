"""The watch lets in the processes of its job, and nobody else."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from experiments.processes import watch
from experiments.processes.watch import Watch, Welcome

COUNT = 3


class Channel:
    """What `on_writer` is in a job: all get what a function returns in process 0."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._welcome: Welcome | None = None

    def first(self, function: Callable[[], Welcome]) -> Welcome:
        self._welcome = function()
        self._told.set()
        return self._welcome

    def other(self, _: Callable[[], Welcome]) -> Welcome:
        return self.welcome

    @property
    def welcome(self) -> Welcome:
        assert self._told.wait(30)
        assert self._welcome is not None
        return self._welcome


class Job:
    """Processes of a job as threads of this one."""

    def __init__(self, host: str) -> None:
        self.channel = Channel()
        self.watches: dict[int, Watch] = {}
        self.errors: list[OSError] = []
        self._host = host
        self._first = threading.Thread(target=self._run, args=(0, self.channel.first))
        self._first.start()

    def _run(self, process: int, from_first: Callable) -> None:
        try:
            self.watches[process] = Watch(process, COUNT, from_first, self._host)
        except OSError as error:
            self.errors.append(error)

    def start(self, process: int) -> None:
        self._run(process, self.channel.other)

    def wait(self) -> None:
        self._first.join(30)
        assert not self._first.is_alive()

    def end(self) -> None:
        """All leave at once, as at the end of a job."""
        watches = self.watches.values()
        goodbyes = [threading.Thread(target=own.leave, args=(0,)) for own in watches]
        for goodbye in goodbyes:
            goodbye.start()
        for goodbye in goodbyes:
            goodbye.join(30)
        for own in watches:
            for connection in own._sockets:
                connection.close()

    def stranger(self) -> socket.socket:
        return socket.create_connection(self.channel.welcome[:2], timeout=30)


def is_dropped(connection: socket.socket) -> bool:
    """Waits until the other end closes; with a reset, where it left bytes unread."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def exits(monkeypatch) -> list[int]:
    """The codes with which the watch would have ended this process."""
    codes: list[int] = []
    monkeypatch.setattr(watch.os, "_exit", codes.append)
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.2)
    return codes


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", ""])
def test_strangers_before_during_and_after(exits, capsys, monkeypatch, host):
    let_in, let_in_count = Watch._let_in, threading.Semaphore(0)

    def counted(self, connection, token, num_processes, arrived):
        let_in(self, connection, token, num_processes, arrived)
        if 1 in arrived:
            let_in_count.release()

    monkeypatch.setattr(Watch, "_let_in", counted)
    job = Job(host)
    token = job.channel.welcome.token
    with (
        job.stranger() as silent,
        job.stranger() as scanner,
        job.stranger() as noisy,
        job.stranger() as slow,
    ):
        scanner.close()  # before: a port scan connects and hangs up
        noisy.sendall(b"GET / HTTP/1.1\r\nHost: me\r\n\r\n" * 4)
        slow.sendall(token[:-1])
        assert is_dropped(noisy)  # it was shown the door

        job.start(1)
        assert let_in_count.acquire(timeout=30)
        with job.stranger() as guess, job.stranger() as again:  # during
            guess.sendall(bytes(len(token)) + (2).to_bytes(4, "little"))
            assert is_dropped(guess)
            again.sendall(token + (1).to_bytes(4, "little"))  # 1 is here already
            assert is_dropped(again)
            assert job._first.is_alive()

        job.start(2)
        job.wait()
        with pytest.raises(OSError):  # after: nobody listens any more
            job.stranger()
        silent.close()
    assert sorted(job.watches) == [0, 1, 2]

    job.end()
    assert exits == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("process", [0, 3, 2**32 - 1])
def test_a_process_that_is_not_of_the_job_is_refused(exits, process):
    job = Job("localhost")
    with job.stranger() as other:
        other.sendall(job.channel.welcome.token + process.to_bytes(4, "little"))
        assert is_dropped(other)
    job.start(1)
    job.start(2)
    job.wait()
    job.end()
    assert exits == []


def test_a_job_may_end_as_soon_as_it_has_begun(exits, monkeypatch):
    """Process 0 could leave before it had started to listen to the last one."""
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread.name.startswith("watch of "):
            time.sleep(0.3)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    job = Job("localhost")
    for process in (1, 2):
        job.start(process)
    job.wait()
    threads = job.watches[0]._threads
    assert sorted(thread.name for thread in threads) == ["watch of 1", "watch of 2"]
    assert all(thread.is_alive() for thread in threads)
    job.end()
    assert exits == []


def test_who_does_not_come_is_told(exits, monkeypatch):
    monkeypatch.setattr(watch, "_ARRIVAL_SECONDS", 0.5)
    job = Job("localhost")
    job.wait()
    [error] = job.errors
    assert "2 of 3 processes did not connect within 0.5 s" in str(error)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_it_listens_at_the_address_it_is_given(host):
    with watch._listener(host, 1) as server:
        assert server.getsockname()[0] in ("127.0.0.1", "::1")


def test_a_name_at_loopback_is_not_handed_to_other_machines(monkeypatch):
    """Debian's /etc/hosts has a machine's own name at 127.0.1.1."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(watch.socket, "getaddrinfo", lambda *_, **__: found)
    with watch._listener("worker-0", 1) as server:
        assert server.getsockname()[0] == watch._own_address()
