"""The libraries themselves, with nothing beyond this machine: files, and a server here.

Each is asked for what it has by its own means, in a process of its own.
"""

import gzip
import importlib.util
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tracked import lines, write_run

from experiments.errors import DONE, STOPPED, StoppedError
from experiments.storage.atomic import read_json, write_json
from experiments.trackers import process
from experiments.trackers.process import copied

ROOT = Path(__file__).resolve().parents[3]
LONG = 40_000 * "x"  # than MLflow takes; than a block of wandb's files
FOLLOW = [sys.executable, "-P", "-m", "experiments.trackers", "--follow"]


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"{library} is not installed: pip install -e '.[{library}]'",
    )


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch) -> None:
    """No settings, keys or caches of who runs the tests."""
    for name in os.environ:
        if name.startswith(("WANDB", "MLFLOW")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    # Of a machine that is busy with other tests.
    monkeypatch.setattr(process, "_WAIT_SECONDS", 120.0)
    monkeypatch.setattr(process, "_WAIT_WHEN_STOPPED_SECONDS", 120.0)


def go_on(workdir: Path, tracker: str, last: int, **changes: object) -> None:
    """A command on a run, from wherever it was to the end of an epoch."""
    with copied(tracker, workdir):
        write_run(workdir, last)
        config = read_json(workdir / "config.json")
        write_json(workdir / "config.json", config | changes)
        if last < 5:
            raise StoppedError


def stop(workdir: Path, tracker: str, last: int) -> None:
    with pytest.raises(StoppedError):
        go_on(workdir, tracker, last)


def kill_after(workdir: Path, tracker: str, last: int) -> None:
    """The tracker's process dies when the lines are handed over, if not written."""
    write_run(workdir, last)
    follower = subprocess.Popen(
        [*FOLLOW, f"--tracker={tracker}", f"--workdir={workdir}"],
        stdin=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    ledger = workdir / "tracker" / f"{tracker}.json"
    deadline = time.monotonic() + 120
    while follower.poll() is None and read_json(ledger)["step"] != 4 * last:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    follower.kill()
    follower.communicate()
    assert follower.returncode == -signal.SIGKILL


def three_commands(workdir: Path, tracker: str, capfd: Any) -> None:
    """Two epochs and a stop; a third and a kill; the rest, and another field."""
    stop(workdir, tracker, 2)
    kill_after(workdir, tracker, 3)
    go_on(workdir, tracker, 5, num_samples=7, note=LONG)
    before = read_json(workdir / "tracker" / f"{tracker}.json")
    go_on(workdir, tracker, 5, num_samples=7, note=LONG)
    assert read_json(workdir / "tracker" / f"{tracker}.json") == before
    assert capfd.readouterr().err == ""
    assert read_json(workdir / "tracker" / f"{tracker}.json")["closed"]


def values_of(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "step"}


# ---- MLflow ----


@needs("mlflow")
def test_mlflow_has_everything_once(tmp_path, monkeypatch, capfd):
    store, workdir = tmp_path / "mlflow.db", tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    three_commands(workdir, "mlflow", capfd)
    with sqlite3.connect(store) as database:

        def rows(query: str) -> list[tuple]:
            return database.execute(query).fetchall()

        [(name, status, artifacts)] = rows(
            "select name, status, artifact_uri from runs"
        )
        assert (name, status) == ("run", "FINISHED")
        assert rows("select name from experiments where experiment_id != 0") == [
            ("aevb",)
        ]
        found = rows("select step, key, value from metrics order by step")
        params = dict(rows("select key, value from params"))
        tags = dict(rows("select key, value from tags"))
    trained = [row for row in found if not row[1].startswith("results/")]
    assert sorted(trained) == sorted(
        (line["step"], name, value)
        for line in lines(workdir)
        for name, value in values_of(line).items()
    )
    results = [row for row in found if row[1].startswith("results/")]
    assert sorted(results) == [
        (20, "results/sampling/ess", 2.5),
        (20, "results/test_bound", -0.1),
    ]
    assert params == {
        "seed": "0",
        "num_samples": "5",
        "data.name": "mnist",
        "data.path": "",
        "note": LONG[:5000],
    }
    # MLflow refuses another value of a parameter.
    assert tags["config.num_samples"] == "7"
    assert tags["run.packages.jax"] == "0.10.2"
    assert tags["run.argv"] == '["mnist"]'
    kept = Path(artifacts)
    assert json.loads((kept / "results.json").read_text()) == read_json(
        workdir / "results.json"
    )
    for path in (workdir / "figures").iterdir():
        assert (kept / "figures" / path.name).read_bytes() == path.read_bytes()
    assert len(list((kept / "figures").iterdir())) == 2


@needs("mlflow")
def test_an_mlflow_server_that_is_not_there_is_a_warning(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    go_on(tmp_path / "run", "mlflow", 5)
    err = capfd.readouterr().err
    assert err.startswith("warning: tracker mlflow: MlflowException: ")
    assert err.count("\n") == 1


# ---- Weights and Biases ----

_READ = """
import json, sys
from pathlib import Path
from experiments.trackers.weights_and_biases import _records

folders = sorted(Path(sys.argv[1]).glob("offline-run-*"))
for path in [path for folder in folders for path in folder.glob("*.wandb")]:
    found = {"run": [], "history": [], "summary": {}, "config": {}, "exit": []}
    for record, _ in _records(path.read_bytes()):
        if record.HasField("run"):
            found["run"].append([record.run.run_id, record.run.display_name])
        for config in (record.run.config, record.config):
            found["config"] |= {u.key: json.loads(u.value_json) for u in config.update}
        history = record.history
        if record.HasField("history"):
            names = ["/".join(item.nested_key) for item in history.item]
            values = [json.loads(item.value_json) for item in history.item]
            row = {"step": history.step.num} | dict(zip(names, values))
            found["history"].append(row)
        for item in record.summary.update:
            name = item.key or item.nested_key[0]
            found["summary"][name] = json.loads(item.value_json)
        if record.HasField("exit"):
            found["exit"].append(record.exit.exit_code)
    print(json.dumps(found))
"""


def sessions(folder: Path) -> list[dict[str, Any]]:
    """What wandb's files say that it was told, of each process."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_")}


class Server(BaseHTTPRequestHandler):
    """As much of the server of Weights and Biases as a run asks for."""

    runs: dict[str, dict[str, Any]]

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            asked = json.loads(body)
            name = re.match(r"\s*(?:query|mutation)\s+(\w+)", asked["query"])
            answer = getattr(self, name[1] if name else "", lambda **_: {})
            self._reply({"data": answer(**asked.get("variables", {}))})
        elif self.path.endswith("/file_stream"):
            run, sent = self.runs[self.path.split("/")[-2]], json.loads(body)
            files = sent.get("files", {})
            if history := files.get("wandb-history.jsonl"):
                run["offsets"].append(history["offset"])
                run["history"][history["offset"] :] = history["content"]
            if summary := files.get("wandb-summary.json"):
                run["summary"] |= json.loads(summary["content"][-1])
            if "exitcode" in sent:
                run["codes"].append(sent["exitcode"])
            self._reply({})
        else:
            self._reply({})

    def Viewer(self) -> dict[str, Any]:  # noqa: N802
        return {"viewer": {"id": "1", "entity": "me", "flags": "{}", "teams": None}}

    def ServerFeaturesQuery(self) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def RunResumeStatus(  # noqa: N802
        self, name: str, project: str, **_: Any
    ) -> dict[str, Any]:
        run, bucket = self.runs.get(name), None
        if run is not None:
            bucket = {
                "id": "1",
                "name": name,
                "summaryMetrics": json.dumps(run["summary"]),
                "displayName": "run",
                "logLineCount": 0,
                "historyLineCount": len(run["history"]),
                "eventsLineCount": 0,
                "historyTail": json.dumps(run["history"][-1:]),
                "eventsTail": "[]",
                "config": "{}",
                "wandbConfig": '{"t": 1}',
            }
        owner = {"id": "1", "name": "me"}
        return {
            "model": {"id": "1", "name": project, "entity": owner, "bucket": bucket}
        }

    def UpsertBucket(  # noqa: N802
        self, name: str, project: str, **_: Any
    ) -> dict[str, Any]:
        new: dict[str, Any] = {"history": [], "offsets": [], "summary": {}, "codes": []}
        run = self.runs.setdefault(name, new)
        owner = {"id": "1", "name": "me"}
        bucket = {
            "id": "1",
            "name": name,
            "project": {"id": "1", "name": project, "entity": owner},
            "historyLineCount": len(run["history"]),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": run is new}}

    def CreateRunFiles(  # noqa: N802
        self, files: list[str], **_: Any
    ) -> dict[str, Any]:
        url = f"http://{self.headers['Host']}/files"
        made = [{"name": name, "uploadUrl": url} for name in files]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": made}}

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(body) if is_packed else body

    def _reply(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch) -> Iterator[dict[str, dict[str, Any]]]:
    """The runs of a server on this machine, which the environment names."""
    handler = type("Handler", (Server,), {"runs": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{http.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield handler.runs
        http.shutdown()


def check_server(run: dict[str, Any], workdir: Path) -> None:
    rows = [json.loads(row) for row in run["history"]]
    assert [{"step": row["_step"], **without_clock(row)} for row in rows[:-1]] == lines(
        workdir
    )
    assert without_clock(rows[-1]).keys() == {
        "figures/samples",
        "figures/learning_curve",
    }
    # Nothing was written over, so nothing was sent twice.
    assert run["offsets"] == sorted(set(run["offsets"]))
    assert run["summary"]["results/test_bound"] == -0.1


@needs("wandb")
def test_wandb_has_everything_once_offline(server, tmp_path, monkeypatch, capfd):
    """What a process that is killed had in memory is in a later one's file.

    Half a record is cut off, that of the first exit: `wandb sync` would stop there.
    """
    monkeypatch.setenv("WANDB_MODE", "offline")
    workdir = tmp_path / "run"
    stop(workdir, "wandb", 1)
    [first] = (workdir / "tracker" / "wandb").glob("offline-run-*/*.wandb")
    os.truncate(first, first.stat().st_size - 20)
    three_commands(workdir, "wandb", capfd)
    found = sessions(workdir / "tracker" / "wandb")
    token = read_json(workdir / "tracker" / "wandb.json")["token"]
    assert {tuple(run) for one in found for run in one["run"]} == {(token, "run")}
    rows = [without_clock(row) for one in found for row in one["history"]]
    assert rows[:-1] == lines(workdir)
    files = workdir / "tracker" / "wandb"
    for path in (workdir / "figures").iterdir():
        [copy] = files.glob(f"offline-*/files/{rows[-1][f'figures/{path.stem}/path']}")
        assert copy.read_bytes() == path.read_bytes()
    assert sum(name.endswith("/path") for name in rows[-1]) == 2
    last = found[-1]
    assert (last["config"]["seed"], last["config"]["num_samples"]) == (0, 7)
    assert last["config"]["run"] == read_json(workdir / "run.json")
    assert last["summary"]["results/test_bound"] == -0.1
    assert last["summary"]["results/sampling/ess"] == 2.5
    assert [one["exit"] for one in found] == [[], [STOPPED], [DONE]]

    monkeypatch.delenv("WANDB_MODE")
    command = Path(sys.executable).with_name("wandb")
    folders = sorted(files.glob("offline-run-*"))
    subprocess.run([command, "sync", *folders], check=True, capture_output=True)
    [run] = server.values()
    check_server(run, workdir)
    assert run["codes"] == [1, STOPPED, DONE]


@needs("wandb")
def test_wandb_without_a_login_is_a_warning(tmp_path, capfd):
    go_on(tmp_path / "run", "wandb", 5)
    err = capfd.readouterr().err
    assert err.startswith("warning: tracker wandb: UsageError: No API key configured. ")
    assert err.count("\n") == 1


@needs("wandb")
def test_wandb_has_everything_once_online(server, tmp_path, capfd):
    three_commands(tmp_path / "run", "wandb", capfd)
    [run] = server.values()
    check_server(run, tmp_path / "run")
    assert run["codes"] == [STOPPED, DONE]
