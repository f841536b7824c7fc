"""`experiments.encode` and `experiments.decode`: what is in the files, and resuming."""

import multiprocessing
import os
import shutil
import signal

import jax
import numpy as np
import pyarrow.parquet
import pytest
from configurations import small

from experiments import decode, encode, mnist
from experiments.errors import DONE, STOPPED, USAGE
from experiments.processes import interruption
from experiments.storage.chunks import Chunks
from experiments.storage.parquet import write_parquet
from experiments.trained import open_run, streaming

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("standard_promotion", "cache")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("encoded") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        mnist.run(small(epochs=1), workdir)
    return workdir


@pytest.fixture(scope="module")
def run(workdir):
    return open_run(workdir)


def run_encode(workdir, output, *arguments):
    return encode.main([f"--workdir={workdir}", f"--output={output}", *arguments])


def arrays(path):
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


@pytest.fixture(scope="module")
def codes(workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "codes.npz"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert run_encode(workdir, path, "--draws=2") == DONE
    return path


def test_all_images_of_all_splits_are_there(codes, run):
    found = arrays(codes)
    splits, counts = np.unique(found["split"], return_counts=True)
    assert dict(zip(splits, counts, strict=True)) == {
        "train": 320,
        "valid": 100,
        "test": 10_000,
    }
    is_test = found["split"] == "test"
    np.testing.assert_array_equal(found["index"][is_test], np.arange(10_000))
    np.testing.assert_array_equal(found["label"][is_test], run.test.labels)
    expected = run.encode(run.test.xs)
    np.testing.assert_array_equal(found["mean"][is_test], expected.mean)
    np.testing.assert_array_equal(found["std"][is_test], expected.std)
    assert found["draws"].shape == (10_420, 2, 2)
    distance = (found["draws"] - found["mean"][:, None]) / found["std"][:, None]
    assert abs(distance.mean()) < 4.9 / distance.size**0.5
    assert abs(distance.var() - 1) < 4.9 * (2 / distance.size) ** 0.5
    assert not codes.with_name("codes.npz.chunks").exists()


def test_log_likelihoods_are_those_of_python(workdir, run, tmp_path):
    path = tmp_path / "valid.npz"
    options = "--input=valid", "--log-likelihood=20"
    assert run_encode(workdir, path, *options) == DONE
    found = arrays(path)
    expected = run.log_likelihood(run.valid.xs, num_samples=20)
    np.testing.assert_array_equal(found["log_likelihood"], expected.log_likelihood)
    np.testing.assert_array_equal(found["pareto_k"], expected.pareto_k)
    np.testing.assert_array_equal(found["label"], run.valid.labels)


@pytest.fixture
def stopped_in_chunks(monkeypatch, stop_after):
    """Chunks of 1000 rows, and a stop after three of them."""

    def write(*arguments, chunk_size):
        return streaming.write_rows(*arguments, chunk_size=min(chunk_size, 1000))

    monkeypatch.setattr(encode, "write_rows", write)
    return lambda: monkeypatch.setattr(encode, "StopRequest", lambda: stop_after(2))


def test_a_stopped_command_goes_on_to_the_same_file(
    workdir, codes, tmp_path, monkeypatch, stopped_in_chunks
):
    whole, path = tmp_path / "whole.npz", tmp_path / "codes.npz"
    assert run_encode(workdir, whole, "--draws=2") == DONE
    stopped_in_chunks()
    assert run_encode(workdir, path, "--draws=2") == STOPPED
    chunks = sorted(path.with_name("codes.npz.chunks").iterdir())
    assert len(chunks) == 3
    assert not path.exists()
    content = bytearray(chunks[1].read_bytes())
    content[100] ^= 1
    chunks[1].write_bytes(content)  # made again
    monkeypatch.setattr(encode, "StopRequest", interruption.StopRequest)
    assert run_encode(workdir, path, "--draws=2") == DONE
    assert path.read_bytes() == whole.read_bytes()
    # Where chunks end changes no value.
    for name, value in arrays(codes).items():
        np.testing.assert_array_equal(arrays(path)[name], value)


def _killed(where: str, cache: str, *arguments: str) -> None:
    """A process that is gone: a chunk is kept, the file half made, or made."""

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write(path, shapes, chunk, num, **others):
        write_npz(path, shapes, lambda i: kill() if i else chunk(i), num, **others)

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_num_cpu_devices", 8)  # part of a compiled program's name
    put, write_npz = Chunks.put, streaming.write_npz
    if where == "chunk":
        Chunks.put = lambda *of: kill(put(*of))
    elif where == "file":
        streaming.write_npz = write
    else:
        Chunks.remove = kill
    encode.main(arguments)


@pytest.mark.parametrize(
    ("where", "num_chunks"), [("chunk", 1), ("file", 3), ("end", 3)]
)
def test_after_kill_9_the_same_command_makes_the_same_file(
    where, num_chunks, workdir, codes, cache, tmp_path
):
    path = tmp_path / "codes.npz"
    arguments = f"--workdir={workdir}", f"--output={path}", "--draws=2"
    processes = multiprocessing.get_context("spawn")
    process = processes.Process(target=_killed, args=(where, cache, *arguments))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    chunks = list(path.with_name("codes.npz.chunks").glob("*-00000?-*.npz"))
    assert len(chunks) == num_chunks
    assert path.exists() == (where == "end")
    assert encode.main(arguments) == DONE
    assert path.read_bytes() == codes.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["codes.npz"]


def test_what_is_there_is_not_done_again_nor_written_over(
    workdir, codes, tmp_path, capsys
):
    path = shutil.copy(codes, tmp_path / "codes.npz")
    assert run_encode(workdir, path, "--draws=2") == DONE
    assert "was there already" in capsys.readouterr().out
    assert run_encode(workdir, path, "--draws=1") == USAGE
    assert "is of another run, checkpoint, input or option" in capsys.readouterr().err
    path.write_bytes(b"something else")
    assert run_encode(workdir, path, "--draws=2") == USAGE
    assert path.read_bytes() == b"something else"


def test_images_of_ones_own_are_white_from_128_on(workdir, run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "mine.npy", images)
    path = tmp_path / "mine.npz"
    assert run_encode(workdir, path, f"--input={tmp_path / 'mine.npy'}") == DONE
    found, expected = arrays(path), run.encode(images >= 128)
    np.testing.assert_array_equal(found["mean"], expected.mean)
    assert "label" not in found
    assert set(found["split"]) == {"mine.npy"}


def test_parquet_has_the_same_columns(workdir, codes, tmp_path):
    path = tmp_path / "codes.parquet"
    assert run_encode(workdir, path, "--draws=2") == DONE
    table = pyarrow.parquet.read_table(path)
    for name, value in arrays(codes).items():
        if name != "about":
            np.testing.assert_array_equal(table[name].to_pylist(), value)
    assert run_encode(workdir, path, "--draws=2") == DONE
    for array in ("mean", "draws"):
        pixels = [tmp_path / f"{array}-of-{kind}.npz" for kind in ("parquet", "npz")]
        for file, output in zip((path, codes), pixels, strict=True):
            assert run_decode(workdir, file, output, f"--array={array}") == DONE
        np.testing.assert_array_equal(*(arrays(file)["mean"] for file in pixels))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--output=codes.csv", "ends in .npz or .parquet"),
        ("--input=train,nothing", "each once, or one file"),
        ("--input=test,test", "each once, or one file"),
        ("--input=missing.png", "missing.png does not exist"),
    ],
)
def test_wrong_usage_of_encode_is_one_line(
    workdir, capsys, tmp_path, argument, message
):
    assert run_encode(workdir, tmp_path / "codes.npz", argument) == USAGE
    assert message in capsys.readouterr().err


def run_decode(workdir, file, output, *arguments):
    return decode.main(
        [f"--workdir={workdir}", f"--input={file}", f"--output={output}", *arguments]
    )


def test_codes_become_pixels(workdir, codes, run, tmp_path):
    path = tmp_path / "images.npz"
    np.save(tmp_path / "few.npy", arrays(codes)["mean"][:7])
    assert run_decode(workdir, tmp_path / "few.npy", path) == DONE
    found, expected = arrays(path), run.decode(arrays(codes)["mean"][:7])
    np.testing.assert_array_equal(found["mean"], expected.mean)
    np.testing.assert_array_equal(found["std"], expected.std)
    assert run_decode(workdir, codes, tmp_path / "codes.png") == DONE
    assert (tmp_path / "codes.png").read_bytes()[1:4] == b"PNG"


def test_draws_of_codes_become_pixels(workdir, codes, run, tmp_path):
    draws = arrays(codes)["draws"][:5]
    np.savez(tmp_path / "few.npz", draws=draws)
    path = tmp_path / "images.npz"
    assert run_decode(workdir, tmp_path / "few.npz", path, "--array=draws") == DONE
    expected = run.decode(draws.reshape(10, 2)).mean.reshape(5, 2, 28, 28)
    np.testing.assert_array_equal(arrays(path)["mean"], expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mean": np.zeros((2, 3), np.float32)}, "shape [n, 2] or [n, S, 2]"),
        ({"mean": np.full((2, 2), np.nan, np.float32)}, "expected finite numbers"),
        ({"mean": np.zeros((2, 2), int)}, "expected finite numbers"),
        ({"codes": np.zeros((2, 2))}, "no array 'mean', but codes: name one with"),
        (None, "cannot be read as codes"),
    ],
)
def test_wrong_codes_are_one_line(workdir, capsys, tmp_path, content, message):
    files = [tmp_path / "codes.npz", tmp_path / "codes.parquet"]
    for file in files:
        if content is None:
            file.write_bytes(b"PK nothing")
        elif file.suffix == ".npz":
            np.savez(file, **content)
        else:
            write_parquet(file, iter([content]), {})
        assert run_decode(workdir, file, tmp_path / "images.npz") == USAGE
        assert message in capsys.readouterr().err
