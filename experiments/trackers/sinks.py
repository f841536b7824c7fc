"""What a tracker is asked to do, and which module asks it of which library.

No module of this room but `process` imports JAX: the tracker's process holds none.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import ConfigError

__all__ = [
    "TRACKERS",
    "Identity",
    "Sink",
    "leaves",
    "one_line",
    "opener",
    "require",
]

TRACKERS = {"wandb": "weights_and_biases", "mlflow": "ml_flow"}
"""`{library: the module of this room that calls it}`; an extra has the same name."""


class Identity(NamedTuple):
    """The run that a tracker is to have.

    Attributes:
      token: random letters that no other run has; the same in every process.
      name: for a person.
      group: the sweep that the run is of; "" is none.
      folder: in the workdir, for what the library writes.
    """

    token: str
    name: str
    group: str
    folder: Path


class Sink(NamedTuple):
    """A run that is open in a tracker.

    Attributes:
      where: tells this run of this server from all others. What was handed over
        elsewhere is not here.
      place: for a person: an address, or a command.
      last_step: of the last line that the tracker has, -1 for none; None where it had
        no such run.
      describe: takes the configuration and the manifest; again where they changed.
      log: takes lines of `metrics.jsonl`, of later steps than those before.
      figures: takes pictures of a finished run, and its last step.
      results: takes its numbers, and its last step.
      close: takes the exit code of the command; all is handed over when it returns.
    """

    where: str
    place: str
    last_step: int | None
    describe: Callable[[Mapping[str, Any], Mapping[str, Any]], None]
    log: Callable[[Sequence[Mapping[str, Any]]], None]
    figures: Callable[[Sequence[Path], int], None]
    results: Callable[[Mapping[str, Any], int], None]
    close: Callable[[int], None]


def require(tracker: str) -> None:
    """Refuses a tracker that is unknown, or whose library is not installed.

    Raises:
      ConfigError: with what to install.
    """
    if tracker not in TRACKERS:
        raise ConfigError(f"--tracker={tracker}: expected {' or '.join(TRACKERS)}")
    spec = importlib.util.find_spec(tracker)
    # wandb makes a folder of its own name, which Python would take for a package.
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"--tracker={tracker}: the library is not installed; install it by "
            f"pip install -e '.[{tracker}]', or leave the flag out"
        )


def opener(tracker: str) -> Callable[[Identity], Sink]:
    """The function that opens a run in a tracker."""
    module = importlib.import_module(f"experiments.trackers.{TRACKERS[tracker]}")
    open_sink: Callable[[Identity], Sink] = module.open_sink
    return open_sink


def leaves(
    fields: Mapping[str, Any], separator: str, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """The values of nested fields by their full names.

    `experiments.config.flatten` would load JAX.

    >>> dict(leaves({"data": {"name": "mnist"}, "seed": 0}, "."))
    {'data.name': 'mnist', 'seed': 0}
    """
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from leaves(value, separator, f"{prefix}{name}{separator}")
        else:
            yield prefix + name, value


def one_line(error: Exception) -> str:
    """What an exception of a library says, for a person.

    >>> one_line(ConnectionError("no route  to host"))
    'ConnectionError: no route to host'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
