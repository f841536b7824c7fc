"""Images of codes: p(x|z) of a trained run, as a file.

    python -m experiments.decode --workdir=runs/DIR --input=codes.npz \\
        --output=images.npz
    python -m experiments.decode --workdir=runs/DIR --input=codes.npz --array=draws \\
        --output=images.png

The input is a file of `experiments.encode` (NPZ or Parquet), with --array of shape
[n, J] or [n, S, J], or an NPY file of such an array. The output has "mean" and "std" of
the pixels given z, from 0 (black) to 1, of shape [n, H, W] or [n, S, H, W]; a PNG shows
the first 100 means. If you stop it, or it is killed, the same command goes on and makes
the same file.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint; 75 stopped
by a signal after saving (run the same command again).
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments import cli
from experiments.arguments import Parser, add_run, told
from experiments.errors import DataError
from experiments.evaluation.points import points_identity
from experiments.processes.interruption import StopRequest
from experiments.reports.images import image_grid
from experiments.storage.digests import digests
from experiments.storage.parquet import column_names, read_column
from experiments.trained import TrainedRun
from experiments.trained.streaming import Rows, progress, write_rows
from experiments.training.opened import load_run

__all__ = ["main", "parse"]

_SHOWN = 100


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(prog="python -m experiments.decode", description=__doc__)
    add = parser.add_argument
    add_run(parser)
    add(
        "--input", type=Path, required=True, help="a file of codes: NPZ, Parquet or NPY"
    )
    add("--array", default="mean", help="of an NPZ or Parquet file (mean)")
    add(
        "--output",
        type=Path,
        required=True,
        help="the file: NAME.npz, NAME.parquet or NAME.png",
    )
    return parser.parse_args(argv)


def read_codes(file: Path, array: str, latent_dim: int) -> np.ndarray:
    """Codes of a file. `[n, J]` or `[n, S, J]` float32

    Raises:
      DataError: it cannot be read, or has no such codes.
    """
    try:
        found = _read(file, array)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{file} cannot be read as codes ({' '.join(str(error).split())}): give a "
            "file of experiments.encode (NPZ or Parquet), or an NPY file"
        ) from error
    fits = found.ndim in (2, 3) and found.shape[-1] == latent_dim and found.size
    if not fits or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise DataError(
            f"{file} has {found.dtype} of shape {found.shape}, expected finite numbers "
            f"of shape [n, {latent_dim}] or [n, S, {latent_dim}], codes of this run"
        )
    return found.astype(np.float32)


def _read(file: Path, array: str) -> np.ndarray:
    def one_of(names: list[str], read: Callable[[str], np.ndarray]) -> np.ndarray:
        if array not in names:
            raise DataError(
                f"{file} has no array {array!r}, but {', '.join(names)}: name one with "
                "--array"
            )
        return read(array)

    if file.suffix == ".parquet":
        return one_of(column_names(file), partial(read_column, file))
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found:
        return one_of(found.files, found.get)


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    opened = load_run(options.workdir, step=options.step, data_path=options.data_path)
    run = TrainedRun(options.workdir, opened)
    zs = read_codes(options.input, options.array, run.latent_dim)
    if options.output.suffix == ".png":
        shown = zs.reshape(-1, run.latent_dim)[:_SHOWN]
        means = np.clip(run.decode(shown).mean, 0, 1)
        title = f"{options.input.name}, {options.array}"
        image_grid(options.output, means, columns=10, title=title)
        print(f"{options.output}: the first {len(shown)} of {zs[..., 0].size:,} codes")
        return

    def make(first: int, last: int) -> dict[str, np.ndarray]:
        codes = zs[first:last].reshape(-1, run.latent_dim)
        shape = (*zs[first:last].shape[:-1], *run.image_shape)
        pixels = run.decode(codes)
        return {
            name: np.asarray(value).reshape(shape)
            for name, value in pixels._asdict().items()
        }

    identity = {
        **points_identity(opened.config, opened.params, opened.dataset.sha256),
        "training_precision": opened.config.precision,
        "codes": digests({"codes": zs}),
    }
    rows = Rows(len(zs), make, identity, told(options) | {"step": opened.step})
    chunk_size = max(1, 2000 * len(zs) // zs[..., 0].size)
    report = progress("codes", len(zs))
    with StopRequest() as stop:
        made = write_rows(options.output, rows, stop, report, chunk_size=chunk_size)
    print(
        f"{options.output}: {len(zs):,} codes" + ("" if made else ", was there already")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Decodes and returns the exit code."""
    return cli.exit_codes(partial(_run, argv))


if __name__ == "__main__":
    raise SystemExit(main())
