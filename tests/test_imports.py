"""The laws that the code itself obeys: what imports what, and what it does without."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import aevb

ROOT = Path(__file__).parents[1]
MODULES = {
    path.stem: ast.parse(path.read_text()) for path in (ROOT / "aevb").glob("*.py")
}
each_module = pytest.mark.parametrize("name", sorted(MODULES))

# A module imports those before it alone; one of a row knows nothing of its neighbour.
CHAIN = [
    {"types"},
    {"distributions"},
    {"calls"},
    {"estimators"},
    {"marginal", "objectives"},
    {"train"},
    {"baselines"},
]
ONLY_IN = {"flax": "nets", "blackjax": "hmc"}


def imports(name: str) -> set[str]:
    """The full names of what a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def libraries(name: str) -> set[str]:
    return {full.partition(".")[0] for full in imports(name)} - {"aevb"}


def needs(name: str) -> set[str]:
    """The modules of `aevb` that are loaded with this one."""
    found, queue = set(), [name]
    while queue:
        parts = [full.split(".") for full in imports(queue.pop())]
        new = {part[1] for part in parts if part[0] == "aevb"} & set(MODULES) - found
        found |= new
        queue += new
    return found


def test_aevb_loads_what_jax_and_optax_load_and_nothing_else():
    """No flax, blackjax, ml_collections, tensorflow, ...; optax itself loads absl."""
    program = (
        "import sys, jax, optax; before = set(sys.modules); import aevb; "
        "print(*set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert loaded - sys.stdlib_module_names <= {"aevb", "jax", "jaxlib", "numpy"}


def test_modules_import_one_way():
    for name in MODULES:
        assert name not in needs(name), f"{name} imports itself"
    before: set[str] = {"__init__"}
    for row in CHAIN:
        later = set.union(*CHAIN) - before
        for name in row & set(MODULES):
            assert not needs(name) & later, f"{name} imports what is above it"
        before |= row


@each_module
def test_a_library_is_imported_where_it_belongs(name):
    allowed = {"jax", "numpy", "optax"} | sys.stdlib_module_names
    allowed |= {library for library, owner in ONLY_IN.items() if owner == name}
    assert libraries(name) <= allowed


def test_below_train_there_is_jax_alone():
    below = set.union(*CHAIN[: CHAIN.index({"train"})])
    for name in set.union(below, *map(needs, below)):
        assert "optax" not in libraries(name), name


@each_module
def test_no_jit_no_input_or_output_no_globals(name):
    for node in ast.walk(MODULES[name]):
        assert not isinstance(node, ast.Global | ast.Nonlocal)
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("jit", "pmap", "debug")
        if isinstance(node, ast.Name):
            assert node.id not in ("jit", "print", "open", "input", "exec", "eval")
    forbidden = {"argparse", "io", "logging", "os", "pathlib", "subprocess", "warnings"}
    assert not libraries(name) & forbidden


@each_module
def test_the_public_names_are_listed_and_exist(name):
    package = "aevb" if name == "__init__" else f"aevb.{name}"
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)


def test_what_is_public_is_documented_with_an_example():
    for name in aevb.__all__:
        value = getattr(aevb, name)
        if inspect.isclass(value):
            assert inspect.getdoc(value), name
        elif value.__module__.removeprefix("aevb.") in set.union(*CHAIN):
            assert ">>>" in inspect.getdoc(value), name
