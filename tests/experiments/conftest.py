"""What the tests of programs share: what they spare, and a library for trackers."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tracked import FAKE, Fake

import experiments.data
from experiments.data.idx import BUNDLED, read_idx
from experiments.data.source import Source
from experiments.reports import style

_read_bundled = functools.cache(read_idx)


def _read(name: str, directory: Path) -> Source:
    return (_read_bundled if directory == BUNDLED else read_idx)(name, directory)


@pytest.fixture(scope="session", autouse=True)
def mnist_unpacked_once() -> Iterator[None]:
    """A fifth of a second a run: half a minute of the suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments.data, "read_idx", _read)
        yield


class Blank(FigureCanvasAgg):
    """A figure of the same size that is left white."""

    def draw(self) -> None:
        pass

    def buffer_rgba(self) -> np.ndarray:
        width, height = self.get_width_height()
        return np.full((height, width, 4), 255, np.uint8)


@pytest.fixture(scope="session", autouse=True)
def blank_pictures() -> Iterator[None]:
    """To draw them is a quarter of a small run; see `drawn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "FigureCanvasAgg", Blank)
        yield


@pytest.fixture(scope="module")
def drawn() -> Iterator[None]:
    """Pictures are drawn, for the tests of what is on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "FigureCanvasAgg", FigureCanvasAgg)
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
