"""What a run leaves in its workdir: metrics, events, manifest, checkpoints.

config.json     the configuration, every field
run.json        versions, platform, data sha256, argv, git revision
metrics.jsonl   one JSON object a line, one line an epoch; no clock in it
events/         TensorBoard
checkpoints/    Orbax, with a sha256 of every leaf beside the state
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tensorboardX import SummaryWriter

__all__ = ["Checkpoints", "Metrics", "manifest", "read_json", "write_json"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


class CheckpointError(RuntimeError):
    """No usable checkpoint where one was expected."""


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all: under another name first, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text())


def manifest(data_sha256: str) -> dict[str, Any]:
    """What a run's numbers depend on beside its configuration, and its command."""
    device = jax.devices()[0]
    return {
        "argv": sys.argv,
        "data_sha256": data_sha256,
        "device": f"{len(jax.devices())} x {device.device_kind}",
        "git": _git_revision(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "platform": device.platform,
        "python": platform.python_version(),
    }


def _git_revision() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


class Metrics:
    """Appends scalars to `metrics.jsonl` and to TensorBoard, one line a step."""

    def __init__(self, workdir: Path, *, last_step: int):
        """Opens the files; lines after `last_step` are of a lost future: cut off."""
        self._path = workdir / "metrics.jsonl"
        kept = [line for line in self.read(workdir) if line["step"] <= last_step]
        temporary = self._path.with_name("metrics.jsonl.tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(temporary, self._path)
        self._file = self._path.open("a", buffering=1)
        self._events = SummaryWriter(str(workdir / "events"), purge_step=last_step + 1)

    @staticmethod
    def read(workdir: Path) -> list[dict[str, Any]]:
        """The lines written so far; a last line cut short by a crash is left out."""
        path = workdir / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        *,
        events_only: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one line; `events_only` (speeds) go to TensorBoard alone."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in {**scalars, **(events_only or {})}.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._events.close()


class Checkpoints:
    """Saves and restores a pytree of arrays by step, each leaf with its sha256."""

    def __init__(self, workdir: Path, *, keep: int = 3):
        """Opens `workdir/checkpoints`; the last `keep` steps are kept."""
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=False
            ),
        )

    def save(self, step: int, state: Any) -> None:
        """Saves the state under a step; atomic."""
        state = jax.device_get(state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                digests=ocp.args.JsonSave(_digests(state)),
            ),
        )
        self._manager.wait_until_finished()

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The last step and its state, or None where nothing has been saved.

        Args:
          like: a pytree of arrays with the structure, shapes and dtypes expected.

        Raises:
          CheckpointError: a leaf's sha256 is not the one that was saved.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(
                    jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
                ),
                digests=ocp.args.JsonRestore(),
            ),
        )
        if _digests(restored["state"]) != restored["digests"]:
            raise CheckpointError(f"the checkpoint of step {step} is damaged")
        return step, restored["state"]

    def close(self) -> None:
        """Releases the manager's threads."""
        self._manager.close()


def _digests(state: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): _digest(leaf) for path, leaf in leaves}


def _digest(leaf: Any) -> str:
    array = np.ascontiguousarray(leaf)
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()
