"""The manifest of a run: what the numbers depend on, apart from the configuration."""

import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import aevb

__all__ = ["code_sha256", "make_manifest", "tree_sha256"]

_ROOT = Path(__file__).resolve().parents[2]
# What makes no number.
_NO_NUMBERS = ("experiments/reports/", "experiments/trackers/")

# What decides the bits of a run, beside its configuration and data.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def make_manifest() -> dict[str, Any]:
    """What a run's numbers depend on beside its configuration, and its command."""
    device = jax.devices()[0]
    return {
        "argv": sys.argv,
        "code_sha256": code_sha256(),
        "cpu": _cpu(),
        "device_kind": device.device_kind,
        "git": _git_revision(),
        "num_cores": os.cpu_count(),
        "num_devices": len(jax.devices()),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "platform": device.platform,
        "python": platform.python_version(),
        "version": aevb.__version__,
        "x64": bool(jax.config.read("jax_enable_x64")),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


@lru_cache
def code_sha256() -> str:
    """The sha256 of the code that numbers come from, as it is on the disk.

    That is every module of `aevb` and of `experiments`, in whatever folder, but for
    `experiments.reports` and `experiments.trackers`, which only show and copy numbers.
    """
    return tree_sha256(_ROOT)


def tree_sha256(root: Path) -> str:
    """The sha256 over the paths and bytes of a checkout's modules."""
    total = hashlib.sha256()
    for package in ("aevb", "experiments"):
        for file in sorted((root / package).rglob("*.py")):
            name = file.relative_to(root).as_posix()
            if not name.startswith(_NO_NUMBERS):
                total.update(f"{name} {file.stat().st_size}\n".encode())
                total.update(file.read_bytes())
    return total.hexdigest()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model n")]
    return names[0] if names else platform.processor()


def _git_revision() -> str:
    command = [
        "git",
        "-C",
        str(_ROOT),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
