"""What every command shares: flags, one-line errors and the exit code.

`experiments.errors` lists the exit codes.
"""

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.config import base, flatten, validate
from experiments.errors import DONE, ConfigError, ExperimentError, StoppedError
from experiments.processes import distributed
from experiments.trackers import process

__all__ = ["CONFIGS", "asks_for_help", "exit_codes", "integers", "main", "parse"]

CONFIGS = Path(__file__).resolve().parent / "configs"


def main(
    run: Callable[[ConfigDict, str, int, str], object], *, config_file: str, usage: str
) -> NoReturn:
    """Runs `run(config, workdir, num_devices, tracker)`, and exits with its code.

    Args:
      run: called with the validated configuration and the flags `--workdir` ("" where
        it was not given), `--devices` (0) and `--tracker` (""), in a process that has
        joined the others of its job.
      config_file: a file in `experiments/configs/`, the default of `--config`.
      usage: the text of `--help`, before the list of fields.
    """

    def start() -> None:
        if asks_for_help(sys.argv):
            print(f"{usage.strip()}\n\n{distributed.HELP}\n\n{process.HELP}")
            print(f"\nFields, with their defaults:\n\n{_fields()}")
            return
        tracker, argv = process.read_flag(sys.argv)
        job, num_devices, rest = distributed.read_flags(argv)
        config, workdir = parse(rest, config_file=config_file)
        distributed.join(job)
        run(config, workdir, num_devices, tracker)

    distributed.leave(exit_codes(start))


def exit_codes(run: Callable[[], object]) -> int:
    """Calls `run`, prints its error as one line, and returns the exit code."""
    try:
        run()
    except StoppedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except ExperimentError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return DONE


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether `--help`, or one of absl's other names for it, is among the flags.

    >>> asks_for_help(["mnist", "--helpfull"])
    True
    """
    return any(re.fullmatch(r"--?h(elp\w*)?(=.*)?", item) for item in argv[1:])


def parse(argv: Sequence[str], *, config_file: str) -> tuple[ConfigDict, str]:
    """Reads `--config`, `--config.field` and `--workdir`.

    Returns:
      The configuration, checked, and the workdir ("" where it was not given).

    Raises:
      ConfigError: anything is wrong with them.
    """
    argv = integers(argv)
    # absl's global flags also hold those of every imported library.
    values = flags.FlagValues()
    try:
        flags.DEFINE_string("workdir", "", "", flag_values=values)
        config_flags.DEFINE_config_file(
            "config",
            str(CONFIGS / config_file),
            lock_config=True,
            flag_values=values,
            sys_argv=list(argv),
        )
        rest = values(argv)
        config = values.config
        # ml_collections reports an unreadable file at the first look at a field.
        if getattr(config, "seed", None) is None or not isinstance(config, ConfigDict):
            raise ConfigError("the config file's get_config returns no configuration")
    except OSError as error:
        cause = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ConfigError(f"the config file cannot be read: {cause.strip()}") from error
    except ConfigError:
        raise
    except Exception as error:  # a config file is a program, it may raise anything
        given = [item for item in argv if item.lstrip("-").startswith("config.")]
        cause = _unknown_field(given) or _explain(error, given)
        raise ConfigError(cause) from error
    if len(rest) > 1:
        raise ConfigError(
            f"unexpected argument {rest[1]!r}: set fields as --config.name=value"
        )
    validate(config)
    return config, values.workdir


def integers(argv: Sequence[str]) -> list[str]:
    """Rewrites `--config.epochs=1e3` as 1000, which an int field would refuse.

    >>> integers(["", "--config.epochs=1e3", "--config.learning_rate=1e-3"])
    ['', '--config.epochs=1000', '--config.learning_rate=1e-3']
    """
    number = re.compile(r"(--?config\.[\w.]+=)(\d+(?:\.\d*)?[eE]\+?\d{1,2})$")

    def rewrite(argument: str) -> str:
        match = number.match(argument)
        if match is None or not float(match[2]).is_integer():
            return argument
        return f"{match[1]}{int(float(match[2]))}"

    return [rewrite(argument) for argument in argv]


def _unknown_field(given: Sequence[str]) -> str:
    """Returns what is wrong with the first `--config.FIELD` that is not a field."""
    known = list(flatten(base().to_dict()))
    for argument in given:
        name = argument.lstrip("-").removeprefix("config.").partition("=")[0]
        if name in known:
            continue
        near = [f for f in known if f.endswith(f".{name}") or f.startswith(f"{name}.")]
        near = near or difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        return f"{argument}: there is no field {name}{hint} (--help lists the fields)"
    return ""


def _explain(error: Exception, given: Sequence[str]) -> str:
    """Returns the cause without what ml_collections and absl wrap around it."""
    if isinstance(error, SyntaxError):
        return f"the config file {error.filename}, line {error.lineno}: {error.msg}"
    # A KeyError shows its text in quotes.
    text = str(error.args[0] if error.args else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return f"the config file raises {type(error).__name__}"
    if len(lines) > 1 and "config file" in text:
        return "the config file: " + re.sub(r"^experiments\.[\w.]+: ", "", lines[-1])
    prefix = f"{' '.join(given)}: " if given and "config" not in text else ""
    return prefix + " ".join(lines)


def _fields() -> str:
    """Returns the lines of `experiments.config.base` that set a field."""
    lines = inspect.getsource(base).splitlines()
    shown = [line.strip() for line in lines if re.match(r"\s+config\.", line)]
    return "\n".join(f"  --{line}" for line in shown if "ConfigDict()" not in line)
