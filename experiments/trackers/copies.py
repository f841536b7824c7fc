"""Hands over what a workdir has and a tracker has not.

`metrics.jsonl` is the truth. A run that was killed goes on from its checkpoint: the
file loses its last lines, and they come again with the same bits. A tracker cannot take
a line back, and need not: a line is handed over if its step is later than those before.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import DIVERGED, DONE
from experiments.storage.atomic import read_json
from experiments.trackers.ledger import Ledger, read_ledger, write_ledger
from experiments.trackers.sinks import Identity, Sink

__all__ = ["RunCopy", "SweepCopy", "Tracker", "make_copy"]

# Lines that are handed over before it is written down that they were.
_LINES_AT_ONCE = 100
_DESCRIPTION = ("config.json", "run.json")
_RESULTS = "results"


class Tracker(NamedTuple):
    """Where copies go.

    Attributes:
      name: of the library.
      open: opens a run there.
      warn: takes what a person has to know, a sentence.
      tell: takes what a person may want to know, a line.
    """

    name: str
    open: Callable[[Identity], Sink]
    warn: Callable[[str], None]
    tell: Callable[[str], None]


class _Line(NamedTuple):
    text: bytes
    step: int


class _Tail:
    """The whole lines of a file that grows, or is replaced by a shorter one."""

    def __init__(self, path: Path):
        self._path, self._inode, self._size = path, 0, 0
        self._lines: list[_Line] = []

    def read(self) -> list[_Line]:
        """All lines that are there now."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._size:
                self._inode, self._size, self._lines = found.st_ino, 0, []
            file.seek(self._size)
            text = file.read()
        # What comes after the last end of a line is being written.
        for line in text.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._size += len(line)
                self._lines.append(_Line(line, json.loads(line)["step"]))
        return self._lines


class RunCopy:
    """The copy of one run."""

    def __init__(self, workdir: Path, tracker: Tracker, *, name: str, group: str = ""):
        """Reads what the tracker has; opens nothing.

        Args:
          workdir: of the run.
          tracker: where the copy goes.
          name: of the run, for a person.
          group: the sweep that it is of; "" is none.

        Raises:
          WorkdirError: what was written down of the tracker is damaged.
        """
        self._workdir, self._tracker = workdir, tracker
        self._name, self._group = name, group
        self._path = workdir / "tracker" / f"{tracker.name}.json"
        self._ledger = read_ledger(self._path)
        self._tail = _Tail(workdir / "metrics.jsonl")
        self._sink: Sink | None = None
        self._told = ""

    def update(self) -> None:
        """Hands over the configuration and the lines, where they are new."""
        if self._changed(_DESCRIPTION) or self._new_lines():
            with self._opened() as sink:
                self._hand_over(sink)

    def finish(self, code: int, results: Mapping[str, Any] | None = None) -> None:
        """Hands over what is new, and closes the copy.

        Args:
          code: the exit code of the command; figures and results are those of 0.
          results: numbers of the run; None takes `results.json`.
        """
        figures: list[str] = []
        if code == DONE:
            paths = sorted((self._workdir / "figures").glob("*.png"))
            figures = [f"figures/{path.name}" for path in paths]
            results = results or read_json(self._workdir / "results.json")
        digest = _sha256(json.dumps(results, sort_keys=True).encode())

        def new_results() -> bool:
            return bool(results) and self._ledger.files.get(_RESULTS) != digest

        new = self._changed([*_DESCRIPTION, *figures]) or self._new_lines()
        if self._sink is None and self._ledger.closed and not (new or new_results()):
            return
        with self._opened() as sink:
            self._hand_over(sink)
            step = max(self._ledger.step, 0)
            if changed := self._changed(figures):
                sink.figures([self._workdir / name for name in changed], step)
                self._keep(files=self._ledger.files | changed)
            if results and new_results():
                sink.results(results, step)
                self._keep(files=self._ledger.files | {_RESULTS: digest})
            sink.close(code)
            self._keep(closed=True, closed_step=self._ledger.step)
        self._sink = None

    def _keep(self, **changes: Any) -> None:
        self._ledger = self._ledger._replace(**changes)
        write_ledger(self._path, self._ledger)

    def _changed(self, names: Sequence[str]) -> dict[str, str]:
        """`{name: sha256}` of the files that the tracker has not as they are."""
        found = {name: _sha256((self._workdir / name).read_bytes()) for name in names}
        return {
            name: digest
            for name, digest in found.items()
            if self._ledger.files.get(name) != digest
        }

    def _new_lines(self) -> list[_Line]:
        return [line for line in self._tail.read() if line.step > self._ledger.step]

    @contextmanager
    def _opened(self) -> Iterator[Sink]:
        """The tracker's run; after a failure it is opened anew."""
        try:
            if self._sink is None:
                was_closed = self._ledger.closed
                # The token is on the disk before the tracker sees it.
                self._keep(closed=False)
                place = Identity(
                    self._ledger.token, self._name, self._group, self._path.parent
                )
                self._sink = self._tracker.open(place)
                self._agree(self._sink, was_closed)
                if self._told != self._sink.place:
                    self._told = self._sink.place
                    self._tracker.tell(self._told)
            yield self._sink
        except Exception:
            self._sink = None
            raise

    def _agree(self, sink: Sink, was_closed: bool) -> None:
        """After a process that was killed, what the tracker has is not what it got."""
        if sink.where != self._ledger.where or sink.last_step is None:
            self._ledger = Ledger(self._ledger.token)
        elif not was_closed:
            step = max(sink.last_step, self._ledger.closed_step)
            known = self._ledger.lines_sha256 if step == self._ledger.step else ""
            self._keep(step=step, lines_sha256=known, files={})
        self._keep(where=sink.where, closed=False)

    def _hand_over(self, sink: Sink) -> None:
        if changed := self._changed(_DESCRIPTION):
            sink.describe(*(read_json(self._workdir / name) for name in _DESCRIPTION))
            self._keep(files=self._ledger.files | changed)
        lines = self._tail.read()
        num_known = len(lines) - len(self._new_lines())
        known, ledger = lines[:num_known], self._ledger
        digest = hashlib.sha256(b"".join(line.text for line in known))
        if (
            known
            and known[-1].step == ledger.step
            and ledger.lines_sha256 not in ("", digest.hexdigest())
        ):
            self._tracker.warn(
                f"it has other values of the steps up to {ledger.step:,} than "
                f"{self._workdir / 'metrics.jsonl'} has since the run went on from a "
                "checkpoint (another machine, or another length under a schedule); it "
                "keeps them"
            )
        for start in range(num_known, len(lines), _LINES_AT_ONCE):
            some = lines[start : start + _LINES_AT_ONCE]
            sink.log([json.loads(line.text) for line in some])
            digest.update(b"".join(line.text for line in some))
            self._keep(step=some[-1].step, lines_sha256=digest.hexdigest())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class SweepCopy:
    """The copies of a sweep's runs, each made when the run is finished."""

    def __init__(self, workdir: Path, tracker: Tracker):
        """Takes the workdir of a sweep, and where the copies go."""
        self._workdir, self._tracker = workdir, tracker
        self._names = list(read_json(workdir / "sweep.json")["runs"])
        self._done: set[str] = set()

    def update(self) -> None:
        """Copies the runs that have finished."""
        for name, row in self._rows().items():
            if name in self._done:
                continue
            copy = RunCopy(
                self._workdir / "runs" / name,
                # One line for each of a thousand runs would be no news.
                self._tracker._replace(tell=lambda _: None),
                name=name,
                group=self._workdir.resolve().name,
            )
            copy.finish(DONE if row["status"] == "done" else DIVERGED, row)
            self._done.add(name)

    def finish(self, code: int) -> None:
        """Copies the rest; how a run ended is told by its row, not by the sweep."""
        del code
        self.update()
        count = f"{len(self._done):,} of {len(self._names):,} runs"
        self._tracker.tell(f"{count} of {self._workdir}")

    def _rows(self) -> dict[str, dict[str, Any]]:
        """The rows of `rows.jsonl`, which come when a run's folder is whole."""
        path, rows = self._workdir / "rows.jsonl", {}
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            with suppress(ValueError):  # cut short, and written again
                part = json.loads(line)
                rows[part["name"]] = part["value"]
        return {name: rows[name] for name in self._names if name in rows}


def make_copy(workdir: Path, tracker: Tracker) -> RunCopy | SweepCopy | None:
    """The copy of what a workdir holds; None while it holds nothing to be copied."""
    if (workdir / "sweep.json").exists():
        return SweepCopy(workdir, tracker)
    if all((workdir / name).exists() for name in _DESCRIPTION):
        return RunCopy(workdir, tracker, name=workdir.resolve().name)
    return None
