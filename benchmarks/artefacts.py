"""Exported artefacts in a virtual environment with jax alone, beside the program.

    python -m benchmarks.artefacts --workdir=runs/DIR     # two minutes on two cores

It exports a trained run, makes a virtual environment, installs jax there and nothing
else, and calls every function in a process of that environment, with the keys and the
test images that the program itself uses. It prints the sizes of the files, whether the
outputs have the bits of the program's, and milliseconds a call: medians after a
warm-up, the two processes in turn, from arrays of the host to arrays that are ready.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from benchmarks.timing import seconds_of
from experiments import export
from experiments.evaluation.estimators import importance
from experiments.evaluation.kinds import Estimator
from experiments.evaluation.points import evenly_spaced, point_evaluator
from experiments.keys import Stream, stream_key
from experiments.training.opened import Opened, load_run

SIZES = {
    "encode": (1, 100, 1000),
    "decode": (1, 100, 1000),
    "sample": (1, 100, 1000),
    "log_likelihood": (1, 10),
}
# Calls that take a second are few.
LONG = {"log_likelihood": 5}

# Makes a call for each line that it reads and prints its seconds; then the outputs.
ALONE = """
import sys, time
began = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import jax
import numpy as np
from load import load
imported = time.perf_counter()
model = load()
loaded = time.perf_counter()
print(imported - began, loaded - imported, sys.modules["flatbuffers"].__file__)
with np.load(sys.argv[2]) as stored:
    inputs, found = {name: stored[name] for name in stored.files}, {}
for line in sys.stdin:
    name, size = line.split()
    own = [inputs[key][: int(size)] for key in sorted(inputs) if key.startswith(name)]
    began = time.perf_counter()
    outputs = jax.block_until_ready(getattr(model, name)(*own))
    print(time.perf_counter() - began)
    found |= {f"{name} {size} {key}": np.asarray(v) for key, v in outputs.items()}
np.savez(sys.argv[3], **found)
"""


def make_environment(folder: Path) -> Path:
    """A virtual environment with this version of jax, and what that brings."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-I", "-m", "pip"]
    install = [*pip, "install", "--quiet", f"jax=={jax.__version__}"]
    subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
    listed = [*pip, "list", "--format=freeze"]
    said = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    print(f"the environment has {', '.join(said.split())}")
    return python


def make_estimator(opened: Opened, num_samples: int) -> Estimator:
    """log p(x) as `experiments.mnist` estimates it."""
    return importance(
        opened.program.likelihood_model,
        num_samples=num_samples,
        chunk_size=opened.config.eval.chunk_size,
        batch_size=max(SIZES["log_likelihood"]),
    )


def make_inputs(opened: Opened) -> dict[str, list[np.ndarray]]:
    """Test images, and keys and draws of the program's report and evaluation."""
    program, largest = opened.program, max(map(max, SIZES.values()))
    indices = evenly_spaced(len(program.test), largest)
    images = np.asarray(jax.vmap(program.to_input)(program.test[indices]))
    pictures = jax.random.split(stream_key(Stream.PRIOR_SAMPLES), largest)
    stream = stream_key(Stream.LOG_LIKELIHOOD)
    keys = jax.vmap(lambda i: jax.random.fold_in(stream, i))(jnp.asarray(indices))
    zs = np.asarray(jax.jit(jax.vmap(prior_of(opened).sample))(pictures))
    return {
        "encode": [images],
        "decode": [zs],
        "sample": [np.asarray(jax.random.key_data(pictures))],
        "log_likelihood": [np.asarray(jax.random.key_data(keys)), images],
    }


def prior_of(opened: Opened) -> Any:
    """p(z)."""
    z = jnp.zeros(opened.config.latent_dim)
    return aevb.prior_or_normal(opened.program.model.prior(opened.params), z)


def make_calls(opened: Opened, num_samples: int) -> dict[str, Callable[..., Any]]:
    """The program's own functions of batches, jitted."""
    model, estimator = opened.program.model, make_estimator(opened, num_samples)
    params, prior = jax.device_put((opened.params, prior_of(opened)))

    def parameters(distribution: Any) -> dict[str, jax.Array]:
        return vars(distribution) | {"mean": distribution.mean}

    def encode(params: Any, x: jax.Array) -> dict[str, jax.Array]:
        return parameters(model.encode(params, x))

    def decode(params: Any, z: jax.Array) -> dict[str, jax.Array]:
        return parameters(model.decode(params, z))

    def sample(both: Any, data: jax.Array) -> dict[str, jax.Array]:
        params, prior = both
        key = jax.random.wrap_key_data(data)
        z = prior.sample(key)
        p: Any = model.decode(params, z)
        x = p.sample(jax.random.fold_in(key, jnp.uint32(0xFFFFFFFF)))
        return {"z": z, "mean": p.mean, "x": x}

    def log_likelihood(
        params: Any, data: jax.Array, x: jax.Array
    ) -> dict[str, jax.Array]:
        return estimator.function(params, jax.random.wrap_key_data(data), x)

    def bound(function: Callable[..., Any], first: Any) -> Callable[..., Any]:
        num = 2 if function is log_likelihood else 1
        call = jax.jit(jax.vmap(function, (None, *[0] * num)))
        return lambda *inputs: call(first, *inputs)

    return {
        "encode": bound(encode, params),
        "decode": bound(decode, params),
        "sample": bound(sample, (params, prior)),
        "log_likelihood": bound(log_likelihood, params),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the files, then a line for each function and size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--importance-samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = {"workdir": args.workdir, "out": folder / "artefacts"}
        flags["importance-samples"] = args.importance_samples
        began = time.perf_counter()
        if code := export.main([f"--{flag}={value}" for flag, value in flags.items()]):
            raise SystemExit(code)
        print(f"exported in {time.perf_counter() - began:.1f} s")
        compare(folder, make_environment(folder / "environment"), args)


def compare(folder: Path, python: Path, args: argparse.Namespace) -> None:
    """Times the calls of both processes in turn, and compares their outputs."""
    opened = load_run(args.workdir)
    inputs, calls = make_inputs(opened), make_calls(opened, args.importance_samples)
    paths = [folder / name for name in ("artefacts", "inputs.npz", "found.npz")]
    arrays = {
        f"{name} {i}": array
        for name, own in inputs.items()
        for i, array in enumerate(own)
    }
    np.savez(paths[1], **arrays)
    rows, expected = [], {}
    command = [python, "-I", "-u", "-c", ALONE, *paths]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=folder, **pipes) as alone:
        imported, loaded, reader = alone.stdout.readline().split()
        print(f"jax imported in {float(imported):.2f} s, artefacts loaded in ", end="")
        print(f"{float(loaded):.2f} s with {reader}")
        for name, size in [(name, n) for name, sizes in SIZES.items() for n in sizes]:
            call = partial(calls[name], *(array[:size] for array in inputs[name]))
            outputs = call()
            expected |= {f"{name} {size} {key}": v for key, v in outputs.items()}

            def ask(line: str = f"{name} {size}\n") -> float:
                alone.stdin.write(line)
                alone.stdin.flush()
                return float(alone.stdout.readline())

            first, ours, theirs = ask(), [], []
            for _ in range(LONG.get(name, args.repeats)):
                time.sleep(0.05)  # the threads of the last one may still be spinning
                ours.append(1e3 * seconds_of(call))
                time.sleep(0.05)
                theirs.append(1e3 * ask())
            medians = statistics.median(ours), statistics.median(theirs)
            rows.append((name, size, first, *medians))
        alone.stdin.close()
    with np.load(paths[-1]) as stored:
        found = {name: stored[name] for name in stored.files}

    size = max(SIZES["log_likelihood"])
    indices = evenly_spaced(len(opened.program.test), max(map(max, SIZES.values())))
    estimator = make_estimator(opened, args.importance_samples)
    evaluate = point_evaluator(estimator, opened.program.to_input)
    values = evaluate(opened.params, opened.program.test, indices[:size]).values
    evaluated = {f"log_likelihood {size} {key}": v for key, v in values.items()}

    def bits(expected: dict[str, Any], start: str = "") -> str:
        own = {name: v for name, v in expected.items() if name.startswith(start)}
        same = all(np.array_equal(found[name], value) for name, value in own.items())
        return f"{len(own)} outputs {'the same' if same else 'DIFFER'}"

    print(
        "function         b   first call, s   program, ms   artefact, ms   ratio  bits"
    )
    for name, count, first, ours, theirs in rows:
        print(
            f"{name:14} {count:>4}   {first:13.2f}   {ours:11.3f}   {theirs:12.3f}   "
            f"{theirs / ours:5.2f}  {bits(expected, f'{name} {count} ')}"
        )
    print(f"experiments.mnist's evaluation of {size} of the images: {bits(evaluated)}")


if __name__ == "__main__":
    main()
