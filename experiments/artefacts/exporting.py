"""The artefacts of a trained run as bytes, with the manifest that describes them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import flatbuffers
import jax
import numpy as np
from jax import export

from experiments.artefacts import loader
from experiments.artefacts.folder import FILES, SUMS
from experiments.artefacts.functions import Function, functions
from experiments.storage.manifest import make_manifest
from experiments.storage.workdir import same_work
from experiments.training.opened import Opened

__all__ = ["PLATFORMS", "artefacts", "lower"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""What artefacts may be lowered for; one of them can be for all."""

_LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"
_NUM_REFERENCE = 3


def artefacts(
    opened: Opened,
    manifest: Mapping[str, Any],
    *,
    num_samples: int,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, bytes]:
    """Exports every function that a run has.

    The same run, code and versions give the same bytes: no clock and no path is in
    them.

    Args:
      opened: the run.
      manifest: its `run.json`.
      num_samples: K of log p(x).
      platforms: of `PLATFORMS`.

    Returns:
      The files by name; the last one, SHA256SUMS, has the sums of the others, and
      `sha256sum -c` reads it.
    """
    made, left_out = functions(opened, num_samples=num_samples)
    weights: dict[str, np.ndarray] = {}
    files: dict[str, bytes] = {}
    described = {}
    for function in made:
        weights |= function.weights
        exported = lower(function, platforms)
        file = f"{function.name}.jaxexport"
        files[file] = bytes(exported.serialize())
        described[function.name] = _described(function, file, exported)
    convention = exported.calling_convention_version
    files |= {
        "weights.npz": _npz(weights),
        "reference.npz": _npz(_reference(opened, made)),
        "load.py": Path(loader.__file__).read_bytes(),
        "flatbuffers.zip": _flatbuffers(),
        "LICENSE": _LICENSE.read_bytes(),
    }
    files["README.txt"] = _readme(described).encode()
    whole = {
        "about": "a trained variational autoencoder as jax.export artefacts; load.py "
        "runs them",
        "platforms": list(platforms),
        "jax": {
            "version": jax.__version__,
            "calling_convention": convention,
            "minimum": jax.__version__,
            "compatibility": "jax promises that the minimum, and its versions of half "
            "a year after it, read these artefacts; load.py tries an older one",
        },
        "made_with": _made_with(),
        "run": {
            "step": opened.step,
            "config": same_work(opened.config.to_dict()),
            "data": {"name": opened.dataset.name, "sha256": opened.dataset.sha256},
            "image_shape": list(opened.dataset.image_shape),
            "trained_with": {
                name: manifest.get(name) for name in ("code_sha256", "git", "packages")
            },
        },
        "functions": described,
        "left_out": left_out,
        "weights": {
            name: {"shape": list(value.shape), "dtype": value.dtype.name}
            for name, value in weights.items()
        },
        "files": {
            name: {
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "meaning": FILES[name],
            }
            for name, content in files.items()
        },
        "license": "load.py and flatbuffers.zip (Google) are under the Apache License "
        "2.0, in LICENSE; the weights belong to who trained them",
    }
    files["manifest.json"] = (
        json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    ).encode()
    sums = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in files.items()
    ]
    return files | {SUMS: "".join(sums).encode()}


def lower(function: Function, platforms: Sequence[str]) -> export.Exported:
    """Lowers a function for several platforms and any number of datapoints.

    Args:
      function: of the run.
      platforms: of `PLATFORMS`.
    """

    def call(weights: Any, *inputs: jax.Array) -> dict[str, jax.Array]:
        return function.call(weights, *inputs)

    call.__name__ = function.name
    (b,) = export.symbolic_shape("b")
    arguments = [
        jax.ShapeDtypeStruct((b, *about.shape), about.dtype)
        for about in function.inputs.values()
    ]
    with _no_locations():
        return export.export(jax.jit(call), platforms=platforms)(
            jax.eval_shape(lambda: function.weights), *arguments
        )


@contextmanager
def _no_locations() -> Iterator[None]:
    """Paths and lines of this checkout are no part of an artefact."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _described(
    function: Function, file: str, exported: export.Exported
) -> dict[str, Any]:
    shapes = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "file": file,
        **function.about,
        "inputs": {
            name: {
                "shape": ["b", *about.shape],
                "dtype": about.dtype,
                "meaning": about.meaning,
                **about.values,
            }
            for name, about in function.inputs.items()
        },
        "outputs": {
            name: {
                "shape": [
                    d if isinstance(d, int) else str(d) for d in shapes[name].shape
                ],
                "dtype": shapes[name].dtype.name,
                **about,
            }
            for name, about in function.outputs.items()
        },
        "weights": sorted(function.weights),
    }


def _reference(opened: Opened, made: Sequence[Function]) -> dict[str, np.ndarray]:
    """Inputs that the model makes itself, and what the program has for them."""
    by_name = {function.name: function for function in made}
    keys = loader.keys(0, _NUM_REFERENCE)
    sample = by_name["sample"]
    draws = jax.jit(sample.call)(sample.weights, keys)
    # Draws of a Gaussian may be outside 0 to 1, where no pixel is.
    xs = draws["x" if opened.config.likelihood == "bernoulli" else "mean"]
    inputs = {"keys": keys, "zs": draws["z"], "xs": xs}
    found: dict[str, np.ndarray] = {}
    for name, function in by_name.items():
        own = {argument: inputs[argument] for argument in function.inputs}
        outputs = jax.jit(function.call)(function.weights, *own.values())
        found |= {f"{name}/inputs/{key}": np.asarray(v) for key, v in own.items()}
        found |= {f"{name}/outputs/{key}": np.asarray(v) for key, v in outputs.items()}
    return found


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _flatbuffers() -> bytes:
    """The package `flatbuffers` as a zip file that Python imports from."""
    folder, buffer = Path(flatbuffers.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.glob("*.py")):
            # An entry of this kind has the date 1980 whenever it is made.
            entry = zipfile.ZipInfo(f"flatbuffers/{path.name}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _made_with() -> dict[str, Any]:
    """The parts of a manifest that an artefact's bits depend on."""
    found = make_manifest()
    names = ("code_sha256", "git", "python", "platform", "device_kind", "cpu")
    try:
        version = metadata.version("aevb")
    except metadata.PackageNotFoundError:  # a clone that is not installed
        version = "not installed"
    packages = found["packages"] | {"flatbuffers": metadata.version("flatbuffers")}
    return (
        {"aevb": version, "packages": packages}
        | {name: found[name] for name in names}
        | {"xla_flags": found["xla_flags"]}
    )


def _readme(described: Mapping[str, Any]) -> str:
    calls = [
        line
        for name, about in described.items()
        for line in (
            f"    model.{name}({', '.join(about['inputs'])})"
            f"    # {_shapes(about['inputs'])}",
            f"    # {_shapes(about['outputs'])}",
        )
    ]
    return "\n".join(
        [
            "A trained variational autoencoder, as jax.export artefacts.",
            "",
            "    pip install jax   # alone; jax[cuda12] for a GPU, jax[tpu] for a TPU",
            "    python load.py    # checks every file, and runs every function",
            "",
            "    from load import keys, load",
            "    model = load()",
            *calls,
            "",
            "manifest.json says what each array is, and in which unit. The sums find a",
            "damaged file, not a malicious one: load what you trust.",
            "",
        ]
    )


def _shapes(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} [{', '.join(map(str, about['shape']))}]"
        for name, about in values.items()
    )
