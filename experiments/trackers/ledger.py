"""What a tracker has of a run, kept in the workdir: `tracker/LIBRARY.json`."""

import secrets
from pathlib import Path
from typing import NamedTuple

from experiments.storage.atomic import read_json, write_json

__all__ = ["Ledger", "read_ledger", "write_ledger"]


class Ledger(NamedTuple):
    """What was handed over.

    Attributes:
      token: names the run in the tracker.
      where: the server and the run there that the rest is of.
      step: of the last line.
      closed_step: of the last line when the copy was last closed.
      lines_sha256: of all lines up to it, as they are in `metrics.jsonl`; "" where it
        is not known.
      files: `{name: sha256}` of the other files.
      closed: whether the copy was closed since: what is open may not have arrived.
    """

    token: str
    where: str = ""
    step: int = -1
    closed_step: int = -1
    lines_sha256: str = ""
    files: dict[str, str] = {}  # noqa: RUF012 (never changed in place)
    closed: bool = True


def read_ledger(path: Path) -> Ledger:
    """What a file says, or a new one where there is none.

    Raises:
      WorkdirError: it is damaged.
    """
    if not path.exists():
        return Ledger(secrets.token_hex(8))
    return Ledger(**read_json(path))


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Writes it whole or not at all."""
    write_json(path, ledger._asdict())
