"""Runs of Weights and Biases; `WANDB_PROJECT`, `WANDB_MODE` and the like are its own.

Nothing is sent but what the workdir holds: wandb's own looks at the machine, the
checkout, the packages and the terminal are off.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from experiments.trackers.sinks import Identity, Sink, leaves

__all__ = ["open_sink"]

_PROJECT = "aevb"
# Of the online mode, where the server is asked what it has; wandb's own is 90.
_INIT_SECONDS = 30.0


def open_sink(identity: Identity) -> Sink:
    """Opens a run, or goes on with the one of the same token."""
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        init_timeout=_INIT_SECONDS,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=identity.token,
        name=identity.name,
        group=identity.group or None,
        dir=None if "WANDB_DIR" in os.environ else str(identity.folder),
        resume="allow",
        # After a failure a run may be open still.
        reinit="finish_previous",
        settings=settings,
    )

    def describe(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        fields = {**config, "run": dict(manifest)}
        run.config.update(fields, allow_val_change=True)

    def log(lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            values = {name: value for name, value in line.items() if name != "step"}
            # Committed: else a row waits for the next one.
            run.log(values, step=line["step"], commit=True)

    def figures(paths: Sequence[Path], step: int) -> None:
        images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in paths}
        # The row of the last line is closed, and rows come in the order of steps.
        run.log(images, step=max(step + 1, run.starting_step), commit=True)

    def results(numbers: Mapping[str, Any], step: int) -> None:
        del step  # a summary has none
        run.summary.update(dict(leaves(numbers, "/", "results/")))

    local = run.offline or run.disabled
    if local:
        # Each process has a folder of its own; `wandb sync` joins them by the id.
        folders = Path(run.dir).parents[1] / f"*-{identity.token}"
        where, place = f"offline {run.project}", f"`wandb sync {folders}` sends it"
    else:
        where = place = str(run.url)
    return Sink(
        where,
        place,
        None if local else run.starting_step - 1,
        describe,
        log,
        figures,
        results,
        run.finish,
    )
