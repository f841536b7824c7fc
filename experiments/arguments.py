"""The argument parser of the commands that read no configuration.

This module imports the standard library alone: a command refuses a wrong flag before
JAX is imported.
"""

import argparse
import re
from typing import Any, NoReturn

from experiments.errors import ConfigError

__all__ = ["Parser", "count", "positive"]


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
