"""What every entrypoint shares: flags, one-line errors and exit codes.

Exit codes: 0 done, 1 usage, configuration or data error, 2 diverged, 3 no usable
checkpoint, 75 stopped by a signal after saving (run the same command again).
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.config import ConfigError, validate
from experiments.data import DataError

__all__ = ["CONFIGS", "main"]

CONFIGS = Path(__file__).resolve().parent / "configs"

USAGE_ERROR = 1


def main(
    run: Callable[[ConfigDict, str], None], *, config_file: str, usage: str
) -> None:
    """Runs an entrypoint under absl: `run(config, workdir)`.

    Args:
      run: called with the validated configuration and the `--workdir` flag ("" where
        it was not given).
      config_file: a file in `experiments/configs/`, the default of `--config`.
      usage: the text of `--help`.
    """
    config_flag = config_flags.DEFINE_config_file(
        "config",
        str(CONFIGS / config_file),
        "A configuration file, FILE.py or FILE.py:argument; change a field with "
        "--config.field=value.",
        lock_config=True,
    )
    workdir_flag = flags.DEFINE_string(
        "workdir",
        "",
        "Where the run is written, and continued from; by default runs/, then the "
        "config's name and digest.",
    )

    def start(_: Sequence[str]) -> None:
        # Orbax and JAX narrate every step at INFO.
        logging.set_verbosity(logging.WARNING)
        config = config_flag.value
        validate(config)
        run(config, workdir_flag.value)

    try:
        app.run(start, argv=integers(sys.argv), flags_parser=_parser(usage))
    except (ConfigError, DataError) as error:
        _stop(str(error))


def integers(argv: Sequence[str]) -> list[str]:
    """Rewrites `--config.epochs=1e3` as 1000, which an int field would refuse."""
    number = re.compile(r"(--?config\.[\w.]+=)(\d+(?:\.\d*)?[eE]\+?\d+)$")

    def rewrite(argument: str) -> str:
        match = number.match(argument)
        if match is None or not float(match[2]).is_integer():
            return argument
        return f"{match[1]}{int(float(match[2]))}"

    return [rewrite(argument) for argument in argv]


def _parser(usage: str) -> Callable[[Sequence[str]], list[str]]:
    def parse(argv: Sequence[str]) -> list[str]:
        if any(argument in ("-h", "--help", "-help") for argument in argv[1:]):
            print(usage)
            sys.exit(0)
        try:
            rest = flags.FLAGS(argv)
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
            _stop(" ".join(str(error).split()))
        except OSError as error:
            _stop(f"cannot read the config file: {error}")
        if len(rest) > 1:
            _stop(f"unexpected argument {rest[1]!r}: set fields as --config.name=value")
        return rest

    return parse


def _stop(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)
