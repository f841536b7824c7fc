"""A page to play with: the latent space of a trained run, in one HTML file.

    python -m experiments.explore --workdir=runs/DIR

Open the page in a browser; it needs no server and makes no request. The run's networks
are in it and run there. With two latent dimensions there is the plane of z to drag
over, with more there are sliders along the principal axes of the codes. Draw a digit or
take a test image, and see how it is encoded; hide a part of it, and see what may be
there: draws from p(x_hidden|x_seen).

It writes explorer.html in the workdir, or --out. A page of the default run has 4.6 MB:
24 bits a weight of the decoder and 16 of the encoder; where that is more than
--megabytes, the decoder's have 16 bits too.

Exit codes: 0 done; 1 usage, data or workdir error; 3 no usable checkpoint.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from experiments import cli
from experiments.arguments import Parser, add_run, positive
from experiments.errors import WorkdirError
from experiments.explorer.contents import explore
from experiments.explorer.page import PRECISIONS, write_explorer
from experiments.training.opened import load_run

__all__ = ["main", "parse"]

_NAME = "explorer.html"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      ConfigError: anything is wrong with it.
    """
    parser = Parser(prog="python -m experiments.explore", description=__doc__)
    add_run(parser, folder=_NAME)
    parser.add_argument(
        "--megabytes",
        type=positive,
        default=5,
        help="the largest page, in millions of bytes (5)",
    )
    return parser.parse_args(argv)


def _run(argv: Sequence[str] | None) -> None:
    options = parse(argv)
    run = explore(
        load_run(options.workdir, step=options.step, data_path=options.data_path)
    )
    path = options.out or options.workdir / _NAME
    try:
        written = write_explorer(run, path, most_bytes=options.megabytes * 10**6)
    except OSError as error:
        raise WorkdirError(f"{path} cannot be written: {error.strerror}") from error
    print(
        f"{written.num_bytes / 1e6:.2f} MB, {8 * written.precision.decoder} bits a "
        f"weight of the decoder, within {written.error:.1e} of its pixels"
    )
    if written.precision != PRECISIONS[0]:
        print(f"more bits did not fit into --megabytes={options.megabytes}")
    print(f"page {written.path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page and returns the exit code."""
    return cli.exit_codes(partial(_run, argv))


if __name__ == "__main__":
    raise SystemExit(main())
