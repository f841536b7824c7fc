"""Frey Face from the original `frey_rawface.mat`."""

import io
import warnings
from pathlib import Path

import numpy as np

from experiments.data.source import (
    Source,
    cause,
    check_range,
    digest,
    make_source,
    read_bytes,
)
from experiments.errors import DataError

__all__ = [
    "FREY_FACE_SHA256",
    "FREY_FACE_URL",
    "SPLIT",
    "read_frey_face",
    "split_frames",
]

# A .mat holds the time of its writing, so the sum of the file itself says nothing.
FREY_FACE_SHA256 = "e3146bd8a2993208786e42e6b7868899598742d62852f904cf291c5c49998fe2"
"""The digest of Frey Face's frames."""

FREY_FACE_URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
"""Where the original is to be had."""

SPLIT = (
    "its frames in the order of numpy's RandomState(0).permutation(1965): the first "
    "1600 to train, the last 365 to test"
)
"""How the frames are split; a run records it."""

_FREY_FACE_NUM_TRAIN = 1600  # of 1965; the other 365 are the test set


def read_frey_face(name: str, place: Path | None) -> Source:
    """Reads Frey Face, 1965 frames of 28 x 20 pixels, without labels.

    The frames are put in a fixed random order; the first 1600 are the training set, the
    last 365 the test set.

    >>> read_frey_face("frey_face", None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    experiments.errors.DataError: frey_face is not bundled: download ...

    Args:
      name: the dataset; under the name `frey_face` the frames must be the known ones,
        by their sum.
      place: a .mat file with the array `ff`, or the directory of `frey_rawface.mat`;
        None is no place.

    Returns:
      The dataset.

    Raises:
      DataError: the file is missing, damaged or not what it should be.
    """
    if place is None:
        raise DataError(
            f"{name} is not bundled: download {FREY_FACE_URL} and give the file as "
            "the path."
        )
    file = place / "frey_rawface.mat" if place.is_dir() else place
    if place.is_dir() and not file.exists():
        raise DataError(
            f"{place} has neither frey_rawface.mat nor a dataset frey_face of "
            f"tensorflow-datasets: download {FREY_FACE_URL} and give the file as the "
            "path."
        )
    if not file.exists():
        raise DataError(
            f"{file} does not exist: download {FREY_FACE_URL} and give the file as "
            "the path."
        )
    data = read_bytes(file)
    from scipy import io as scipy_io  # 0.2 s that other datasets need not pay

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # scipy only warns of some damage
            variables = scipy_io.loadmat(io.BytesIO(data))
    except Exception as error:  # scipy's parser raises anything
        raise DataError(
            f"{file} is not a MATLAB file that scipy can read ({cause(error)}): "
            f"download {FREY_FACE_URL} again."
        ) from error
    frames = variables.get("ff")
    if not isinstance(frames, np.ndarray):
        names = [key for key in variables if not key.startswith("__")]
        raise DataError(
            f"{file} has the variables {names}, expected the array 'ff' of Frey Face: "
            f"download {FREY_FACE_URL}."
        )
    if frames.dtype != np.uint8 or frames.shape != (560, 1965):
        raise DataError(
            f"'ff' in {file} is {frames.dtype} of shape {frames.shape}, expected uint8 "
            f"of shape (560, 1965), one frame a column: download {FREY_FACE_URL}."
        )
    check_range(frames, f"'ff' in {file}")
    frames = np.ascontiguousarray(frames.T).reshape(1965, 28, 20)
    sha256 = digest({"frames": frames})
    if name == "frey_face" and sha256 != FREY_FACE_SHA256:
        raise DataError(
            f"'ff' in {file} is not Frey Face's: the sha256 of its frames is "
            f"{sha256[:16]}..., expected {FREY_FACE_SHA256[:16]}...; download it "
            "again, or load it under another name if it is another dataset."
        )
    return make_source(split_frames(frames), f"{file}, {SPLIT}", sha256)


def split_frames(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Splits the 1965 frames, in the order of the video, as `SPLIT` says.

    Neighbouring frames are alike, so a split by time would make the test set a
    different stretch of the video. RandomState's stream never changes.
    """
    frames = frames[np.random.RandomState(0).permutation(len(frames))]
    return {
        "train_images": frames[:_FREY_FACE_NUM_TRAIN],
        "test_images": frames[_FREY_FACE_NUM_TRAIN:],
    }
