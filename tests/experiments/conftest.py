"""What the tests of programs share: MNIST is unpacked once."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

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
