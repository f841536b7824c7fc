"""Weights come back from a page's bytes to within half a step of their row."""

import numpy as np
import pytest

from experiments.explorer.packing import Store, pack_rows, unpack_rows

RNG = np.random.default_rng(0)
MATRIX = (RNG.normal(size=(40, 30)) * 10.0 ** RNG.uniform(-6, 6, (40, 1))).astype("f4")


@pytest.mark.parametrize("num_bytes", [1, 2, 3])
def test_a_row_is_within_half_a_step_of_its_own(num_bytes):
    found = unpack_rows(pack_rows(MATRIX, num_bytes))
    assert found.dtype == np.float32
    step = np.abs(MATRIX).max(axis=1, keepdims=True) / (2 ** (8 * num_bytes - 1) - 1)
    # And the rounding of the product to float32.
    error = np.abs(found.astype(float) - MATRIX)
    assert (error <= 0.5001 * step + 2.0**-24 * np.abs(MATRIX)).all()
    assert (error > 0.3 * step).any()


def test_the_bytes_are_the_integers():
    rows = pack_rows(MATRIX, 3)
    data = rows.to_bytes()
    read = [
        int.from_bytes(data[i : i + 3], "little", signed=True)
        for i in range(0, len(data), 3)
    ]
    assert read == rows.integers.ravel().tolist()
    assert min(read) == -(2**23 - 1) or max(read) == 2**23 - 1


def test_a_row_of_zeros_and_one_too_small_for_a_scale_are_zero():
    rows = pack_rows([[0.0, 0.0], [1e-44, -1e-45], [1e38, -3e38]], 3)
    found = unpack_rows(rows)
    assert found[:2].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(found[2], [1e38, -3e38], rtol=1e-6)


def test_what_cannot_be_rounded_is_refused():
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            pack_rows([[1.0, value]], 2)
    with pytest.raises(ValueError, match="num_bytes is 4"):
        pack_rows([[1.0]], 4)


def test_a_store_says_where_everything_is():
    store = Store()
    bits = RNG.integers(0, 2, (3, 11)).astype(np.uint8)
    store.put_bits("bits", bits)
    store.put_rows("rows", pack_rows(MATRIX, 2))
    store.put("floats", np.arange(3.0))
    store.put("bytes", np.arange(5, dtype=np.uint8))
    data = store.to_bytes()
    part = {
        name: data[entry["offset"] :][: entry["size"]]
        for name, entry in store.directory.items()
    }
    assert sum(map(len, part.values())) == len(data)
    unpacked = np.unpackbits(
        np.frombuffer(part["bits"], np.uint8).reshape(3, 2), axis=1
    )
    np.testing.assert_array_equal(unpacked[:, :11], bits)
    assert len(part["rows"]) == 40 * 4 + MATRIX.size * 2
    np.testing.assert_array_equal(np.frombuffer(part["floats"], "<f4"), [0, 1, 2])
    assert part["bytes"] == bytes(range(5))
