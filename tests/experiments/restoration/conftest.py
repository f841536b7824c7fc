"""A trained run, of MNIST at half the size."""

import struct
from pathlib import Path

import numpy as np
import pytest
from reconstructed import train

from experiments.data.idx import BUNDLED, read_images
from experiments.training.opened import Opened, load_run


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """MNIST's first digits at half the size, and not square."""
    folder = tmp_path_factory.mktemp("digits")
    images = read_images(BUNDLED / "t10k-images-idx3-ubyte.gz")[:460].astype(float)
    images = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))[:, :, 1:13]
    images = np.round(images).astype(np.uint8)
    for role, own in (("train", images[:420]), ("t10k", images[420:])):
        labels = np.zeros(len(own), np.uint8)
        for name, array in (("images-idx3", own), ("labels-idx1", labels)):
            header = struct.pack(">I", 0x0800 + array.ndim)
            header += struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{role}-{name}-ubyte").write_bytes(header + array.tobytes())
    return folder


@pytest.fixture(scope="session")
def workdir(digits, tmp_path_factory) -> Path:
    return train(digits, tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture(scope="session")
def opened(workdir) -> Opened:
    return load_run(workdir)
