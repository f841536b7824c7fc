"""What the tests of trackers share: a library in wandb's place, and small workdirs."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from experiments.storage.atomic import write_atomically, write_json

# Online, as its users see it: a run that is known goes on after its last step.
FAKE = """
import json, os, sys, time

_FILE = os.environ["FAKE_WANDB"] + "/calls.jsonl"


def _calls():
    with open(_FILE) as file:
        return [json.loads(line) for line in file]


def _call(kind, *values):
    what = os.environ.get("FAKE_WANDB_DOES", "").split()
    if what[:1] == ["hang"] and what[1] == kind:
        time.sleep(1000)
    if what[:1] == ["die"] and what[1] == kind:
        os._exit(9)
    if what[:1] == ["fail"] and what[1] == kind:
        # Always, or so many times.
        failed = os.environ["FAKE_WANDB"] + "/failed"
        with open(failed, "a") as file:
            file.write(".")
        if len(what) < 3 or os.path.getsize(failed) <= int(what[2]):
            raise RuntimeError("no route\\n to host")
    with open(_FILE, "a") as file:
        file.write(json.dumps([kind, *values]) + "\\n")


def Settings(**settings):
    return settings


def Image(path):
    return os.path.basename(path)


class _Updates:
    def __init__(self, kind, run):
        self._kind, self._run = kind, run

    def update(self, values, **_):
        _call(self._kind, self._run.id, values)


class _Run:
    offline = disabled = False

    def __init__(self, id, **settings):
        known = _calls() if os.path.exists(_FILE) else []
        steps = [call[3] for call in known if call[:2] == ["log", id]]
        self.id, self.url = id, "https://wandb.test/runs/" + id
        self.dir = settings["dir"] + "/wandb/run-" + id + "/files"
        self.resumed = any(call[:2] == ["init", id] for call in known)
        self.starting_step = max(steps, default=-1) + 1
        self.config, self.summary = _Updates("config", self), _Updates("summary", self)
        loaded = [name for name in ("jax", "numpy") if name in sys.modules]
        _call("init", id, settings | {"loaded": loaded})

    def log(self, values, step, commit):
        assert commit
        _call("log", self.id, values, step)

    def finish(self, exit_code):
        _call("finish", self.id, exit_code)


def init(**settings):
    return _Run(**settings)
"""


def lines(workdir: Path) -> list[dict[str, Any]]:
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


class Fake(NamedTuple):
    """The library, and what it was called with."""

    folder: Path

    def calls(self, kind: str = "") -> list[list[Any]]:
        path = self.folder / "calls.jsonl"
        text = path.read_text() if path.exists() else ""
        calls = [json.loads(line) for line in text.splitlines()]
        return [call for call in calls if call[0] == kind or not kind]

    def rows(self) -> list[dict[str, Any]]:
        """The lines that came, as `metrics.jsonl` has them."""
        return [
            {"step": step, **values}
            for _, _, values, step in self.calls("log")
            if "epoch" in values
        ]

    def figures(self) -> list[str]:
        """The names of the figures that came, those of each time sorted."""
        images = [v for _, _, v, _ in self.calls("log") if "epoch" not in v]
        return [name for image in images for name in sorted(image.values())]

    def ids(self) -> set[str]:
        return {call[1] for call in self.calls("init")}

    def codes(self) -> list[int]:
        return [call[2] for call in self.calls("finish")]


def write_lines(workdir: Path, last: int, *, scale: float = 1.0) -> None:
    """`metrics.jsonl` of so many epochs of four steps, as a new file."""
    found = [
        {"step": 4 * epoch, "epoch": epoch, "train/bound": -scale / epoch}
        for epoch in range(1, last + 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in found)
    write_atomically(workdir / "metrics.jsonl", text.encode())


def write_run(workdir: Path, last: int) -> Path:
    """What a run of five epochs has after so many; results and figures after five."""
    workdir.mkdir(exist_ok=True, parents=True)
    write_lines(workdir, last)
    config = {"seed": 0, "num_samples": 5, "data": {"name": "mnist", "path": ""}}
    write_json(workdir / "config.json", config)
    manifest = {"argv": ["mnist"], "num_epochs": 5, "packages": {"jax": "0.10.2"}}
    write_json(workdir / "run.json", manifest)
    if last == 5:
        (workdir / "figures").mkdir(exist_ok=True)
        for name in ("samples", "learning_curve"):
            Image.new("L", (4, 4)).save(workdir / "figures" / f"{name}.png")
        results = {"test_bound": -0.1, "bound_is": "eq. 7", "sampling": {"ess": 2.5}}
        write_json(workdir / "results.json", results)
    return workdir
