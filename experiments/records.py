"""What a run leaves in its workdir: configuration, manifest, metrics, events, parts.

config.json     the configuration, every field
run.json        versions, platform, data sha256, argv, git revision
metrics.jsonl   one JSON object a line, one line an epoch; no clock in it
events/         TensorBoard
evaluation/     the finished parts of the final evaluation
checkpoints/    the state of training (`experiments.checkpoints`)

Only process 0 of a job of several writes.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.files import write_atomically
from experiments.lock import WorkdirError

__all__ = [
    "Metrics",
    "Parts",
    "digests",
    "flatten",
    "is_writer",
    "json_digest",
    "manifest",
    "read_json",
    "write_json",
]

# What decides the bits of a run, beside its configuration and data.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def is_writer() -> bool:
    """Whether this process writes: process 0 of a job of several."""
    # Asking for the index of the only process would wait for its devices.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      WorkdirError: it is missing or damaged.
    """
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WorkdirError(f"{path} is damaged: {error}") from error
    return value


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"name": x}}` as `{"data.name": x}`, with tuples as JSON has them.

    >>> flatten({"data": {"name": "mnist"}, "hidden_dims": (500, 500)})
    {'data.name': 'mnist', 'hidden_dims': [500, 500]}
    """
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def digests(tree: Any) -> dict[str, str]:
    """The sha256 of each leaf, over dtype, shape and bytes, by the leaf's path."""
    return {
        jax.tree_util.keystr(path): _digest(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _digest(leaf: Any) -> str:
    array = np.ascontiguousarray(leaf)
    header = f"{array.dtype.name}{np.shape(leaf)}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def json_digest(value: Any) -> str:
    """The sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def manifest() -> dict[str, Any]:
    """What a run's numbers depend on beside its configuration, and its command."""
    device = jax.devices()[0]
    return {
        "argv": sys.argv,
        "code_sha256": _code_sha256(),
        "cpu": _cpu(),
        "device_kind": device.device_kind,
        "git": _git_revision(),
        "num_cores": os.cpu_count(),
        "num_devices": len(jax.devices()),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "platform": device.platform,
        "python": platform.python_version(),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _code_sha256() -> str:
    """Of the modules that numbers come from, as they are on disk."""
    root = Path(__file__).resolve().parent
    files = sorted((root.parent / "aevb").glob("*.py"))
    files += [root / name for name in ("evaluation.py", "program.py", "training.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model n")]
    return names[0] if names else platform.processor()


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
    """Scalars by step, one line a step: `metrics.jsonl`, TensorBoard, and in memory.

    Attributes:
      lines: what has been written, from the first step on.
    """

    def __init__(self, workdir: Path, lines: list[dict[str, Any]]):
        """Starts both files from `lines`; what they held of later steps is cut off.

        The lines come with the checkpoint that a run continues from, so what happened
        to the file since (a line cut short, steps that were lost) does not matter.
        """
        self.lines = list(lines)
        self._is_writer = is_writer()
        if not self._is_writer:
            return
        # The asynchronous writer of tensorboardX blocks for ever on a full disk.
        from tensorboardX.event_file_writer import EventsWriter

        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self._file = os.open(
            write_atomically(workdir / "metrics.jsonl", text.encode()),
            os.O_WRONLY | os.O_APPEND,
        )
        (workdir / "events").mkdir(exist_ok=True)
        self._events = EventsWriter(str(workdir / "events" / "events"))
        # Tells TensorBoard to drop the points of steps that will come again.
        last = self.lines[-1]["step"] if self.lines else -1
        self._add_event(last + 1, session_log={"status": 1})

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        *,
        events_only: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one line; `events_only` (speeds) go to TensorBoard alone.

        Raises:
          OSError: the disk is full; the file then ends with the line before.
        """
        self.lines.append({"step": step, **scalars})
        if not self._is_writer:
            return
        size = os.fstat(self._file).st_size
        text = (json.dumps(self.lines[-1]) + "\n").encode()
        try:
            if os.write(self._file, text) != len(text):
                raise OSError(28, "No space left on device", "metrics.jsonl")
        except OSError:
            os.ftruncate(self._file, size)
            raise
        values = [
            {"tag": name, "simple_value": value}
            for name, value in {**scalars, **(events_only or {})}.items()
        ]
        self._add_event(step, summary={"value": values})

    def _add_event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))
        self._events.flush()

    def close(self) -> None:
        """Closes both files; what was written is on the disk."""
        if self._is_writer:
            os.fsync(self._file)
            os.close(self._file)
            self._events.close()


class Parts:
    """The finished parts of long work, kept by name in a file of JSON lines.

    Every line has its sha256 and that of what the parts are of: a part that is damaged,
    or of other work, is not there, and is done again.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "parts.jsonl"
    >>> Parts(path, "K = 5000").put("first", {"log_likelihood": [-90.25]})
    >>> Parts(path, "K = 5000").get("first")
    {'log_likelihood': [-90.25]}
    >>> Parts(path, "K = 1000").get("first") is None
    True
    """

    def __init__(self, path: Path, identity: Any):
        """Reads the finished parts of the work that `identity` (JSON) tells apart."""
        self._path = path
        self._identity = json_digest(identity)
        self._parts: dict[str, Any] = {}
        text = path.read_bytes() if path.exists() else b""
        for line in text.split(b"\n"):
            try:
                part = json.loads(line)
                if part.pop("sha256") == json_digest([self._identity, part]):
                    self._parts[part["name"]] = part["value"]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def get(self, name: str) -> Any | None:
        """The value that was put under a name, or None."""
        return self._parts.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keeps a finished part, on the disk when this returns."""
        self._parts[name] = value
        if not is_writer():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = {"name": name, "value": value}
        part["sha256"] = json_digest([self._identity, part])
        with self._path.open("ab") as file:
            # A line that a crash cut short must not swallow this one.
            file.write(b"\n" * (file.tell() > 0) + json.dumps(part).encode())
            file.flush()
            os.fsync(file.fileno())
