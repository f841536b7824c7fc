"""What is handed over when: every line once, whatever happened to the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from tracked import lines, write_lines, write_run

from experiments.errors import DIVERGED, DONE, STOPPED, WorkdirError
from experiments.storage.atomic import read_json, write_json
from experiments.trackers.copies import RunCopy, SweepCopy, Tracker, make_copy
from experiments.trackers.sinks import Identity, Sink


class Memory:
    """A tracker that keeps what it gets.

    Attributes:
      where: what it says of itself.
      last_step: what it says that it has.
      fails: the call that fails, or "".
    """

    def __init__(self) -> None:
        self.where, self.last_step, self.fails = "here", None, ""
        self.identities: list[Identity] = []
        self.got: list[tuple[str, Any]] = []
        self.warnings: list[str] = []
        self.told: list[str] = []

    def open(self, identity: Identity) -> Sink:
        self._get("open", identity)
        self.identities.append(identity)
        return Sink(
            self.where,
            "a place",
            self.last_step,
            lambda config, manifest: self._get("describe", (config, manifest)),
            lambda some: self._get("log", [line["epoch"] for line in some]),
            lambda paths, step: self._get("figures", ([p.stem for p in paths], step)),
            lambda numbers, step: self._get("results", (numbers, step)),
            lambda code: self._get("close", code),
        )

    def _get(self, kind: str, value: Any) -> None:
        if kind == self.fails:
            raise ConnectionError(kind)
        self.got.append((kind, value))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.got]

    def epochs(self) -> list[int]:
        return [epoch for kind, some in self.got if kind == "log" for epoch in some]

    def tracker(self) -> Tracker:
        return Tracker("wandb", self.open, self.warnings.append, self.told.append)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def copy_of(workdir: Path, memory: Memory) -> RunCopy:
    """As a new process begins."""
    return RunCopy(workdir, memory.tracker(), name="run")


def test_a_finished_run_is_handed_over_once(tmp_path, memory):
    write_run(tmp_path, 5)
    copy_of(tmp_path, memory).finish(DONE)
    config, manifest = (
        read_json(tmp_path / f"{name}.json") for name in ("config", "run")
    )
    assert memory.got[1:] == [
        ("describe", (config, manifest)),
        ("log", [1, 2, 3, 4, 5]),
        ("figures", (["learning_curve", "samples"], 20)),
        ("results", (read_json(tmp_path / "results.json"), 20)),
        ("close", DONE),
    ]
    assert memory.told == ["a place"]
    before = list(memory.got)
    copy_of(tmp_path, memory).update()
    copy_of(tmp_path, memory).finish(DONE)
    assert memory.got == before
    assert memory.warnings == []


def test_a_run_that_goes_on_is_the_same_run_there(tmp_path, memory):
    write_run(tmp_path, 2)
    copy = copy_of(tmp_path, memory)
    copy.update()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "epoch": 3')  # being written
        file.flush()
        copy.update()
        assert memory.epochs() == [1, 2]
        file.write("}\n")
    copy.update()
    copy.finish(STOPPED)
    assert memory.epochs() == [1, 2, 3]
    assert memory.kinds().count("open") == 1

    write_run(tmp_path, 5)
    memory.last_step = 12
    copy_of(tmp_path, memory).finish(DONE)
    assert memory.epochs() == [1, 2, 3, 4, 5]
    assert len({identity.token for identity in memory.identities}) == 1
    assert [code for kind, code in memory.got if kind == "close"] == [STOPPED, DONE]
    assert memory.kinds().count("describe") == 1


@pytest.mark.parametrize("seen", [True, False])
def test_lines_that_are_lost_and_come_again_are_not_sent_again(seen, tmp_path, memory):
    """A run of the checkpoint of epoch 2, killed after epoch 4."""
    write_run(tmp_path, 4)
    copy = copy_of(tmp_path, memory)
    copy.update()
    for last in (2, 3, 4) if seen else ():
        write_lines(tmp_path, last)
        copy.update()
    write_run(tmp_path, 5)
    copy.finish(DONE)
    assert memory.epochs() == [1, 2, 3, 4, 5]
    assert memory.warnings == []


def test_lines_that_come_again_with_other_values_are_told_once(tmp_path, memory):
    write_run(tmp_path, 3)
    copy_of(tmp_path, memory).finish(STOPPED)
    memory.last_step = 12
    write_run(tmp_path, 4)
    write_lines(tmp_path, 4, scale=2.0)
    copy = copy_of(tmp_path, memory)
    copy.update()
    write_lines(tmp_path, 5, scale=2.0)
    copy.update()
    assert memory.epochs() == [1, 2, 3, 4, 5]
    [warning] = memory.warnings
    assert "other values of the steps up to 12" in warning


@pytest.mark.parametrize(
    ("last_step", "epochs"),
    [(8, [3, 4]), (12, [4]), (4, [3, 4]), (-1, [3, 4]), (None, [1, 2, 3, 4])],
)
def test_after_a_kill_the_tracker_says_what_it_has(last_step, epochs, tmp_path, memory):
    """Closed after epoch 2; epoch 3 was handed over to a process that was killed.

    What has arrived when it was closed is there, though the tracker's files of it may
    have been cleared away since; a run that is gone is sent anew.
    """
    write_run(tmp_path, 2)
    copy_of(tmp_path, memory).finish(STOPPED)
    memory.last_step = 8
    write_run(tmp_path, 3)
    copy_of(tmp_path, memory).update()
    assert memory.epochs() == [1, 2, 3]

    memory.got.clear()
    memory.last_step = last_step
    write_run(tmp_path, 4)
    copy_of(tmp_path, memory).update()
    assert memory.epochs() == epochs
    assert memory.kinds().count("describe") == 1  # it may have been lost too
    assert memory.warnings == []


def test_another_server_gets_all_of_it(tmp_path, memory):
    write_run(tmp_path, 5)
    copy_of(tmp_path, memory).finish(DONE)
    (tmp_path / "figures" / "samples.png").write_bytes(b"another")
    memory.got.clear()
    memory.last_step = 20
    copy_of(tmp_path, memory).finish(DONE)
    assert memory.got[1:] == [("figures", (["samples"], 20)), ("close", DONE)]

    memory.where, memory.last_step = "there", None
    (tmp_path / "figures" / "samples.png").write_bytes(b"a third")
    copy_of(tmp_path, memory).finish(DONE)
    assert memory.epochs() == [1, 2, 3, 4, 5]
    assert memory.got[-3][1][0] == ["learning_curve", "samples"]


@pytest.mark.parametrize(
    "call", ["open", "describe", "log", "figures", "results", "close"]
)
def test_what_fails_is_tried_again_and_nothing_else_is(call, tmp_path, memory):
    write_run(tmp_path, 5)
    copy = copy_of(tmp_path, memory)
    memory.fails = call
    with pytest.raises(ConnectionError):
        copy.finish(DONE)
    memory.fails, opened = "", call != "open"
    if opened:
        memory.last_step = 20 if memory.epochs() else -1
    copy.finish(DONE)
    assert memory.epochs() == [1, 2, 3, 4, 5]
    assert memory.kinds()[-1] == "close"
    assert memory.kinds().count("open") == 1 + opened
    assert len({identity.token for identity in memory.identities}) == 1
    assert read_json(tmp_path / "tracker" / "wandb.json")["closed"]


def test_a_long_run_is_handed_over_in_parts_that_are_written_down(tmp_path, memory):
    write_run(tmp_path, 2)
    write_lines(tmp_path, 250)
    copy_of(tmp_path, memory).update()
    assert [len(some) for kind, some in memory.got if kind == "log"] == [100, 100, 50]
    assert memory.epochs() == list(range(1, 251))
    assert read_json(tmp_path / "tracker" / "wandb.json")["step"] == 1000


def test_the_results_of_an_unfinished_run_stay_here(tmp_path, memory):
    write_run(tmp_path, 5)
    copy_of(tmp_path, memory).finish(DIVERGED)
    assert memory.kinds() == ["open", "describe", "log", "close"]


def test_a_damaged_ledger_is_told_and_no_second_run_is_made(tmp_path, memory):
    write_run(tmp_path, 5)
    (tmp_path / "tracker").mkdir()
    (tmp_path / "tracker" / "wandb.json").write_text('{"token": "a')
    with pytest.raises(WorkdirError, match="is damaged"):
        copy_of(tmp_path, memory)
    assert memory.got == []


def test_every_run_of_a_sweep_is_copied_when_its_row_is_there(tmp_path, memory):
    names = ["seed=0", "seed=1", "seed=2"]
    write_json(
        tmp_path / "sweep.json", {"fields": ["seed"], "runs": dict.fromkeys(names)}
    )
    copy = make_copy(tmp_path, memory.tracker())
    assert isinstance(copy, SweepCopy)
    copy.update()
    assert memory.got == []
    rows = {
        "lanes of group 0 on 1 devices": 2,
        "seed=0": {"status": "done", "test_bound": -3.0},
        "seed=1": {"status": "diverged in epoch 2", "test_bound": None},
    }
    text = "\n".join(json.dumps({"name": n, "value": row}) for n, row in rows.items())
    (tmp_path / "rows.jsonl").write_text(text + '\n{"name": "seed=2", "val')
    for name in names:
        write_run(tmp_path / "runs" / name, 2)
    copy.update()
    copy.update()
    copy.finish(DONE)
    assert [(i.name, i.group) for i in memory.identities] == [
        ("seed=0", tmp_path.name),
        ("seed=1", tmp_path.name),
    ]
    closed = [code for kind, code in memory.got if kind == "close"]
    assert closed == [DONE, DIVERGED]
    results = [got[0] for kind, got in memory.got if kind == "results"]
    assert results == [rows["seed=0"], rows["seed=1"]]
    assert memory.told == [f"2 of 3 runs of {tmp_path}"]


def test_nothing_is_opened_before_there_is_a_run(tmp_path, memory):
    assert make_copy(tmp_path, memory.tracker()) is None
    write_run(tmp_path, 0)
    assert isinstance(make_copy(tmp_path, memory.tracker()), RunCopy)
    assert lines(tmp_path) == []
