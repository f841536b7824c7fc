"""What tests of artefacts share: a run without training, a process with jax alone."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
from configurations import small

from experiments import data
from experiments.program import build
from experiments.training.opened import Opened


def untrained(**changes: object) -> Opened:
    """A run whose parameters are those of its start."""
    config = small(**changes)
    dataset = data.load(num_train=320, num_valid=100, num_test=40)
    program = build(config, dataset)
    return Opened(config, dataset, program, program.init(jax.random.key(1)), 7)


def installed_with(name: str) -> set[str]:
    """What `pip install NAME` installs."""
    found = {name}
    for requirement in metadata.requires(name) or []:
        if "extra ==" not in requirement:
            found |= installed_with(re.findall(r"^[\w-]+", requirement)[0])
    return found


def make_jax_alone(folder: Path) -> Path:
    """Makes a folder of what `pip install jax` installs, and of nothing else."""
    for name in installed_with("jax"):
        own = metadata.distribution(name)
        for top in {file.parts[0] for file in own.files or []} - {"..", "__pycache__"}:
            (folder / top).symlink_to(str(own.locate_file(top)))
    return folder


def run_alone(jax_alone: Path, program: str, *arguments: object) -> str:
    """Runs a program in a process that has jax alone; returns what it prints."""
    # -I and -S: no site-packages, no PYTHONPATH, no working directory.
    first = f"import sys; sys.path.append({str(jax_alone)!r})\n"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", first + program, *map(str, arguments)],
        cwd=jax_alone,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
