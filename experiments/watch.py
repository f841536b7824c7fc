"""Notices within seconds that a process of a job has died, and stops this one.

JAX's own heartbeats do so too, after a minute, by an abort with a page of addresses;
and a process that fails while another waits for it in a collective is waited for. Here
every process keeps a connection to process 0, which the operating system closes when
either end dies, however it dies.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

__all__ = ["LOST", "Watch"]

LOST = 76
"""Exit code: another process of the job was lost; the same command goes on."""

_GRACE_SECONDS = 3.0


class Watch:
    """The connections between process 0 and the others, each with a thread."""

    def __init__(
        self,
        process: int,
        num_processes: int,
        from_first: Callable[[Callable[[], tuple[str, int]]], tuple[str, int]],
    ):
        """Connects this process.

        Args:
          process: which one this is.
          num_processes: how many there are.
          from_first: gives all processes what a function returns in process 0.
        """
        self._leaving = False
        self._sockets: list[socket.socket] = []
        server = None
        if process == 0:
            server = socket.create_server(("", 0), backlog=num_processes)
        address = from_first(lambda: (_host(), server.getsockname()[1]))  # type: ignore[union-attr]
        if server is None:
            connection = socket.create_connection(address, timeout=60)
            connection.sendall(process.to_bytes(4, "little"))
            self._listen(0, connection)
        else:
            server.settimeout(60)
            for _ in range(num_processes - 1):
                connection, _ = server.accept()
                connection.settimeout(60)
                self._listen(int.from_bytes(connection.recv(4), "little"), connection)
            server.close()

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

    @property
    def _threads(self) -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("watch of ")]

    def _listen(self, process: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sockets.append(connection)
        threading.Thread(
            target=self._wait,
            args=(process, connection),
            name=f"watch of {process}",
            daemon=True,
        ).start()

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


def _host() -> str:
    """The host of process 0, as JAX's coordinator knows it."""
    from jax._src import distributed  # no public name for it

    address = distributed.global_state.coordinator_address or ""
    return address.rpartition(":")[0].strip("[]")
