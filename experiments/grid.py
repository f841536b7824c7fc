"""The runs of a sweep, and which of them can be lanes of one compiled program.

    --sweep.learning_rate=1e-3,3e-3 --sweep.latent_dim=5,20 --sweep.seed=0:16

is their product; a file with `get_sweep()`, which returns a list of {field: value}, is
any other set. A field is named as for `--config.`; `optimizer_args.b1` is one argument
of the optimizer.
"""

import ast
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.config import ConfigError, optimizer_arguments, validate

__all__ = [
    "Run",
    "combinations",
    "expand",
    "groups",
    "read_axes",
    "read_file",
    "traced",
]

_OPTIMIZER = "optimizer_args."


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: of its folder, from what was swept: "learning_rate=0.003,seed=1".
      overrides: `{field: value}`, what was swept.
      config: the whole configuration.
    """

    name: str
    overrides: dict[str, Any]
    config: ConfigDict


def read_axes(
    argv: Sequence[str], typed: Callable[[str, str], Any]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Reads the `--sweep.FIELD=VALUES` among arguments.

    Args:
      argv: the arguments.
      typed: `typed(field, text)`, a value as `--config.field=text` would read it.

    Returns:
      `{field: values}` in the order given, and the other arguments.

    Raises:
      ConfigError: an axis without values, or twice the same.
    """
    axes: dict[str, list[Any]] = {}
    rest = []
    for argument in argv:
        match = re.fullmatch(r"--?sweep\.(?:config\.)?([\w.]+)=(.*)", argument)
        if match is None:
            if re.match(r"--?sweep\.", argument):
                raise ConfigError(
                    f"{argument}: expected --sweep.FIELD=VALUE,VALUE,... or "
                    "--sweep.FIELD=FIRST:END for whole numbers"
                )
            rest.append(argument)
            continue
        field, text = match.groups()
        if field in axes:
            raise ConfigError(f"--sweep.{field} is given twice")
        axes[field] = _values(field, text, typed)
        if not axes[field]:
            raise ConfigError(f"{argument}: expected one value or more")
    return axes, rest


def _values(field: str, text: str, typed: Callable[[str, str], Any]) -> list[Any]:
    """Reads `VALUE,VALUE,...` or `FIRST:END`; none where one is missing."""
    span = re.fullmatch(r"(\d+):(\d+)", text)
    if span is None:
        texts = _split(text)
        return [_value(field, one, typed) for one in texts] if all(texts) else []
    numbers = range(int(span[1]), int(span[2]))
    if not numbers:
        return []
    # Reading a flag takes milliseconds: the first one tells the type of all.
    kind = type(_value(field, str(numbers[0]), typed))
    return [kind(number) for number in numbers]


def _split(text: str) -> list[str]:
    """At commas outside brackets.

    >>> _split("(200,),(500, 500)")
    ['(200,)', '(500, 500)']
    """
    return [part.strip() for part in re.split(r",(?![^(\[]*[)\]])", text)]


def _value(field: str, text: str, typed: Callable[[str, str], Any]) -> Any:
    if not field.startswith(_OPTIMIZER):
        return typed(field, text)
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        raise ConfigError(f"--sweep.{field}={text}: expected a literal") from None


def read_file(path: Path) -> list[dict[str, Any]]:
    """Calls `get_sweep()` of a Python file.

    Raises:
      ConfigError: it cannot be read, or returns something else than a list of dicts.
    """
    try:
        found = runpy.run_path(str(path))["get_sweep"]()
    except Exception as error:  # it is a program, it may raise anything
        raise ConfigError(
            f"the sweep file {path}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, list) and all(isinstance(f, Mapping) for f in found)):
        raise ConfigError(f"get_sweep() of {path} returns no list of {{field: value}}")
    return [dict(overrides) for overrides in found]


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The product of axes, the last one fastest.

    >>> combinations({"latent_dim": [2, 5], "seed": [0, 1]})[1]
    {'latent_dim': 2, 'seed': 1}
    """
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def expand(config: ConfigDict, overrides: Sequence[Mapping[str, Any]]) -> list[Run]:
    """The runs of a sweep, every configuration checked.

    Args:
      config: what the runs have in common.
      overrides: what each has of its own.

    Raises:
      ConfigError: a run's configuration is wrong, or two runs are the same.
    """
    runs: dict[str, Run] = {}
    for fields in overrides:
        own = ConfigDict(config)
        arguments = optimizer_arguments(config.optimizer_args)
        plain = {}
        for field, value in fields.items():
            if field.startswith(_OPTIMIZER):
                arguments[field.removeprefix(_OPTIMIZER)] = value
            else:
                plain[field] = value
        if len(plain) < len(fields):
            plain["optimizer_args"] = ", ".join(
                f"{k}={v!r}" for k, v in arguments.items()
            )
        name = ",".join(f"{field}={value}" for field, value in fields.items())
        try:
            own.update_from_flattened_dict(plain)
            validate(own)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the run {name}: {' '.join(str(error).split())}"
            ) from error
        folder = re.sub(r"[^\w.=,+-]+", "_", name) or "run"
        if folder in runs:
            raise ConfigError(f"the run {name} is there twice")
        runs[folder] = Run(folder, dict(fields), own)
    if not runs:
        raise ConfigError("the sweep has no run: give --sweep.FIELD=VALUES")
    return list(runs.values())


def traced(config: ConfigDict) -> dict[str, float]:
    """What may differ between lanes of one program: `{field: number}`.

    The seed, the step size, beta, the weight prior's scale (where there is one), and
    the optimizer's arguments that are real numbers.
    """
    found = {
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        "beta": config.beta,
    }
    if config.weight_prior:
        found["weight_prior"] = config.weight_prior
    for name, value in optimizer_arguments(config.optimizer_args).items():
        if type(value) is float:
            found[_OPTIMIZER + name] = value
    return found


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Puts together the runs that can be lanes of one compiled program, in order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        lane = traced(run.config)
        shared = run.config.to_dict()
        arguments = {
            name: value
            for name, value in optimizer_arguments(shared.pop("optimizer_args")).items()
            if _OPTIMIZER + name not in lane
        }
        for field in ("seed", "learning_rate", "beta", "weight_prior"):
            shared.pop(field)
        key = repr((sorted(shared.items()), arguments, sorted(lane)))
        found.setdefault(key, []).append(run)
    return list(found.values())
