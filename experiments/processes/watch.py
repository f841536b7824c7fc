"""Notices within seconds that a process of a job has died, and stops this one.

JAX's own heartbeats do so too, after a minute, by an abort with a page of addresses;
and a process that fails while another waits for it in a collective is waited for. Here
every process keeps a connection to process 0, which the operating system closes when
either end dies, however it dies. Process 0 lets in who shows the token that it handed
out through JAX's own channel, and stops listening when all are there.
"""

import hmac
import ipaddress
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.errors import LOST

__all__ = ["Watch", "Welcome"]

_GRACE_SECONDS = 3.0
_ARRIVAL_SECONDS = 60.0
_GREETING_SECONDS = 10.0
_TOKEN_BYTES = 32


class Welcome(NamedTuple):
    """What process 0 tells the others, and nobody else.

    Attributes:
      host: where it listens.
      port: where it listens.
      token: random bytes that a process of the job shows when it connects.
    """

    host: str
    port: int
    token: bytes


class Watch:
    """The connections between process 0 and the others, each with a thread."""

    def __init__(
        self,
        process: int,
        num_processes: int,
        from_first: Callable[[Callable[[], Welcome]], Welcome],
        host: str = "",
    ):
        """Connects this process.

        Args:
          process: which one this is.
          num_processes: how many there are.
          from_first: gives all processes what a function returns in process 0.
          host: an address of process 0 that the others reach; "" is the one that its
            machine sends from.

        Raises:
          OSError: process 0 cannot be reached, or a process did not come.
        """
        self._leaving = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._door = threading.Lock()
        server: socket.socket | None = None

        def welcome() -> Welcome:
            nonlocal server
            server = _listener(host or _own_address(), num_processes)
            own_host, port = server.getsockname()[:2]
            return Welcome(own_host, port, secrets.token_bytes(_TOKEN_BYTES))

        found = Welcome(*from_first(welcome))
        if process:
            address = (found.host, found.port)
            connection = socket.create_connection(address, timeout=_ARRIVAL_SECONDS)
            connection.sendall(found.token + process.to_bytes(4, "little"))
            self._listen(0, connection)
            return
        assert server is not None  # process 0 has just called `welcome`
        with server:
            self._wait_for_all(server, found.token, num_processes)

    def _wait_for_all(
        self, server: socket.socket, token: bytes, num_processes: int
    ) -> None:
        """Lets the other processes in, and nobody else; then nobody at all."""
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        arrived: dict[int, socket.socket] = {}
        server.settimeout(0.2)
        while len(arrived) < num_processes - 1:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{num_processes - 1 - len(arrived)} of {num_processes} "
                    f"processes did not connect within {_ARRIVAL_SECONDS:g} s"
                )
            try:
                connection, _ = server.accept()
            except (TimeoutError, ConnectionError):
                continue  # nobody came, or who came has hung up
            # In a thread: a stranger may connect and say nothing.
            threading.Thread(
                target=self._let_in,
                args=(connection, token, num_processes, arrived),
                daemon=True,
            ).start()
        # In this thread: `leave` must find all of them.
        for process, connection in arrived.items():
            self._listen(process, connection)

    def _let_in(
        self,
        connection: socket.socket,
        token: bytes,
        num_processes: int,
        arrived: dict[int, socket.socket],
    ) -> None:
        connection.settimeout(_GREETING_SECONDS)
        try:
            greeting = _read_exactly(connection, len(token) + 4)
        except OSError:
            greeting = b""
        given, name = greeting[: len(token)], greeting[len(token) :]
        process = int.from_bytes(name, "little")
        known = hmac.compare_digest(given, token) and 0 < process < num_processes
        with self._door:
            if known and process not in arrived:
                arrived[process] = connection
                return
        connection.close()

    def leave(self, code: int) -> None:
        """Says goodbye, and waits, a little, for the others to say it.

        The first to leave with an error takes the others along. It must not go before
        them: without process 0, JAX ends them with a page of addresses.
        """
        self._leaving = True
        for connection in self._sockets:
            try:
                connection.sendall(bytes([code & 0xFF]))
            except OSError:
                continue
        deadline = time.monotonic() + 2 * _GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _listen(self, process: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sockets.append(connection)
        thread = threading.Thread(
            target=self._wait,
            args=(process, connection),
            name=f"watch of {process}",
            daemon=True,
        )
        thread.start()
        self._threads.append(thread)

    def _wait(self, process: int, connection: socket.socket) -> None:
        try:
            farewell = connection.recv(1)
        except OSError:
            farewell = b""
        if self._leaving or farewell == b"\0":
            return
        if farewell:
            # All may have failed alike: then this one says so itself.
            time.sleep(_GRACE_SECONDS)
            how = f"has stopped with exit code {farewell[0]} (its message says why)"
        else:
            how = "was lost"
        if self._leaving:
            return
        print(
            f"error: process {process} of this job {how}: start all processes again "
            "with the same command, which goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LOST)


def _listener(host: str, backlog: int) -> socket.socket:
    """Listens at one address of this machine, which other machines reach."""
    for family, _, _, _, address in _addresses(host):
        # /etc/hosts may have a machine's own name at 127.0.1.1, where no other machine
        # reaches it.
        if _is_loopback(str(address[0])) and not _is_loopback(host):
            continue
        try:
            return socket.create_server(address, family=family, backlog=backlog)
        except OSError:
            continue
    # A name that others reach this machine by may be none of its own (behind a service
    # of a cluster): then at the address that it sends from.
    return socket.create_server((_own_address(), 0), backlog=backlog)


def _addresses(host: str) -> list[Any]:
    try:
        return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return []


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _own_address() -> str:
    """The address that this machine sends from; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is kept for documents
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer where the other end hangs up."""
    deadline, data = time.monotonic() + _GREETING_SECONDS, b""
    while len(data) < count and time.monotonic() < deadline:
        received = connection.recv(count - len(data))
        if not received:
            break
        data += received
    return data
