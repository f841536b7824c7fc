"""The README and the pages of docs/: their code runs, and what they name is there.

A block of Python runs in the order of its page, in one namespace a page, in a directory
where `runs/DIR` is a trained run. A line above a block may say what else it is:

    <!-- from FILE -->           an excerpt of that file: every line has to be there
    <!-- not run: REASON -->     it is only compiled
"""

import importlib
import re
import shlex
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from configurations import small

from experiments import cli, export, sweep
from experiments.arguments import Parser
from experiments.config import base, flatten
from experiments.errors import DONE
from experiments.processes import distributed
from experiments.processes.interruption import StopRequest
from experiments.storage.workdir import held
from experiments.trackers.sinks import TRACKERS
from experiments.training import runner

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
TEXTS = (*PAGES, "CONTRIBUTING.md")
NOT_RUN = {"docs/extending.md": ["it trains for minutes"]}

each_page = pytest.mark.parametrize("page", PAGES)


class Block(NamedTuple):
    """A fenced block: its language, what the comment above it says, its first line."""

    language: str
    mark: str
    line: int
    code: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    pattern = r"(?:^<!-- (.*?) -->\n)?^```(\w*)\n(.*?)^```$"
    return [
        Block(match[2], match[1] or "", text[: match.start(3)].count("\n"), match[3])
        for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    ]


def python(page: str, mark: str = "") -> list[Block]:
    found = [block for block in blocks(page) if block.language == "python"]
    return [block for block in found if block.mark.partition(" ")[0] == mark]


def prose(page: str) -> str:
    """The text without its blocks."""
    text = (ROOT / page).read_text()
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where the pages run: `runs/DIR` is a run of ten steps, exported."""
    directory = tmp_path_factory.mktemp("docs")
    workdir = directory / "runs" / "DIR"
    workdir.parent.mkdir()
    config = small(epochs=1, **{"eval.num_points": 3, "eval.proxy_samples": 0})
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        stack.enter_context(held(workdir))
        runner.run(config, workdir, stack.enter_context(StopRequest()))
    assert export.main([f"--workdir={workdir}", "--platforms=cpu"]) == DONE
    return directory


def of_the_reader() -> dict[str, object]:
    """What the README's code takes for granted: the reader's parameters and data."""
    key = jax.random.key(0)
    shapes = {"w1": (6, 4), "mean": (4, 2), "log_scale": (4, 2)}
    shapes |= {"w2": (2, 4), "logits": (4, 6)}
    return {
        "params": {name: jnp.full(shape, 0.1) for name, shape in shapes.items()},
        "data": jax.random.bernoulli(key, 0.3, (20, 6)).astype(jnp.float32),
        "key": key,
        "keys": jax.random.split(key, 2),
        "learning_rates": jnp.array([1e-3, 1e-2]),
        "y": jnp.ones(6),
        "observed": jnp.arange(6) < 3,
        "starts": jnp.zeros((4, 2)),
    }


@each_page
@pytest.mark.usefixtures("standard_promotion")
def test_the_code_of_a_page_runs(page, directory, monkeypatch):
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", [*sys.path])  # one page imports of the artefacts
    namespace = of_the_reader() if page == "README.md" else {}
    for block in python(page):
        code = "\n" * block.line + block.code  # an error names the line of the page
        exec(compile(code, str(ROOT / page), "exec"), namespace)


@each_page
def test_an_excerpt_is_in_its_file(page):
    for block in python(page, "from"):
        source = (ROOT / block.mark.split()[1]).read_text().splitlines()
        for part in re.split(r"^ *\.\.\.\n", block.code, flags=re.MULTILINE):
            wanted = textwrap.dedent(part).splitlines()
            found = any(
                textwrap.dedent("\n".join(source[i : i + len(wanted)])).splitlines()
                == wanted
                for i in range(len(source))
            )
            assert found, f"{page}, line {block.line}: not in {block.mark}:\n{part}"


@each_page
def test_what_does_not_run_is_listed_with_its_reason(page):
    found = python(page, "not")
    reasons = [block.mark.removeprefix("not run: ") for block in found]
    assert reasons == NOT_RUN.get(page, [])
    for block in found:
        compile(block.code, page, "exec")


@each_page
def test_every_other_block_is_of_a_kind_that_a_test_reads(page):
    text = (ROOT / page).read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in ("python", "bash"), f"{page}, line {block.line}"
        assert block.mark.partition(" ")[0] in ("", "from", "not", "run", "test")


def commands(page: str) -> list[list[str]]:
    """The words of every `python -m ...` in blocks of bash, and of those in backticks.

    Words in capitals stand for something else, and so do three dots. A sentence names a
    command without the flags that it needs.
    """
    scripts = [block.code for block in blocks(page) if block.language == "bash"]
    named = re.findall(r"`([^`\n]+)`", prose(page))
    scripts += [text for text in named if " -" in text.partition(" -m ")[2]]
    found = []
    for script in scripts:
        for match in re.finditer(
            r"python3? -m ([^;'#\n]+)", script.replace("\\\n", "")
        ):
            words = shlex.split(match[1].replace("0:1024", "0:2"))
            if not any(re.search(r"FIELD|VALUES|\.\.\.$", word) for word in words):
                found.append([word.replace("$I", "0") for word in words])
    return found


class Parsed(Exception):  # noqa: N818
    """The command line was read."""


def read(words: list[str]) -> None:
    """Reads a command line of `experiments` as the command would."""
    module = importlib.import_module(words[0])
    if hasattr(module, "main") and module is not sweep:
        with pytest.raises(Parsed):
            module.main(words[1:])
        return
    _, _, rest = distributed.read_flags(words)
    trackers = [word for word in rest if word.startswith("--tracker=")]
    assert {word.partition("=")[2] for word in trackers} <= set(TRACKERS)
    rest = [word for word in rest if word not in trackers]
    if module is sweep:
        sweep.parse(rest)
    else:
        cli.parse(rest, config_file="default.py")


def test_commands_are_found():
    found = commands("README.md") + commands("docs/cluster.md")
    assert ["experiments.mnist", "--devices=8"] in found
    assert sum("--distributed" in words for words in found) >= 3
    assert ["experiments.verify", "--workdir=DIR"] in found


# Of ml_collections, where it reads a file.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("page", TEXTS)
def test_the_flags_of_every_command_are_its_own(page, tmp_path, monkeypatch):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for name in ("runs/DIR", "DIR"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "grid.py").write_text("get_sweep = lambda: [{'latent_dim': 5}]\n")
    monkeypatch.chdir(tmp_path)
    parse_args = Parser.parse_args

    def stop(self, *args, **kwargs):
        parse_args(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", stop)
    for words in commands(page):
        name, *flags = words
        if name in ("experiments.data", "experiments.trackers"):
            read([f"{name}.__main__", *flags])
        elif name.startswith("experiments."):
            read(words)
        elif name.startswith("benchmarks."):
            source = (ROOT / f"{name.replace('.', '/')}.py").read_text()
            for flag in filter(lambda word: word.startswith("-"), flags):
                assert f'"{flag.partition("=")[0]}"' in source, f"{name} {flag}"
        else:
            assert name in ("venv", "pytest"), words


@pytest.mark.parametrize("page", TEXTS)
def test_the_fields_that_are_named_exist(page):
    known = set(flatten(base().to_dict()))
    known |= {name.partition(".")[0] for name in known}
    files = {"py", "json", "base"}  # config.py and the like
    text = (ROOT / page).read_text()
    for name in re.findall(r"(?:--|`)(?:config|sweep)\.([a-z_.]*[a-z])", text):
        assert name in known | files, f"{page}: config.{name}"


@pytest.mark.parametrize("page", TEXTS)
def test_the_names_and_files_in_backticks_exist(page):
    """`aevb.elbo`, `experiments.mnist`, `experiments/config/fields.py`."""
    for name in re.findall(r"`([\w./]+)`", prose(page)):
        if name.startswith(("aevb.", "experiments.", "benchmarks.")):
            assert is_there(name), f"{page}: {name}"
        elif re.match(r"(aevb|experiments|tests|benchmarks|docs)/", name):
            assert (ROOT / name).exists(), f"{page}: {name}"


def is_there(name: str) -> bool:
    """Whether it is a module, or something in one."""
    if name.startswith("benchmarks."):
        return (ROOT / f"{name.replace('.', '/')}.py").exists()
    module, *rest = name, *()
    while True:
        try:
            value = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    for part in rest:
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def anchors(page: str) -> set[str]:
    """Of the headings, as GitHub and the site make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            name = str(file.resolve().relative_to(ROOT))
            assert anchor in anchors(name), f"{page}: {target}"
