"""Images and masks of the user's own: what is read is right, all else is refused."""

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.pictures import read_mask, read_pictures
from experiments.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)
MASK = np.eye(6, 5, dtype=bool)
READERS = (read_pictures, read_mask)


def write(path: Path, content: np.ndarray | Image.Image | bytes) -> Path:
    """An array is a picture or an NPY file, by the suffix."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Image.Image):
        content.save(path)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        Image.fromarray(content).save(path)
    return path


def refused(read, path, shape=(6, 5)) -> str:
    """What the error says: one sentence that names the file and ends with the mend."""
    with pytest.raises(DataError) as info:
        read(path, shape)
    said = str(info.value)
    assert "\n" not in said
    assert str(path) in said
    assert "  " not in said  # nothing is left out
    assert re.search("[:;] ", said.rpartition(str(path))[2])
    return said


def png_header(width: int, height: int) -> bytes:
    """A PNG file that ends after the sizes, with the right sum."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    length, crc = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + crc


def test_a_grey_png_has_its_bytes(tmp_path):
    found = read_pictures(write(tmp_path / "a.png", GREY), (6, 5))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, GREY.reshape(1, 30))


def test_colours_are_made_grey_for_a_grey_run_and_grey_is_colours_for_the_other(
    tmp_path,
):
    colour = write(tmp_path / "colour.png", COLOUR)
    # ITU-R 601-2, to the nearest byte.
    grey = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_pictures(colour, (6, 5)).reshape(6, 5) - grey).max() <= 1
    np.testing.assert_array_equal(
        read_pictures(colour, (6, 5, 3)), COLOUR.reshape(1, -1)
    )
    found = read_pictures(write(tmp_path / "grey.png", GREY), (6, 5, 3))
    np.testing.assert_array_equal(found.reshape(6, 5, 3), GREY[..., None].repeat(3, 2))


def test_what_is_opaque_is_as_without_transparency(tmp_path):
    opaque = np.concatenate([COLOUR, np.full((6, 5, 1), 255, np.uint8)], axis=2)
    found = read_pictures(write(tmp_path / "a.png", opaque), (6, 5, 3))
    np.testing.assert_array_equal(found, COLOUR.reshape(1, -1))


def test_one_bit_is_black_and_white(tmp_path):
    path = write(tmp_path / "a.png", Image.fromarray(MASK))
    with Image.open(path) as image:
        assert image.mode == "1"
    expected = 255 * MASK.reshape(1, -1).astype(np.uint8)
    np.testing.assert_array_equal(read_pictures(path, (6, 5)), expected)
    np.testing.assert_array_equal(read_mask(path, (6, 5)), MASK)


def test_sixteen_bits_are_not_cut_off_at_255(tmp_path):
    levels = GREY.astype(np.uint16) * 257  # the same greys of 16 bits
    path = write(tmp_path / "a.png", levels)
    with Image.open(path) as image:
        assert image.mode == "I;16"
    np.testing.assert_array_equal(read_pictures(path, (6, 5)), GREY.reshape(1, -1))


def test_the_suffix_may_be_of_capitals(tmp_path):
    found = read_pictures(write(tmp_path / "A.PNG", GREY), (6, 5))
    np.testing.assert_array_equal(found, GREY.reshape(1, 30))


@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_an_npy_of_one_image_or_of_several_has_its_bytes(tmp_path, array):
    several = np.stack([array, array[::-1], array[:, ::-1]])
    one = read_pictures(write(tmp_path / "one.npy", array), array.shape)
    np.testing.assert_array_equal(one, array.reshape(1, -1))
    found = read_pictures(write(tmp_path / "several.npy", several), array.shape)
    np.testing.assert_array_equal(found, several.reshape(3, -1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_from_0_to_1_are_the_nearest_byte(tmp_path, dtype):
    values = np.array([[0, 1, 0.5, 0.2, 0.7]] * 6, dtype)
    found = read_pictures(write(tmp_path / "a.npy", values), (6, 5))
    assert found.dtype == np.uint8
    expected = [0, 255, 128, 51, round(255 * float(values[0, 4]))]
    np.testing.assert_array_equal(found.reshape(6, 5), [expected] * 6)


def test_bools_are_black_and_white(tmp_path):
    found = read_pictures(write(tmp_path / "a.npy", MASK), (6, 5))
    np.testing.assert_array_equal(found.reshape(6, 5), 255 * MASK.astype(int))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_plain_or_packed(tmp_path, idx, suffix):
    images = np.stack([GREY, 255 - GREY])
    content = idx(images)
    path = tmp_path / f"images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    np.testing.assert_array_equal(read_pictures(path, (6, 5)), images.reshape(2, -1))


@pytest.mark.parametrize("shape", [(5, 6), (6, 4), (6, 5, 3)])
def test_images_of_another_size_are_refused_with_both_sizes(tmp_path, shape, idx):
    expected = " x ".join(map(str, shape))
    names = {
        "a.npy": GREY,
        "b.npy": np.stack([GREY] * 2),
        "c": idx(GREY[None]),
    } | ({"d.png": GREY} if len(shape) == 2 else {})
    for name, content in names.items():
        said = refused(read_pictures, write(tmp_path / name, content), shape)
        assert "6 x 5" in said.partition("expected")[0]
        assert expected in said.partition("expected")[2]
        assert "resize" in said


def test_bytes_of_0_and_1_are_not_taken_for_black(tmp_path, idx):
    """Binary pixels are often kept so: of 255 levels they would all be black."""
    binary = MASK.astype(np.uint8)
    for path in (
        write(tmp_path / "a.npy", binary),
        write(tmp_path / "a", idx(binary[None])),
    ):
        assert "255" in refused(read_pictures, path)


def test_all_black_is_an_image(tmp_path):
    found = read_pictures(write(tmp_path / "a.npy", np.zeros_like(GREY)), (6, 5))
    assert not found.any()


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.full((6, 5), 1.5), "1.5"),
        (np.full((6, 5), -0.5), "-0.5"),
        (np.full((6, 5), np.nan), "nan"),
        (np.where(MASK, np.inf, 0.0), "inf"),
        (np.full((6, 5), 200), "int64 from 200 to 200"),
        (np.full((6, 5), "a"), "<U1"),
        (np.full((6, 5), 1j), "complex128"),
        (np.array([[{}] * 5] * 6), "cannot be read"),  # objects
        (np.uint8(3), "expected.* 6 x 5"),
        (np.zeros((0, 6, 5), np.uint8), "no images|0 x 6 x 5"),
        (np.zeros((0, 6, 5)), "no images|0 x 6 x 5"),
    ],
    ids=str,
)
def test_an_npy_of_something_else_is_refused(tmp_path, array, got):
    said = refused(read_pictures, write(tmp_path / "a.npy", np.array(array)))
    assert re.search(got, said)


def test_numbers_outside_are_told_a_mend_that_mends(tmp_path):
    negative = refused(read_pictures, write(tmp_path / "a.npy", GREY / 255 - 0.5))
    missing = refused(read_pictures, write(tmp_path / "b.npy", GREY * np.nan))
    # Neither is in [0, 1] after a division.
    assert "divide by the largest" not in negative
    assert "divide by the largest" not in missing


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"black and white"),
        ("empty.png", b""),
        ("text.npy", b"0 1 0 1"),
        ("empty.npy", b""),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, read, name, content):
    said = refused(read, write(tmp_path / name, content))
    assert "cannot be read" in said
    assert "write it" in said


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, read, suffix, share):
    noise = np.random.default_rng(2).integers(0, 2, (60, 50), np.uint8) * 255
    content = write(tmp_path / f"whole{suffix}", noise).read_bytes()
    read(tmp_path / f"whole{suffix}", (60, 50))
    part = write(tmp_path / f"part{suffix}", content[: int(share * len(content))])
    assert "cannot be read" in refused(read, part, (60, 50))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_a_damaged_file_is_read_or_refused_in_one_sentence(tmp_path, read, suffix):
    content = write(tmp_path / f"whole{suffix}", 255 * MASK.astype(np.uint8))
    content = content.read_bytes()
    rng = np.random.default_rng(3)
    num_refused = 0
    for place in rng.choice(len(content), 100):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path = write(tmp_path / f"damaged{suffix}", bytes(changed))
        try:
            found = read(path, (6, 5))
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017 - which flips it is of is free
            num_refused += 1
        else:
            assert found.size == 30
    assert num_refused > 20


@pytest.mark.parametrize("read", READERS)
def test_what_is_not_of_numpy_save_is_refused(tmp_path, read):
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, images=GREY)
    assert "numpy.save" in refused(read, tmp_path / "a.npy")


@pytest.mark.parametrize("read", READERS)
def test_a_picture_of_gigapixels_is_refused_before_it_is_made(tmp_path, read):
    path = write(tmp_path / "a.png", png_header(60_000, 60_000))
    assert "cannot be read" in refused(read, path)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_a_file_that_is_not_there_is_refused(tmp_path, read, suffix):
    said = refused(read, tmp_path / f"none{suffix}")
    assert "exist" in said
    assert "PNG" in said
    (tmp_path / f"folder{suffix}").mkdir()
    refused(read, tmp_path / f"folder{suffix}")


def test_what_has_another_suffix_is_told_what_can_be_read(tmp_path):
    path = write(tmp_path / "picture.jpg", b"\xff\xd8\xff\xe0 of another program")
    said = refused(read_pictures, path)
    assert "PNG" in said


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", 255 * MASK.astype(np.uint8)),
        ("b.png", 255 * MASK[..., None].repeat(3, 2).astype(np.uint8)),
        ("a.npy", MASK),
        ("b.npy", MASK.astype(np.uint8)),
        ("c.npy", MASK.astype(np.float64)),
        ("d.npy", 255 * MASK.astype(np.uint8)),
    ],
)
def test_a_mask_is_seen_where_it_is_white_or_not_zero(tmp_path, name, values):
    found = read_mask(write(tmp_path / name, values), (6, 5))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, MASK)


def test_a_grey_mask_is_refused(tmp_path):
    said = refused(read_mask, write(tmp_path / "a.png", 254 * MASK.astype(np.uint8)))
    assert "grey" in said
    assert "threshold" in said


@pytest.mark.parametrize(
    ("seen", "word"), [(True, "nothing is missing"), (False, "everything is missing")]
)
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_a_mask_leaves_some_pixels_and_takes_some(tmp_path, seen, word, suffix):
    values = np.full((6, 5), 255 * seen, np.uint8)
    assert word in refused(read_mask, write(tmp_path / f"a{suffix}", values))


@pytest.mark.parametrize("shape", [(5, 6), (6, 4), (30,), (1, 6, 5), (6, 5, 3)])
def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path, shape):
    values = np.resize(255 * MASK.astype(np.uint8), shape)
    said = refused(read_mask, write(tmp_path / "a.npy", values))
    assert f"{' x '.join(map(str, shape))} pixels" in said
    assert "expected 6 x 5" in said
    if len(shape) == 2:
        said = refused(read_mask, write(tmp_path / "a.png", values))
        assert f"{' x '.join(map(str, shape))} pixels" in said


def test_a_mask_does_not_say_whether_nan_is_seen(tmp_path):
    values = np.where(MASK, 1.0, np.nan)
    assert "nan" in refused(read_mask, write(tmp_path / "a.npy", values)).lower()


def test_a_word_that_is_no_mask_is_told_the_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(read_mask, Path("halves"))
    for word in ("--mask=halves", "half", "quadrant", "quadrants", "random:SHARE"):
        assert word in said
