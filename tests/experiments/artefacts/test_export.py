"""`experiments.export`: the program's numbers, in a process that has jax alone."""

import errno
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configurations import small
from exported import make_jax_alone, run_alone, untrained

import aevb
from experiments import export
from experiments.artefacts import folder as folders
from experiments.artefacts.exporting import PLATFORMS, artefacts, lower
from experiments.artefacts.functions import functions
from experiments.artefacts.loader import ArtefactError, keys, load
from experiments.errors import StoppedError
from experiments.evaluation.estimators import importance
from experiments.evaluation.points import point_evaluator
from experiments.keys import Stream, stream_key
from experiments.storage.atomic import read_json
from experiments.storage.workdir import held
from experiments.training.opened import Opened, load_run
from experiments.training.runner import run

# optax.adam raises a float to an integer power.
pytestmark = pytest.mark.usefixtures("cache", "standard_promotion")

NUM_SAMPLES, SIZES = 12, (1, 3)
ROOT = Path(__file__).parents[3]

# Runs every function on the inputs of a file, and says what could be imported.
ALONE = """
from importlib.util import find_spec
import numpy as np
sys.path.append(sys.argv[1])
from load import load, main
model = load()
inputs, found = np.load(sys.argv[2]), {}
for size in map(int, sys.argv[4:]):
    own = {name: inputs[f"{name} {size}"] for name in ("xs", "zs", "keys", "pictures")}
    for name, arguments in {
        "encode": [own["xs"]],
        "decode": [own["zs"]],
        "sample": [own["pictures"]],
        "log_likelihood": [own["keys"], own["xs"]],
    }.items():
        for output, value in getattr(model, name)(*arguments).items():
            found[f"{name} {output} {size}"] = np.asarray(value)
np.savez(sys.argv[3], **found)
others = ("aevb", "experiments", "flax", "optax", "absl", "orbax", "flatbuffers", "jax")
print(sys.modules["flatbuffers"].__file__, *filter(find_spec, others))
raise SystemExit(main([sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def jax_alone(tmp_path_factory) -> Path:
    return make_jax_alone(tmp_path_factory.mktemp("jax_alone"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, cache, stop_after) -> Path:
    """Of a run that a signal stopped after its first epoch."""
    workdir = tmp_path_factory.mktemp("exported") / "run"
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        pytest.raises(StoppedError),
        held(workdir),
        stop_after(1) as stop,
    ):
        run(small(), workdir, stop)
    return workdir


@pytest.fixture(scope="module")
def finished(workdir) -> Path:
    assert export.main(command(workdir)) == 0
    return workdir / "artefacts"


def command(workdir: Path, *flags: str) -> list[str]:
    return [f"--workdir={workdir}", f"--importance-samples={NUM_SAMPLES}", *flags]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(capsys, arguments: list[str]) -> str:
    assert export.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def of_the_program(opened: Opened, size: int) -> tuple[dict, dict]:
    """Inputs, and what the program has for them: of its report and its evaluation."""
    program, params, model = opened.program, opened.params, opened.program.model
    indices = np.arange(size) * 7
    stream = stream_key(Stream.LOG_LIKELIHOOD)
    own = jax.vmap(lambda i: jax.random.fold_in(stream, i))(jnp.asarray(indices))
    pictures = jax.random.split(stream_key(Stream.PRIOR_SAMPLES), size)
    prior = aevb.prior_or_normal(model.prior(params), jnp.zeros(2))
    zs = jax.vmap(prior.sample)(pictures)
    xs = jax.vmap(program.to_input)(jnp.asarray(program.test[indices]))

    @jax.jit
    def decode(params, zs, keys):
        def one(z, key):
            p = model.decode(params, z)
            x = p.sample(jax.random.fold_in(key, jnp.uint32(2**32 - 1)))
            return p.logits, p.mean, x

        return jax.vmap(one)(zs, keys)

    encode = jax.jit(jax.vmap(model.encode, (None, 0)))
    estimator = importance(
        program.likelihood_model,
        num_samples=NUM_SAMPLES,
        chunk_size=opened.config.eval.chunk_size,
        batch_size=size,
    )
    measured = point_evaluator(estimator, program.to_input)
    values = measured(params, program.test, indices).values
    q, (logits, mean, x) = encode(params, xs), decode(params, zs, pictures)
    expected = {
        "encode loc": q.loc,
        "encode log_scale": q.log_scale,
        "encode mean": q.loc,
        "encode std": jax.jit(jnp.exp)(q.log_scale),
        "decode logits": logits,
        "decode mean": mean,
        "sample z": zs,
        "sample mean": mean,
        "sample x": x,
        **{f"log_likelihood {name}": value for name, value in values.items()},
    }
    inputs = {
        "xs": xs,
        "zs": zs,
        "keys": jax.random.key_data(own),
        "pictures": jax.random.key_data(pictures),
    }
    return inputs, expected


@pytest.mark.default_flags
def test_a_process_with_jax_alone_has_the_bits_of_the_program(
    workdir, finished, jax_alone, tmp_path
):
    opened, inputs, expected = load_run(workdir), {}, {}
    for size in SIZES:
        own, found = of_the_program(opened, size)
        inputs |= {f"{name} {size}": np.asarray(v) for name, v in own.items()}
        expected |= {f"{name} {size}": np.asarray(v) for name, v in found.items()}
    moved = shutil.copytree(finished, tmp_path / "moved")
    np.savez(tmp_path / "inputs.npz", **inputs)
    paths = moved, tmp_path / "inputs.npz", tmp_path / "found.npz"
    said, *check = run_alone(jax_alone, ALONE, *paths, *SIZES).splitlines()
    place, *importable = said.split()
    assert place.startswith(str(moved / "flatbuffers.zip"))
    assert importable == ["flatbuffers", "jax"]
    assert check[0] == f"{moved}: every file is as it was written"
    assert all(line.endswith("the same bits") for line in check[2:])
    assert len(check) == 2 + len(expected) // len(SIZES)
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_the_same_run_gives_the_same_bytes(workdir, finished, tmp_path, capsys):
    """Of a copy, too, that was moved."""
    moved = shutil.copytree(workdir, tmp_path / "moved")
    shutil.rmtree(moved / "artefacts")
    assert export.main(command(moved, f"--out={tmp_path / 'out'}")) == 0
    assert "step 10 for cpu, cuda, tpu" in capsys.readouterr().out
    again = files(tmp_path / "out")
    assert again == files(finished)
    for name, content in again.items():
        for path in (ROOT, workdir, Path.home()):
            assert str(path).encode() not in content, name


def test_the_manifest_describes_what_is_there(workdir, finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json", "SHA256SUMS"} == set(
        files(finished)
    )
    assert manifest["run"]["step"] == 10
    run = read_json(workdir / "run.json")
    assert manifest["run"]["data"]["sha256"] == run["data_sha256"]
    assert manifest["run"]["trained_with"]["code_sha256"] == run["code_sha256"]
    model = load(finished)
    xs = np.zeros((2, 784), np.float32)
    inputs = {
        "encode": [xs],
        "decode": [xs[:, :2]],
        "sample": [keys(0, 2)],
        "log_likelihood": [keys(0, 2), xs],
    }
    assert list(manifest["functions"]) == list(inputs)
    for name, about in manifest["functions"].items():
        outputs = getattr(model, name)(*inputs[name])
        assert set(outputs) == set(about["outputs"])
        for output, value in outputs.items():
            described = about["outputs"][output]
            assert ["b", *value.shape[1:]] == described["shape"]
            assert value.dtype == described["dtype"]
            assert described["meaning"]
    nats = manifest["functions"]["log_likelihood"]["outputs"]
    assert nats["log_likelihood"]["unit"] == nats["std_error"]["unit"] == "nats"
    with np.load(finished / "weights.npz") as weights:
        assert set(weights) == set(manifest["weights"])
        for name, value in weights.items():
            assert list(value.shape) == manifest["weights"][name]["shape"]


# ---- other models ----


def check_lowered(exported: jax.export.Exported, *, is_bfloat16: bool = False) -> None:
    """For every platform, without the host, each product with its precision."""
    assert exported.platforms == PLATFORMS
    text = exported.mlir_module()
    assert "callback" not in text
    # `shape_assertion` is jax.export's own check that b is at least 1.
    known = {"shape_assertion", "cu_threefry2x32_ffi", "Sharding"}
    assert set(re.findall(r"custom_call @(\w+)", text)) <= known
    for host in ("infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert host not in text
    products = re.findall(r"stablehlo.dot_general .*", text)
    assert products
    for product in products:
        said = "xbf16>" if is_bfloat16 else "precision = [HIGHEST, HIGHEST]"
        assert said in product


def check_same(exported: jax.export.Exported, *arguments: object, **expected: object):
    found = jax.jit(exported.call)(*arguments)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.default_flags
@pytest.mark.parametrize(
    ("changes", "names_of_q", "names_of_p"),
    [
        (
            {"posterior": "gamma", "prior_shape": 2.3},
            ("concentration", "rate"),
            ("logits",),
        ),
        (
            {
                "likelihood": "gaussian",
                "data.binarization": "grey",
                "data.scale": 256,
                "output_bias_from_data": False,
            },
            ("loc", "log_scale"),
            ("loc", "log_scale"),
        ),
    ],
    ids=["gamma", "gaussian"],
)
def test_other_families_have_the_bits_of_the_program(changes, names_of_q, names_of_p):
    opened = untrained(**changes)
    program, params, model = opened.program, opened.params, opened.program.model
    made, left_out = functions(opened, num_samples=NUM_SAMPLES)
    assert not left_out
    encode, decode, sample = (lower(function, PLATFORMS) for function in made[:3])
    for exported in (encode, decode, sample):
        check_lowered(exported)
    xs = program.to_input(jnp.asarray(program.test[:3]))
    zs = jnp.abs(jax.random.normal(jax.random.key(0), (3, 2)))
    q = jax.jit(jax.vmap(model.encode, (None, 0)))(params, xs)
    p = jax.jit(jax.vmap(model.decode, (None, 0)))(params, zs)
    own = jax.random.split(jax.random.key(1), 3)
    prior = aevb.prior_or_normal(model.prior(params), jnp.zeros(2))
    draws = jax.jit(jax.vmap(type(prior).sample, (None, 0)))(prior, own)
    check_same(encode, made[0].weights, xs, **{n: getattr(q, n) for n in names_of_q})
    check_same(decode, made[1].weights, zs, **{n: getattr(p, n) for n in names_of_p})
    check_same(sample, made[2].weights, jax.random.key_data(own), z=draws)


def test_the_predictive_log_likelihood_is_the_one_of_the_program():
    opened = untrained(weights="posterior_all", weight_prior=1.0)
    program = opened.program
    made, _ = functions(opened, num_samples=NUM_SAMPLES)
    assert made[0].about["weights_are"] == "the means of q(theta)"
    assert "predictive" in made[-1].about["weights_are"]
    estimator = importance(
        program.likelihood_model,
        num_samples=NUM_SAMPLES,
        chunk_size=opened.config.eval.chunk_size,
        batch_size=2,
    )
    measured = point_evaluator(estimator, program.to_input)
    values = measured(opened.params, program.test, np.arange(2)).values
    stream = stream_key(Stream.LOG_LIKELIHOOD)
    own = jax.vmap(lambda i: jax.random.fold_in(stream, i))(jnp.arange(2))
    exported = lower(made[-1], PLATFORMS)
    check_lowered(exported)
    inputs = jax.random.key_data(own), program.test[:2].astype(np.float32)
    check_same(exported, made[-1].weights, *inputs, **values)


def test_products_are_those_of_training_but_of_log_p_x():
    made, _ = functions(untrained(precision="bfloat16"), num_samples=NUM_SAMPLES)
    for function, precision in ((made[0], "bfloat16"), (made[-1], "float32")):
        assert function.about["precision"] == precision
        exported = lower(function, PLATFORMS)
        check_lowered(exported, is_bfloat16=precision == "bfloat16")


def test_a_run_of_mcem_has_no_encoder_and_no_proposal(tmp_path):
    made = artefacts(untrained(algorithm="mcem"), {}, num_samples=NUM_SAMPLES)
    folders.write_folder(tmp_path / "artefacts", made)
    model, xs = load(tmp_path / "artefacts"), np.zeros((2, 784))
    assert list(model.manifest["left_out"]) == ["encode", "log_likelihood"]
    assert not {"encode.jaxexport", "log_likelihood.jaxexport"} & set(made)
    with pytest.raises(ArtefactError, match="trained by MCEM, which has no encoder"):
        model.encode(xs)
    with pytest.raises(ArtefactError, match="and it is the proposal"):
        model.log_likelihood(keys(0, 2), xs)
    assert model.sample(keys(0, 2))["x"].shape == (2, 784)


def test_grey_pixels_under_a_bernoulli_have_no_log_likelihood():
    opened = untrained(**{"data.binarization": "grey"})
    made, left_out = functions(opened, num_samples=NUM_SAMPLES)
    assert [function.name for function in made] == ["encode", "decode", "sample"]
    assert made[0].inputs["xs"].meaning.endswith("each byte / 255")
    assert "train with --config.data.binarization" in left_out["log_likelihood"]


# ---- what is refused, and what interrupts ----


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--platforms=gpu"], "argument --platforms: 'gpu' is none of cpu, cuda, tpu"),
        (["--platforms=cpu,,tpu"], "'' is none of cpu, cuda, tpu"),
        (["--importance-samples=0"], "'0' is not a whole number, 1 or more"),
        (["--step=first"], "expected last, best or a number"),
        (["--samples=3"], "unrecognized arguments: --samples=3"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(tmp_path, capsys, flags, said):
    assert said in refused(capsys, [f"--workdir={tmp_path}", *flags])
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_refused(workdir, tmp_path, capsys):
    (tmp_path / "LICENSE").write_text("mine")
    (tmp_path / "thesis.tex").write_text("mine")
    said = refused(capsys, command(workdir, f"--out={tmp_path}"))
    assert "has thesis.tex, which no export wrote" in said
    assert files(tmp_path) == {"LICENSE": b"mine", "thesis.tex": b"mine"}
    said = refused(capsys, command(workdir, f"--out={tmp_path / 'none' / 'out'}"))
    assert "none is not a directory" in said
    said = refused(capsys, command(workdir, f"--out={tmp_path / 'LICENSE'}"))
    assert "LICENSE is a file" in said
    said = refused(capsys, [f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"])
    assert "holds no run, expected a folder with a config.json" in said


@pytest.mark.parametrize("written", [0, 1, 6, 11])
def test_an_interrupted_export_is_refused_until_it_is_repeated(
    finished, tmp_path, monkeypatch, written
):
    """Over an earlier export, whose files are whole."""
    folder = shutil.copytree(finished, tmp_path / "out")
    content = files(finished)
    count, write = 0, folders.write_atomically

    def full(path, *parts):
        nonlocal count
        count += 1
        if count > written:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, *parts)

    monkeypatch.setattr(folders, "write_atomically", full)
    with pytest.raises(folders.WorkdirError, match="No space left on device"):
        folders.write_folder(folder, content)
    with pytest.raises(ArtefactError, match="SHA256SUMS cannot be read"):
        load(folder)
    monkeypatch.undo()
    (folder / ".weights.npz.123.tmp").write_text("of a process that was killed")
    folders.write_folder(folder, content)
    assert files(folder) == content
    load(folder)
