"""The argument parser of the commands that read no configuration.

This module imports the standard library alone: a command refuses a wrong flag before
JAX is imported.
"""

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from experiments.errors import ConfigError

__all__ = ["Parser", "add_run", "count", "directory", "positive", "told"]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose mistakes are a `ConfigError`: one line and exit code 1.

    `--help` shows the description as it is laid out. Call `parse_args` inside
    `cli.exit_codes`, which prints the line.

    >>> parser = Parser(prog="verify")
    >>> _ = parser.add_argument("--step", type=count, default=0)
    >>> parser.parse_args(["--step=3"]).step
    3
    >>> parser.parse_args(["--steps=3"])
    Traceback (most recent call last):
    ...
    experiments.errors.ConfigError: unrecognized arguments: --steps=3 (see --help)
    """

    def __init__(self, **settings: Any) -> None:
        """Takes the arguments of `argparse.ArgumentParser`."""
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Refuses the arguments.

        Args:
          message: what is wrong with them.

        Raises:
          ConfigError: always.
        """
        raise ConfigError(f"{message} (see --help)")


def count(text: str) -> int:
    """Reads a whole number of at least 0, as the `type` of an argument.

    >>> count("0")
    0

    Args:
      text: what was given.

    Returns:
      The number.

    Raises:
      argparse.ArgumentTypeError: the text is something else.
    """
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def positive(text: str) -> int:
    """Reads a whole number of at least 1, as the `type` of an argument.

    >>> positive("4")
    4

    Args:
      text: what was given.

    Returns:
      The number.

    Raises:
      argparse.ArgumentTypeError: the text is something else.
    """
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def directory(text: str) -> Path:
    """Reads the path of a folder that exists, as the `type` of an argument.

    >>> directory(".")
    PosixPath('.')

    Args:
      text: what was given.

    Returns:
      The path.

    Raises:
      argparse.ArgumentTypeError: there is no such folder.
    """
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a directory")
    return path


def add_run(parser: argparse.ArgumentParser, *, folder: str = "") -> None:
    """Adds the arguments of a command that opens a trained run.

    They are what `training.opened.load_run` takes, and `out`, a path.

    Args:
      parser: is changed.
      folder: of the workdir, to write to where no --out is given; "" has no --out.
    """
    add = parser.add_argument
    add("--workdir", type=directory, required=True, help="the trained run's folder")
    if folder:
        add("--out", type=Path, help=f"where to write (WORKDIR/{folder})")
    add(
        "--step",
        type=_checkpoint,
        default="last",
        help="the checkpoint: last, best, or a number (last)",
    )
    add("--data-path", default="", help="where the data lie now, if they have moved")


def _checkpoint(text: str) -> int | str | None:
    if text == "last":
        return None
    if text == "best":
        return text
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected last, best or a number")
    return int(text)


def told(options: argparse.Namespace) -> dict[str, Any]:
    """The options as a report tells them: without those that are a `Path`.

    >>> told(argparse.Namespace(workdir=Path("runs"), out=None, seed=3))
    {'seed': 3}

    Args:
      options: that were parsed.

    Returns:
      `{name: value}`.
    """
    return {
        name: value
        for name, value in vars(options).items()
        if not isinstance(value, Path | None)
    }
