"""The files of MNIST and Frey Face -> checked arrays; what every reader of data shares.

Large uncompressed files are mapped, not read: `config.data.stream` trains on them from
the disk.

Damage is found by the known sums of MNIST and Frey Face and by gzip's CRC. Uncompressed
IDX files of other datasets carry no sum: there only `Source.sha256`, which a run
records, tells two versions apart.
"""

import gzip
import hashlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

BUNDLED = Path(__file__).parent / "assets" / "mnist"

# The uncompressed files: the .gz around them differ from one distributor to the next.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
# `digest` of the frames: a .mat holds the time of its writing, so its own sum says
# nothing.
FREY_FACE_SHA256 = "e3146bd8a2993208786e42e6b7868899598742d62852f904cf291c5c49998fe2"
FREY_FACE_URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
_FREY_FACE_NUM_TRAIN = 1600  # of 1965; the other 365 are the test set

# Files of more are not read into memory but mapped: their pages come when needed.
MAPPED_BYTES = 2**28


class DataError(ValueError):
    """Bad input: one sentence that says what was got, what was expected, the mend."""


class Split(NamedTuple):
    """Datapoints of one role.

    images: [N, D] uint8, C-contiguous, read-only; D is the product of `image_shape`.
    labels: [N] int32, or None where the dataset has none.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Source(NamedTuple):
    """What a reader hands to `load`: a dataset before the validation set is cut off."""

    image_shape: tuple[int, ...]
    train: Split
    test: Split
    sha256: str
    source: str


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns one sha256 over the names, types, shapes and bytes of `arrays`."""
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def cause(error: BaseException) -> str:
    """Returns the type of an error and the first line that it says, for a message."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def make_source(
    arrays: Mapping[str, np.ndarray], source: str, sha256: str = ""
) -> Source:
    """Builds a `Source` from whole arrays.

    Args:
      arrays: `train_images` and `test_images`, uint8 [N, H, W] or [N, H, W, C], and
        `train_labels` and `test_labels`, int32 [N], if there are any.
      source: where they came from.
      sha256: the digest of the dataset; "" computes it from `arrays`.
    """

    def split(role: str) -> Split:
        images = np.ascontiguousarray(arrays[f"{role}_images"])
        return Split(images.reshape(len(images), -1), arrays.get(f"{role}_labels"))

    image_shape = arrays["train_images"].shape[1:]
    return Source(
        image_shape=image_shape,
        train=split("train"),
        test=split("test"),
        sha256=sha256 or digest(arrays),
        source=source,
    )


def contents(file: Path) -> memoryview:
    """Returns the bytes of a file: a small one's read, a large one's mapped.

    Raises:
      OSError: it cannot be read.
    """
    if file.stat().st_size > MAPPED_BYTES:
        return np.memmap(file, np.uint8, mode="r").data
    return memoryview(file.read_bytes())


def _read_bytes(file: Path) -> memoryview:
    try:
        data = contents(file)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}): expected a data file; check "
            "the path and its permissions."
        ) from error
    if not len(data):
        raise DataError(f"{file} is empty (0 bytes): copy or download it again.")
    if (
        bytes(data[:512])
        .lstrip()
        .lower()
        .startswith((b"<!doctype", b"<html", b"<?xml"))
    ):
        raise DataError(
            f"{file} is an HTML page, not data (a download that failed often leaves "
            "one): download it again from a working address."
        )
    return data


def _unpack(file: Path) -> memoryview:
    data = _read_bytes(file)
    if bytes(data[:2]) != b"\x1f\x8b":
        return data  # plain, whatever its suffix: browsers unpack and keep the name
    try:
        return memoryview(gzip.decompress(data))
    except EOFError as error:
        raise DataError(
            f"{file} is a truncated gzip file: {len(data)} bytes, its end is missing; "
            "copy or download it again."
        ) from error
    except (OSError, zlib.error) as error:
        raise DataError(
            f"{file} is a damaged gzip file ({error}): copy or download it again."
        ) from error


def _idx_files(directory: Path, stem: str) -> list[Path]:
    names = [stem, stem.replace("-idx", ".idx")]
    files = [directory / (name + gz) for name in names for gz in ("", ".gz")]
    return [file for file in files if file.exists()]


def _idx(directory: Path, stem: str, ndim: int) -> tuple[np.ndarray, Path, memoryview]:
    """Returns the uint8 array of an IDX file, the file, and its unpacked bytes."""
    files = _idx_files(directory, stem)
    if not files:
        raise DataError(
            f"{stem} (or {stem}.gz) is missing in {directory}: put the four files "
            f"{', '.join(MNIST_SHA256)} there."
        )
    file = files[0]
    data = _unpack(file)
    start = 4 + 4 * ndim
    if len(data) < start:
        raise DataError(
            f"{file} holds {len(data)} bytes, less than the {start} of an IDX header: "
            "copy or download it again."
        )
    magic, *shape = struct.unpack_from(f">{1 + ndim}I", data)
    if magic != 0x0800 + ndim:
        raise DataError(
            f"{file} starts with {magic:#010x}, expected the magic number "
            f"{0x0800 + ndim:#010x} of {ndim}-dimensional uint8 IDX data; "
            "put the right file there."
        )
    if math.prod(shape) != len(data) - start or 0 in shape:
        raise DataError(
            f"{file} has {len(data) - start} bytes of data, but its header says "
            f"{' x '.join(map(str, shape))}: it is truncated or damaged; copy or "
            "download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape), file, data


def has_idx(directory: Path) -> bool:
    """Returns whether any of the four IDX files is in `directory`."""
    return any(_idx_files(directory, stem) for stem in MNIST_SHA256)


def read_idx(name: str, directory: Path) -> Source:
    """Reads the four IDX files in `directory`; checks MNIST's sums if so named."""
    arrays, unpacked = {}, {}
    for role, prefix in (("train", "train"), ("test", "t10k")):
        stem = f"{prefix}-images-idx3-ubyte"
        images, file, unpacked[stem] = _idx(directory, stem, 3)
        _check_range(images, file)
        stem = f"{prefix}-labels-idx1-ubyte"
        labels, labels_file, unpacked[stem] = _idx(directory, stem, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{file} has {len(images)} images, but {labels_file.name} beside it "
                f"has {len(labels)} labels: they are not of one dataset."
            )
        if name == "mnist" and labels.max() > 9:
            raise DataError(
                f"{labels_file} has a label {labels.max()}, expected 0 to 9: it is "
                "not MNIST; load it under another name."
            )
        arrays[f"{role}_images"] = images
        arrays[f"{role}_labels"] = labels.astype(np.int32)
    shapes = [arrays[f"{role}_images"].shape[1:] for role in ("train", "test")]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{directory} has training images of {shapes[0]} and test images of "
            f"{shapes[1]} pixels: they are not of one dataset."
        )
    for stem, data in unpacked.items() if name == "mnist" else ():
        got = hashlib.sha256(data).hexdigest()
        if got != MNIST_SHA256[stem]:
            raise DataError(
                f"{stem} in {directory} is not MNIST's: its sha256 unpacked is "
                f"{got[:16]}..., expected {MNIST_SHA256[stem][:16]}...; copy it again, "
                "or load it under another name if it is another dataset."
            )
    bundled = directory == BUNDLED
    where = "bundled with the project" if bundled else f"IDX files in {directory}"
    return make_source(arrays, where)


def _check_range(images: np.ndarray, where: object) -> None:
    if images.max() <= 1:
        raise DataError(
            f"{where} has pixels from {images.min()} to {images.max()}, expected grey "
            "levels from 0 to 255: multiply binary pixels by 255."
        )


def read_frey_face(name: str, place: Path | None) -> Source:
    """Reads Frey Face from a .mat or its directory; see `experiments.data.load`."""
    if place is None:
        raise DataError(
            f"{name} is not bundled: download {FREY_FACE_URL} and give the file as "
            "the path."
        )
    file = place / "frey_rawface.mat" if place.is_dir() else place
    if not file.exists():
        raise DataError(
            f"{file} does not exist: download {FREY_FACE_URL} and give the file as "
            "the path."
        )
    data = _read_bytes(file)
    from scipy import io as scipy_io  # 0.2 s that other datasets need not pay

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # scipy only warns of some damage
            variables = scipy_io.loadmat(io.BytesIO(data))
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise DataError(
            f"{file} is not a MATLAB file that scipy can read "
            f"({cause(error)}): download "
            f"{FREY_FACE_URL} again."
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
    _check_range(frames, f"'ff' in {file}")
    frames = np.ascontiguousarray(frames.T).reshape(1965, 28, 20)
    sha256 = digest({"frames": frames})
    if name == "frey_face" and sha256 != FREY_FACE_SHA256:
        raise DataError(
            f"'ff' in {file} is not Frey Face's: the sha256 of its frames is "
            f"{sha256[:16]}..., expected {FREY_FACE_SHA256[:16]}...; download it "
            "again, or load it under another name if it is another dataset."
        )
    # Neighbouring frames of the video are alike, so a split by time would make the
    # test set a different stretch of it. RandomState's stream never changes.
    frames = frames[np.random.RandomState(0).permutation(len(frames))]
    train, test = frames[:_FREY_FACE_NUM_TRAIN], frames[_FREY_FACE_NUM_TRAIN:]
    return make_source({"train_images": train, "test_images": test}, str(file), sha256)
