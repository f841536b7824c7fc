"""What the tests of programs share: MNIST unpacked once, a library for trackers."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked import FAKE, Fake

import experiments.data
from experiments.data.idx import BUNDLED, read_idx
from experiments.data.source import Source

_read_bundled = functools.cache(read_idx)


def _read(name: str, directory: Path) -> Source:
    return (_read_bundled if directory == BUNDLED else read_idx)(name, directory)


@pytest.fixture(scope="session", autouse=True)
def mnist_unpacked_once() -> Iterator[None]:
    """A fifth of a second a run: half a minute of the suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments.data, "read_idx", _read)
        yield


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    """A library in wandb's place, for a run and for the process that it starts."""
    folder = tmp_path / "fake"
    (folder / "wandb" / "proto").mkdir(parents=True)
    (folder / "wandb" / "__init__.py").write_text(FAKE)
    for name in ("__init__.py", "wandb_internal_pb2.py"):
        (folder / "wandb" / "proto" / name).touch()
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setenv("FAKE_WANDB", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    return Fake(folder)
