"""`load.py`: what is damaged, or does not fit, is refused in one sentence."""

import ast
import random
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from exported import untrained
from jax import export

from experiments import verify
from experiments.artefacts import loader
from experiments.artefacts.exporting import artefacts
from experiments.artefacts.folder import FILES, SUMS, write_folder
from experiments.artefacts.loader import ArtefactError, keys, load, main

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache) -> Path:
    """The artefacts of an untrained run."""
    folder = tmp_path_factory.mktemp("artefacts") / "whole"
    write_folder(folder, artefacts(untrained(), {}, num_samples=5))
    return folder


@pytest.fixture(scope="module")
def model(whole) -> loader.Artefacts:
    return load(whole)


@pytest.fixture(scope="module")
def other(cache) -> dict[str, bytes]:
    """Another export, for the accelerators alone."""
    run = untrained(algorithm="mcem")
    return artefacts(run, {}, num_samples=5, platforms=["cuda", "tpu"])


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def test_it_imports_jax_numpy_and_the_standard_library():
    tree = ast.parse(Path(loader.__file__).read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    assert tops - sys.stdlib_module_names == {"jax", "numpy"}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_before_it_is_used(copy, name, monkeypatch, capsys):
    monkeypatch.setattr(export, "deserialize", pytest.fail)
    monkeypatch.setattr(np, "load", pytest.fail)
    content = (copy / name).read_bytes()
    generator = random.Random(name)
    damaged = [content[:-1], content + b"\n", b"", None]
    for _ in range(20):
        flipped = bytearray(content)
        flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        damaged.append(bytes(flipped))
    for other in damaged:
        (copy / name).unlink(missing_ok=True)
        if other is not None:
            (copy / name).write_bytes(other)
        with pytest.raises(ArtefactError, match=r"again$"):
            load(copy)
    assert main([str(copy)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_files_of_two_exports_are_refused(copy, other):
    (copy / "decode.jaxexport").write_bytes(other["decode.jaxexport"])
    with pytest.raises(ArtefactError, match=r"decode\.jaxexport has sha256 .*expected"):
        load(copy)
    (copy / SUMS).write_bytes(other[SUMS])
    with pytest.raises(ArtefactError, match="has sha256"):
        load(copy)


def test_sums_without_a_line_are_refused(copy):
    lines = (copy / SUMS).read_text().splitlines(keepends=True)
    for i in range(len(lines)):
        (copy / SUMS).write_text("".join(lines[:i] + lines[i + 1 :]))
        with pytest.raises(ArtefactError, match="SHA256SUMS"):
            load(copy)


def test_verify_looks_at_artefacts(copy, tmp_path):
    copy.rename(tmp_path / "artefacts")
    found = {what: whole for whole, what, _ in verify.verify(tmp_path)[0]}
    assert found["artefacts"]
    (tmp_path / "artefacts" / "weights.npz").write_bytes(b"")
    said = {what: (whole, text) for whole, what, text in verify.verify(tmp_path)[0]}
    assert not said["artefacts"][0]
    assert "weights.npz has sha256" in said["artefacts"][1]


# ---- other platforms and versions ----


def test_other_platforms_are_refused(other, tmp_path):
    write_folder(tmp_path / "out", other)
    with pytest.raises(ArtefactError, match=r"cpu here.*cuda, tpu: .*--platforms=cpu"):
        load(tmp_path / "out")


def test_a_version_that_does_not_know_the_format_is_refused(whole, monkeypatch):
    said = f"made with jax {jax.__version__} .*: export the run again"
    with monkeypatch.context() as patch:
        patch.setattr(export, "minimum_supported_calling_convention_version", 99)
        with pytest.raises(ArtefactError, match=said):
            load(whole)
    with monkeypatch.context() as patch:
        patch.setattr(export, "deserialize", lambda _: {}["version 12"])
        with pytest.raises(ArtefactError, match=f"{said}.*KeyError: 'version 12'"):
            load(whole)


def test_an_older_version_that_fails_later_is_told(copy, monkeypatch):
    class Other:
        def call(self, *_):
            raise NotImplementedError("vhlo.composite_v2")

    monkeypatch.setattr(export, "deserialize", lambda _: Other())
    with pytest.raises(NotImplementedError):
        load(copy).sample(keys(0, 1))
    monkeypatch.setattr(jax, "__version__", "0.9.2")
    with pytest.raises(ArtefactError, match=r"jax 0\.9\.2 .*or newer \(.*composite"):
        load(copy).sample(keys(0, 1))


# ---- inputs ----


X = np.zeros((2, 784), np.float32)


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [
        ("encode", [X[0]], r"xs has shape \[784\], expected \[b, 784\], x, the 28 x"),
        ("encode", [X[:, :9]], r"xs has shape \[2, 9\], expected \[b, 784\]"),
        ("encode", [X[:0]], "of encode have lengths 0: expected one length, of at"),
        ("encode", [X + 255], "1568 values such as 255.0, expected 0 to 1"),
        ("encode", [X - 0.1], "values such as -0.1"),
        ("encode", [X + np.nan], "values such as nan"),
        ("decode", [X], r"zs has shape \[2, 784\], expected \[b, 2\], z, the latent"),
        ("sample", [np.zeros((3, 2), int)], "keys has dtype int64, expected uint32"),
        ("sample", [keys(0, 1)[0]], r"keys has shape \[2\], expected \[b, 2\]"),
        ("log_likelihood", [keys(0, 2), X + 0.5], "such as 0.5, expected 0 or 1"),
        ("log_likelihood", [keys(0, 3), X], "keys and xs .* have lengths 3, 2"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model, name, inputs, said):
    with pytest.raises(ArtefactError, match=said):
        getattr(model, name)(*inputs)


def test_inputs_of_other_types_are_converted(model):
    expected = model.encode(X)["mean"]
    for xs in (X.astype(bool), X.astype(np.uint8), X.tolist(), jax.numpy.asarray(X)):
        np.testing.assert_array_equal(model.encode(xs)["mean"], expected)
    typed = jax.random.split(jax.random.key(5), 3)
    found, same = model.sample(typed), model.sample(keys(5, 3))
    np.testing.assert_array_equal(found["x"], same["x"])


def test_functions_compose_under_jit(model):
    def reconstructed(xs):
        return model.decode(model.encode(xs)["mean"])["mean"]

    found = jax.jit(reconstructed)(X)
    np.testing.assert_allclose(found, reconstructed(X), rtol=1e-6)


def test_a_function_is_compiled_once_for_each_size(whole, monkeypatch):
    deserialize, traced = export.deserialize, []

    class Counted:
        def __init__(self, content):
            self.exported = deserialize(content)

        def call(self, *arguments):
            traced.append(len(arguments[-1]))
            return self.exported.call(*arguments)

    monkeypatch.setattr(export, "deserialize", Counted)
    model = load(whole)
    for size in (4, 9, 4, 9):
        model.decode(np.full((size, 2), 0.1 * len(traced)))
    assert traced == [4, 9]


def test_the_check_tells_numbers_that_are_far(copy, capsys, monkeypatch):
    monkeypatch.setattr(loader, "_arrays", halved(loader._arrays))
    assert main([str(copy)]) == 1
    assert "expected at most" in capsys.readouterr().out


def test_numbers_that_are_none_are_the_same_bits():
    value = np.array([np.nan, -np.inf, 1.0])
    assert loader._distance(value, value.copy()) == ("the same bits", True)
    said, near = loader._distance(value + 1e-4, value)
    assert said.startswith("3.3e-05 from the program's")
    assert near
    assert not loader._distance(np.array([0.0, -np.inf, 1.0]), value)[1]


def halved(arrays):
    def read(content: bytes) -> dict:
        return {
            name: value / 2 if "kernel" in name else value
            for name, value in arrays(content).items()
        }

    return read
