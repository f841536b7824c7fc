"""What every entrypoint shares: flags, one-line errors and exit codes.

Exit codes: 0 done, 1 usage, configuration, data or workdir error, 2 diverged, 3 no
usable checkpoint, 75 stopped by a signal after saving (run the same command again), 76
another process of the job was lost.
"""

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import config as fields
from experiments import distributed
from experiments.checkpoints import CheckpointError
from experiments.config import ConfigError, validate
from experiments.data import DataError
from experiments.interruption import StoppedError
from experiments.lock import WorkdirError
from experiments.training import DivergenceError

__all__ = ["CONFIGS", "exit_codes", "integers", "main", "parse"]

CONFIGS = Path(__file__).resolve().parent / "configs"

DONE, USAGE, DIVERGED, NO_CHECKPOINT, STOPPED = 0, 1, 2, 3, 75


def main(
    run: Callable[[ConfigDict, str, int], object], *, config_file: str, usage: str
) -> NoReturn:
    """Runs an entrypoint, `run(config, workdir, num_devices)`, and exits with its code.

    Args:
      run: called with the validated configuration, the `--workdir` flag ("" where it
        was not given) and the `--devices` flag (0), in a process that has joined the
        others of its job.
      config_file: a file in `experiments/configs/`, the default of `--config`.
      usage: the text of `--help`, before the list of fields.
    """

    def start() -> None:
        if any(re.fullmatch(r"--?h(elp\w*)?(=.*)?", item) for item in sys.argv[1:]):
            print(f"{usage.strip()}\n\n{distributed.HELP}")
            print(f"\nFields, with their defaults:\n\n{_fields()}")
            return
        job, num_devices, rest = distributed.read_flags(sys.argv)
        config, workdir = parse(rest, config_file=config_file)
        distributed.join(job)
        run(config, workdir, num_devices)

    distributed.leave(exit_codes(start))


def exit_codes(run: Callable[[], object]) -> int:
    """Calls `run`, prints what it raises as one line, and returns the exit code."""
    try:
        run()
    except (ConfigError, DataError, WorkdirError) as error:
        return _fail(error, USAGE)
    except DivergenceError as error:
        return _fail(error, DIVERGED)
    except CheckpointError as error:
        return _fail(error, NO_CHECKPOINT)
    except StoppedError:
        print("stopped and saved: the same command goes on from here", file=sys.stderr)
        return STOPPED
    return DONE


def _fail(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def parse(argv: Sequence[str], *, config_file: str) -> tuple[ConfigDict, str]:
    """Reads `--config`, `--config.field` and `--workdir`.

    Returns:
      The configuration, checked, and the workdir ("" where it was not given).

    Raises:
      ConfigError: anything is wrong with them.
    """
    argv = integers(argv)
    # Flags of their own: those of absl's globals, and of whoever defined more, are not
    # this program's.
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
        # A file that cannot be read is told here, at the first look at a field.
        if getattr(config, "seed", None) is None or not isinstance(config, ConfigDict):
            raise ConfigError("the config file's get_config returns no configuration")
    except OSError as error:
        cause = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ConfigError(f"the config file cannot be read: {cause.strip()}") from error
    except ConfigError:
        raise
    except Exception as error:  # a config file is a program, it may raise anything
        given = [item for item in argv if item.lstrip("-").startswith("config.")]
        raise ConfigError(_explain(error, given)) from error
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


def _explain(error: Exception, given: Sequence[str]) -> str:
    """The last line of what ml_collections and absl wrap around a cause."""
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
    """The fields with what is said of each in `experiments.config.base`."""
    lines = inspect.getsource(fields.base).splitlines()
    shown = [line.strip() for line in lines if re.match(r"\s+config\.", line)]
    return "\n".join(f"  --{line}" for line in shown if "ConfigDict()" not in line)
