"""The runs of a sweep, and which of them can be lanes of one compiled program.

    --sweep.learning_rate=1e-3,3e-3 --sweep.latent_dim=5,20 --sweep.seed=0:16

make a sweep of their product. A file with `get_sweep()`, which returns a list of
{field: value}, makes a sweep of any other set. A field is named as for `--config.`;
`optimizer_args.b1` is one argument of the optimizer.
"""

import ast
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.config import optimizer_arguments, validate
from experiments.errors import ConfigError

__all__ = [
    "OPTIMIZER",
    "Run",
    "combinations",
    "expand",
    "groups",
    "read_axes",
    "read_file",
    "traced",
]

OPTIMIZER = "optimizer_args."
"""What comes before an argument's name in the field that is one argument."""


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: of its folder, from what was swept: "learning_rate=0.003,seed=1".
      overrides: `{field: value}`, what was swept.
      config: the whole configuration.
      begun: the workdir of a finished, shorter run that is its first part; None is the
        first step.
    """

    name: str
    overrides: dict[str, Any]
    config: ConfigDict
    begun: Path | None = None


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
      ConfigError: an axis has no values, or is given twice.
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
    """Reads `VALUE,VALUE,...` or `FIRST:END`; returns [] where a value is missing."""
    span = re.fullmatch(r"(\d+):(\d+)", text)
    if span is None:
        texts = _split(text)
        return [_value(field, one, typed) for one in texts] if all(texts) else []
    numbers = range(int(span[1]), int(span[2]))
    if not numbers:
        return []
    # Reading a flag takes milliseconds: only the first one is read, for its type.
    kind = type(_value(field, str(numbers[0]), typed))
    return [kind(number) for number in numbers]


def _split(text: str) -> list[str]:
    """Splits a text at its commas outside brackets.

    >>> _split("(200,),(500, 500)")
    ['(200,)', '(500, 500)']
    """
    return [part.strip() for part in re.split(r",(?![^(\[]*[)\]])", text)]


def _value(field: str, text: str, typed: Callable[[str, str], Any]) -> Any:
    if not field.startswith(OPTIMIZER):
        return typed(field, text)
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        raise ConfigError(f"--sweep.{field}={text}: expected a literal") from None


def read_file(path: Path) -> list[dict[str, Any]]:
    """Calls `get_sweep()` of a Python file.

    Raises:
      ConfigError: the file cannot be read, or the call returns no list of dicts.
    """
    try:
        found = runpy.run_path(str(path))["get_sweep"]()
    except Exception as error:  # the file is a program, it may raise anything
        raise ConfigError(
            f"the sweep file {path}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, list) and all(isinstance(f, Mapping) for f in found)):
        raise ConfigError(f"get_sweep() of {path} returns no list of {{field: value}}")
    return [dict(overrides) for overrides in found]


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns the product of the axes; the last axis varies fastest.

    >>> combinations({"latent_dim": [2, 5], "seed": [0, 1]})[1]
    {'latent_dim': 2, 'seed': 1}
    """
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def expand(config: ConfigDict, overrides: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Returns the runs of a sweep, with every configuration checked.

    An override of `optimizer_args` replaces the shared arguments; overrides of single
    arguments, such as `optimizer_args.b2`, then change the result, in whichever order
    they are given.

    Args:
      config: what the runs have in common.
      overrides: the fields of each run that differ, `{field: value}`.

    Raises:
      ConfigError: a run's configuration is wrong, or two runs are the same.
    """
    runs: dict[str, Run] = {}
    for fields in overrides:
        own = config.copy_and_resolve_references()  # the groups of fields too
        single = {
            field.removeprefix(OPTIMIZER): value
            for field, value in fields.items()
            if field.startswith(OPTIMIZER)
        }
        plain = {
            field: value
            for field, value in fields.items()
            if not field.startswith(OPTIMIZER)
        }
        name = ",".join(f"{field}={value}" for field, value in fields.items())
        try:
            own.update_from_flattened_dict(plain)
            if single:
                # A swept optimizer_args comes first: single arguments change it.
                arguments = optimizer_arguments(own.optimizer_args) | single
                own.optimizer_args = ", ".join(
                    f"{key}={value!r}" for key, value in arguments.items()
                )
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
    """Returns what may differ between lanes of one program: `{field: number}`.

    They are the seed, the step size, beta, the weight prior's scale (where there is
    one), and the optimizer's arguments that are real numbers and can be traced without
    a loss: b1 = 0.9 can, b2 = 0.999 cannot.
    """
    found = {
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        "beta": config.beta,
    }
    if config.weight_prior:
        found["weight_prior"] = config.weight_prior
    for name, value in optimizer_arguments(config.optimizer_args).items():
        if type(value) is float and _survives_float32(value):
            found[OPTIMIZER + name] = value
    return found


def _survives_float32(value: float) -> bool:
    """Whether 1 - value is the same to 1e-6 where the value is a float32.

    An optimizer weights its averages by 1 - decay. Where the decay is a Python float,
    the weight is exact, as in a single run. Where it is traced, the weight is off by
    the rounding of the decay: by 1.3e-5 of 1 - 0.999 and by 1.7e-4 of 1 - 0.9999, which
    moves a lane from its single run by more than the promised 1e-5.
    """
    rounded = np.float32(1) - np.float32(value)
    return abs(float(rounded) - (1 - value)) <= 1e-6 * abs(1 - value)


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups the runs that can be lanes of one compiled program; the order is kept."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        lane = traced(run.config)
        shared = run.config.to_dict()
        arguments = {
            name: value
            for name, value in optimizer_arguments(shared.pop("optimizer_args")).items()
            if OPTIMIZER + name not in lane
        }
        for field in ("seed", "learning_rate", "beta", "weight_prior"):
            shared.pop(field)
        key = repr((sorted(shared.items()), arguments, sorted(lane)))
        found.setdefault(key, []).append(run)
    return list(found.values())
