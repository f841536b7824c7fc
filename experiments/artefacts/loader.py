"""Runs a trained variational autoencoder from the files beside this one.

    from load import keys, load

    model = load("artefacts")                 # every file's sha256 is checked
    q = model.encode(xs)                      # xs [b, D]: the parameters of q(z|x)
    p = model.decode(q["mean"])               # zs [b, J]: the parameters of p(x|z)
    draws = model.sample(keys(0, 100))        # 100 of z, of the mean of p(x|z), of x
    found = model.log_likelihood(keys(1, len(xs)), xs)    # log p(x) and its errors

jax is all that this needs (`pip install jax`, on a CPU, a GPU or a TPU): it needs no
code that trained the model. Every function takes and returns arrays with a leading axis
b of datapoints, any b of at least 1, and is compiled once for each b. manifest.json has
the shape, the unit and the meaning of each array.

    python load.py [FOLDER]

checks the files, runs every function, and compares with the numbers that the program
had where the artefacts were made: on such a machine they are the same bits.
"""

import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

__all__ = ["ArtefactError", "Artefacts", "keys", "load", "main", "read_files"]

_SUMS = "SHA256SUMS"
_AGAIN = "copy the folder again, or export the run again"
# Of the check: how far the mean of an output may be from the program's, relative to it.
_TOLERANCE = 1e-3


class ArtefactError(Exception):
    """Artefacts that cannot be used, or an input that is wrong: one sentence."""


class Artefacts:
    """The functions of a trained model; `load` makes it.

    A function that the model does not have raises an `ArtefactError` that says why. The
    functions can be called inside `jax.jit`, where the values of an input are not
    looked at. They have no gradients, and a batch axis already, so no `jax.vmap`.

    Attributes:
      manifest: manifest.json.
      weights: `{name: array}`.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        weights: dict[str, jax.Array],
        calls: dict[str, Callable[..., Any]],
    ) -> None:
        """Takes what `load` has read; `calls` is `{name: call(weights, *inputs)}`."""
        self.manifest = manifest
        self.weights = weights
        self._calls = calls

    def encode(self, xs: Any) -> dict[str, jax.Array]:
        """The parameters of q(z|x).

        Args:
          xs: `[b, D]`, from 0 to 1; as the manifest says, binary or grey.

        Returns:
          Each parameter by its name, "mean", and the standard deviation "std" where it
          has a closed form: `[b, J]`.

        Raises:
          ArtefactError: xs has another shape, or a value outside 0 to 1.
        """
        return self._call("encode", xs)

    def decode(self, zs: Any) -> dict[str, jax.Array]:
        """The parameters of p(x|z).

        Args:
          zs: `[b, J]`.

        Returns:
          Each parameter by its name, and "mean", of binary pixels P(x = 1): `[b, D]`.

        Raises:
          ArtefactError: zs has another shape.
        """
        return self._call("decode", zs)

    def sample(self, keys: Any) -> dict[str, jax.Array]:
        """Draws of the model: z of the prior, x of p(x|z).

        Args:
          keys: `[b, 2]` uint32 data of keys, or `[b]` keys of `jax.random.key`.

        Returns:
          "z" `[b, J]`, "mean" of p(x|z) `[b, D]`, "x" `[b, D]`.

        Raises:
          ArtefactError: the keys are not threefry keys.
        """
        return self._call("sample", keys)

    def log_likelihood(self, keys: Any, xs: Any) -> dict[str, jax.Array]:
        """log p(x) by importance sampling with q(z|x).

        Memory grows with b, which are worked on at once: pass tens of datapoints.

        Args:
          keys: `[b, 2]` uint32 data of keys, or `[b]` keys of `jax.random.key`.
          xs: `[b, D]`, binary where p(x|z) is a Bernoulli, else from 0 to 1.

        Returns:
          "log_likelihood" and its "std_error" over draws, both in nats, "ess", the
          effective sample size, and "pareto_k", all `[b]`; the error is not to be
          trusted where pareto_k is above 0.7. "curve" is the estimate of ever more
          draws.

        Raises:
          ArtefactError: wrong shapes, or pixels that have no likelihood.
        """
        return self._call("log_likelihood", keys, xs)

    def _call(self, name: str, *values: Any) -> dict[str, jax.Array]:
        if name not in self._calls:
            why = self.manifest["left_out"].get(name, "it was not exported")
            raise ArtefactError(f"{name} is not among these artefacts: {why}")
        about = self.manifest["functions"][name]
        described = about["inputs"]
        inputs = [
            _checked(argument, value, described[argument])
            for argument, value in zip(described, values, strict=True)
        ]
        sizes = {len(value) for value in inputs}
        if len(sizes) > 1 or 0 in sizes:
            raise ArtefactError(
                f"{' and '.join(described)} of {name} have lengths "
                f"{', '.join(str(len(value)) for value in inputs)}: expected one "
                "length, of at least 1"
            )
        weights = {weight: self.weights[weight] for weight in about["weights"]}
        return self._calls[name](weights, *inputs)


def load(folder: str | Path = Path(__file__).parent) -> Artefacts:
    """Loads the artefacts of a folder; nothing is used before its sha256 is checked.

    The sums find a damaged file, not a malicious one: load what you trust.

    Args:
      folder: that `python -m experiments.export` wrote; it may have been moved.

    Raises:
      ArtefactError: a file is missing or damaged, or they are for other platforms, or
        for another version of jax.
    """
    return _load(Path(folder))[0]


def _load(folder: Path) -> tuple[Artefacts, dict[str, np.ndarray]]:
    """The functions, and the numbers to compare theirs with."""
    manifest, files = read_files(folder)
    platform = export.default_export_platform()
    if platform not in manifest["platforms"]:
        raise ArtefactError(
            f"jax runs on {platform} here, and {folder} has artefacts for "
            f"{', '.join(manifest['platforms'])}: export again with "
            f"--platforms={platform}, or set JAX_PLATFORMS"
        )
    stored = _arrays(files["weights.npz"])
    weights = {name: jnp.asarray(value) for name, value in stored.items()}
    calls = {
        name: _function(manifest, files[about["file"]], folder)
        for name, about in manifest["functions"].items()
    }
    return Artefacts(manifest, weights, calls), _arrays(files["reference.npz"])


def keys(seed: int, num: int) -> jax.Array:
    """The data of `num` random keys, for `sample` and `log_likelihood`.

    >>> keys(0, 3).shape
    (3, 2)

    Args:
      seed: other draws for another seed.
      num: how many.

    Returns:
      `[num, 2]` uint32.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.key_data(jax.random.split(key, num))


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Reads every file of the artefacts, and checks its sha256.

    Args:
      folder: of the artefacts.

    Returns:
      The manifest, and the bytes of each file by its name.

    Raises:
      ArtefactError: one is missing, or not as it was written.
    """
    text = _read(folder, _SUMS).decode(errors="replace")
    matches = [
        re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in text.split("\n")
    ]
    # The last line is the empty one after the last newline.
    sums = {match[2]: match[1] for match in matches[:-1] if match}
    if len(sums) != len(matches) - 1 or "manifest.json" not in sums:
        raise ArtefactError(
            f"{folder / _SUMS} is damaged: expected lines of a sha256 and a name: "
            f"{_AGAIN}"
        )
    files = {name: _read(folder, name) for name in sums}
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != sums[name]:
            raise ArtefactError(
                f"{folder / name} has sha256 {found}, expected {sums[name]}: it is "
                f"damaged, or of another export: {_AGAIN}"
            )
    manifest = json.loads(files["manifest.json"])
    listed = {name: about["sha256"] for name, about in manifest["files"].items()}
    if listed != {name: sums[name] for name in sums if name != "manifest.json"}:
        raise ArtefactError(
            f"{folder / _SUMS} does not have the files of manifest.json: {_AGAIN}"
        )
    return manifest, files


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{folder / name} cannot be read ({error.strerror}): expected what python "
            f"-m experiments.export wrote, which ends with {_SUMS}: {_AGAIN}"
        ) from error


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _function(
    manifest: dict[str, Any], content: bytes, folder: Path
) -> Callable[..., Any]:
    made, version = manifest["jax"]["version"], manifest["jax"]["calling_convention"]
    oldest = export.minimum_supported_calling_convention_version
    newest = export.maximum_supported_calling_convention_version
    is_older = _numbers(jax.__version__) < _numbers(made)
    mend = f"install jax {made} or newer" if is_older else "export the run again"
    refusal = (
        f"these artefacts were made with jax {made} (calling convention {version}), "
        f"and this is jax {jax.__version__} (conventions {oldest} to {newest}): {mend}"
    )
    if not oldest <= version <= newest:
        raise ArtefactError(refusal)
    try:
        with _flatbuffers(folder):
            exported = export.deserialize(bytearray(content))
    except Exception as error:  # the file is whole: this jax does not know its format
        raise ArtefactError(f"{refusal} ({_said(error)})") from error
    call = jax.jit(exported.call)

    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            # An older jax may read the format and not know what is in it.
            if not is_older:
                raise
            raise ArtefactError(f"{refusal} ({_said(error)})") from error

    return called


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@contextmanager
def _flatbuffers(folder: Path) -> Iterator[None]:
    """jax reads artefacts with flatbuffers, which `pip install jax` does not bring.

    A copy lies beside the artefacts. It comes last: an installed one is taken first.
    """
    path = str(folder / "flatbuffers.zip")
    sys.path.append(path)
    try:
        yield
    finally:
        sys.path.remove(path)


def _checked(name: str, value: Any, about: dict[str, Any]) -> jax.Array | np.ndarray:
    """An input as the manifest describes it, or an `ArtefactError`."""
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
    elif jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    shape = ["b", *about["shape"][1:]]
    if value.ndim != len(shape) or list(value.shape[1:]) != shape[1:]:
        raise ArtefactError(
            f"{name} has shape {list(value.shape)}, expected "
            f"[{', '.join(map(str, shape))}], {about['meaning']}"
        )
    if about["dtype"] == "uint32" and value.dtype != np.uint32:
        raise ArtefactError(
            f"{name} has dtype {value.dtype}, expected uint32, {about['meaning']}: "
            "make them with keys(seed, num)"
        )
    value = value.astype(about["dtype"])
    if "range" in about and not isinstance(value, jax.core.Tracer):
        found, (low, high) = np.asarray(value), about["range"]
        good = (found >= low) & (found <= high)
        binary = about.get("binary", False)
        if binary:
            good = (found == low) | (found == high)
        if not good.all():
            expected = f"{low} or {high}" if binary else f"{low} to {high}"
            raise ArtefactError(
                f"{name} has {np.count_nonzero(~good)} values such as "
                f"{found[~good].flat[0]}, expected {expected}, {about['meaning']}"
            )
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Checks a folder; prints what is in it, and the distance to the program's numbers.

    Args:
      argv: the folder; None is the command line, and no folder that of this file.

    Returns:
      The exit code: 0, or 1 where something is damaged or far from the program's.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _compare(Path(arguments[0]) if arguments else Path(__file__).parent)
    except ArtefactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _compare(folder: Path) -> int:
    model, reference = _load(folder)
    made = model.manifest["made_with"]
    print(f"{folder}: every file is as it was written")
    print(f"the program's numbers are of {made['platform']}, {made['cpu']}")
    is_near = True
    for name, about in model.manifest["functions"].items():
        inputs = [reference[f"{name}/inputs/{one}"] for one in about["inputs"]]
        for output, value in getattr(model, name)(*inputs).items():
            expected = reference[f"{name}/outputs/{output}"]
            said, near = _distance(np.asarray(value), expected)
            is_near &= near
            print(f"{name:14}  {output:18}  {said}")
    for name, why in model.manifest["left_out"].items():
        print(f"{name:14}  left out: {why}")
    return 0 if is_near else 1


def _distance(value: np.ndarray, expected: np.ndarray) -> tuple[str, bool]:
    """How far an output is from the program's, and whether that is rounding."""
    differs = (value != expected) & ~(np.isnan(value) & np.isnan(expected))
    if not differs.any():
        return "the same bits", True
    # On average: where another machine rounds otherwise, a drawn pixel may flip.
    apart = np.sum(np.abs(value[differs] - expected[differs])) / value.size
    size = np.mean(np.abs(np.nan_to_num(expected, posinf=0, neginf=0)))
    limit = _TOLERANCE * (1 + size)
    if apart <= limit:
        return f"{apart:.2g} from the program's on average", True
    return f"{apart:.2g} from the program's, expected at most {limit:.2g}", False


if __name__ == "__main__":
    raise SystemExit(main())
