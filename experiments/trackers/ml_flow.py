"""Runs of MLflow; `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` are its own."""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.errors import DONE, LOST, STOPPED
from experiments.trackers.sinks import Identity, Sink, leaves

__all__ = ["open_sink"]

_EXPERIMENT = "aevb"
_TOKEN = "aevb_run"
# What MLflow takes at once: values, and parameters or tags.
_VALUES, _FIELDS = 1000, 100
# Characters of a parameter or a tag; longer ones are refused by some servers.
_LONGEST = 5000
# MLflow reads them when it is imported or used. We try again ourselves, so a server
# that does not answer is to be told of in seconds, not in the minutes of its default.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def open_sink(identity: Identity) -> Sink:
    """Opens a run, or goes on with the one that is tagged with the same token."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient()
    experiment = _experiment(client)
    # By the tag, which comes with the run: an id that the server chose could be lost
    # on the way here, and the run be made twice.
    runs = client.search_runs([experiment], f"tags.{_TOKEN} = '{identity.token}'")
    last_step = None
    if runs:
        run = runs[0].info.run_id
        client.update_run(run, status="RUNNING")
        epochs = client.get_metric_history(run, "epoch")
        last_step = max((metric.step for metric in epochs), default=-1)
    else:
        tags = {_TOKEN: identity.token}
        if identity.group:
            tags["sweep"] = identity.group
        made = client.create_run(experiment, tags=tags, run_name=identity.name)
        run = made.info.run_id

    def describe(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        fields = {name: _text(value) for name, value in leaves(config, ".")}
        known = client.get_run(run).data.params
        params = [Param(name, v) for name, v in fields.items() if name not in known]
        tags = [
            RunTag(f"run.{name}", _text(value)) for name, value in leaves(manifest, ".")
        ]
        # MLflow keeps the first value of a parameter for ever. A run may grow, and may
        # be evaluated in another way: the later value is a tag.
        tags += [
            RunTag(f"config.{name}", value)
            for name, value in fields.items()
            if known.get(name, value) != value
        ]
        for some in _slices(params, _FIELDS):
            client.log_batch(run, params=some, synchronous=True)
        for some in _slices(tags, _FIELDS):
            client.log_batch(run, tags=some, synchronous=True)

    def log(lines: Sequence[Mapping[str, Any]]) -> None:
        now = int(1000 * time.time())
        values = [
            Metric(name, line[name], now, line["step"])
            for line in lines
            # The epoch is the last of its line: where it is, all of the line is.
            for name in sorted(line, key=lambda name: name == "epoch")
            if name != "step" and _is_number(line[name])
        ]
        for some in _slices(values, _VALUES):
            client.log_batch(run, metrics=some, synchronous=True)

    def figures(paths: Sequence[Path], step: int) -> None:
        del step  # files have none
        for path in paths:
            client.log_artifact(run, str(path), "figures")

    def results(numbers: Mapping[str, Any], step: int) -> None:
        now = int(1000 * time.time())
        values = [
            Metric(name, value, now, step)
            for name, value in leaves(numbers, "/", "results/")
            if _is_number(value)
        ]
        for some in _slices(values, _VALUES):
            client.log_batch(run, metrics=some, synchronous=True)
        client.log_dict(run, dict(numbers), "results.json")

    def close(code: int) -> None:
        statuses = {DONE: "FINISHED", STOPPED: "KILLED", LOST: "KILLED"}
        client.set_terminated(run, statuses.get(code, "FAILED"))

    # A password may be in it.
    uri = re.sub("//[^/@]*@", "//", client.tracking_uri)
    page = f"{uri}/#/experiments/{experiment}/runs/{run}"
    return Sink(
        f"{uri} {run}",
        page if uri.startswith("http") else f"run {run} of {uri}",
        last_step,
        describe,
        log,
        figures,
        results,
        close,
    )


def _experiment(client: Any) -> str:
    if "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]


def _slices(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    remaining = iter(values)
    while some := list(islice(remaining, size)):
        yield some
