"""The laws that the code itself obeys: what imports what, and what it does without."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import aevb
from aevb import nets, testing

ROOT = Path(__file__).parents[1]


def read(package: str) -> dict[str, ast.Module]:
    """The modules of a package, in all its folders, by their full names."""
    modules = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        modules[name] = ast.parse(path.read_text())
    return modules


AEVB, EXPERIMENTS = read("aevb"), read("experiments")
each_module = pytest.mark.parametrize("name", sorted(AEVB))

# A module of `aevb` imports those before it alone; the modules of a folder may import
# one another, but one of a row knows nothing of its neighbour.
CHAIN = [
    {"types", "products", "records"},
    {"distributions"},
    {"calls"},
    {"reparameterizations"},
    {"divergences"},
    {"estimators"},
    {"marginal", "objectives", "observations"},
    {"full_bayes", "imputation"},
    {"train"},
    {"baselines"},
]
ONLY_IN = {"flax": "nets"}

# A folder of `experiments` imports from those below it in this list, and from itself.
# Beside the folders there are the commands and the few modules that all of them share.
LAYERS = [
    {
        "mnist",
        "frey_face",
        "paper",
        "sweep",
        "marginal_likelihood",
        "reconstruct",
        "explore",
        "export",
        "verify",
        "encode",
        "decode",
    },
    {"cli", "single"},
    {"explorer"},
    {"reports"},
    {"trained"},
    {"reproduction", "restoration", "artefacts"},
    {"sweeps"},
    {"training"},
    {"evaluation"},
    {"program"},
    {"data"},
    {"trackers"},
    {"storage"},
    {"processes"},
    {"configs"},
    {"config", "keys", "arguments"},
    {"errors"},
]
MOST_LINES = 400


def imports(tree: ast.Module) -> set[str]:
    """The full names of what a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def libraries(name: str) -> set[str]:
    return {full.partition(".")[0] for full in imports(AEVB[name])} - {"aevb"}


def neighbours(name: str, modules: dict[str, ast.Module]) -> set[str]:
    """The modules of its own package that a module imports."""
    found = set()
    for full in imports(modules[name]):
        while full and full not in modules:  # a name in a module
            full = full.rpartition(".")[0]
        found |= {full} - {""}
    return found


def needs(name: str, modules: dict[str, ast.Module]) -> set[str]:
    """The modules of its own package that are loaded with this one."""
    found, queue = set(), [name]
    while queue:
        new = neighbours(queue.pop(), modules) - found
        found |= new
        queue += new
    return found


def part(name: str) -> str:
    """The folder, or the module, of a package that a module belongs to."""
    return name.partition(".")[2].partition(".")[0]


def test_laws_are_of_the_modules_in_folders_too():
    assert "aevb.marginal.importance" in AEVB
    assert "experiments.training.loop" in EXPERIMENTS


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
    for name in AEVB:
        assert name not in needs(name, AEVB), f"{name} imports itself"
    before: set[str] = set()
    for row in CHAIN:
        later = set.union(*CHAIN) - before
        for name in AEVB:
            if part(name) in row:
                imported = {part(other) for other in needs(name, AEVB)}
                assert not imported & later - {part(name)}, f"{name} imports too much"
        before |= row


@each_module
def test_a_library_is_imported_where_it_belongs(name):
    allowed = {"jax", "numpy", "optax"} | sys.stdlib_module_names
    allowed |= {library for library, owner in ONLY_IN.items() if owner == part(name)}
    assert libraries(name) <= allowed


def test_below_train_there_is_jax_alone():
    below = set.union(*CHAIN[: CHAIN.index({"train"})])
    for name in AEVB:
        if part(name) in below:
            for other in {name} | needs(name, AEVB):
                assert "optax" not in libraries(other), f"{name} imports {other}"


@each_module
def test_no_jit_no_input_or_output_no_globals(name):
    for node in ast.walk(AEVB[name]):
        assert not isinstance(node, ast.Global | ast.Nonlocal)
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("jit", "pmap", "debug")
        if isinstance(node, ast.Name):
            assert node.id not in ("jit", "print", "open", "input", "exec", "eval")
    forbidden = {"argparse", "io", "logging", "os", "pathlib", "subprocess", "warnings"}
    assert not libraries(name) & forbidden


@each_module
def test_the_public_names_are_listed_and_exist(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)


@each_module
def test_no_module_is_named_after_a_function(name):
    """`aevb.marginal.quadrature` would be the function or the module, by accident."""
    assert not inspect.isfunction(getattr(aevb, name.rpartition(".")[2], None))


PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (aevb, nets, testing)
    for name in module.__all__
}


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_is_documented_with_an_example(name):
    """A function has a doctest; a class, a protocol or a record has a docstring."""
    value = PUBLIC[name]
    if inspect.isfunction(value):
        assert ">>>" in inspect.getdoc(value)
    elif inspect.isclass(value):
        # Records without a docstring have one that Python makes: "Point(z, values)".
        assert value.__doc__
        assert not value.__doc__.startswith(f"{value.__name__}(")


@pytest.mark.parametrize(
    "package",
    ["marginal", "observations", "imputation", "reparameterizations", "full_bayes"],
)
def test_every_name_of_a_package_is_one_of_aevb(package):
    package = getattr(aevb, package)
    for name in package.__all__:
        assert getattr(aevb, name) is getattr(package, name)


def layer(name: str) -> int:
    for index, row in enumerate(LAYERS):
        if part(name) in row:
            return index
    raise AssertionError(f"{name} is in no layer: LAYERS has the room of each module")


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - {"experiments"}))
def test_a_folder_of_experiments_imports_from_those_below_it(name):
    """At the top of the module, inside a function, or for types alone."""
    for other in neighbours(name, EXPERIMENTS):
        if part(other) != part(name):
            assert layer(other) > layer(name), f"{name} imports {other}"


def test_no_two_modules_of_experiments_import_each_other():
    for name in EXPERIMENTS:
        assert name not in needs(name, EXPERIMENTS), f"{name} imports itself"


def test_experiments_itself_imports_nothing():
    assert not imports(EXPERIMENTS["experiments"])


def test_the_commands_are_alone_at_the_top_of_experiments():
    folders = {path.name for path in (ROOT / "experiments").iterdir() if path.is_dir()}
    top = {name for name in EXPERIMENTS if name.count(".") == 1}
    modules = {part(name) for name in top} - folders
    assert modules == {
        "mnist", "frey_face", "paper", "sweep", "marginal_likelihood", "reconstruct",
        "explore", "export", "verify", "encode", "decode", "cli", "single", "keys",
        "arguments", "errors",
    }  # fmt: skip
    rooms = {part(name) for name in EXPERIMENTS} - {""}
    assert rooms == set.union(*LAYERS)


def test_aevb_never_imports_experiments():
    for name in AEVB:
        assert "experiments" not in libraries(name)


@pytest.mark.parametrize("folder", ["aevb", "experiments", "benchmarks"])
def test_a_file_is_read_in_one_sitting(folder):
    for path in (ROOT / folder).rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= MOST_LINES, f"{path.relative_to(ROOT)} has {lines} lines"
