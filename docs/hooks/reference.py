"""The reference: a page for every public name, and links to it from all other pages.

MkDocs runs this file as a hook (`mkdocs.yml`). What is public is read from `__all__`:
a name that is on no page stops the build, and so does `aevb.NAME` in a page where there
is no such name. Nothing of the project is imported.
"""

import ast
import logging
from pathlib import Path
from typing import Any, NamedTuple

from docstrings import PACKAGES, link_names
from mkdocs.structure.files import File, Files

__all__ = ["PAGES", "public_names"]

ROOT = Path(__file__).parents[2]
log = logging.getLogger("mkdocs.hooks.reference")

OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the root that are pages of the site too."""

_INTRODUCTION = """\
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false"""


class Page(NamedTuple):
    """A page of the reference.

    Attributes:
      title: of the page.
      package: whose names these are, for the reader: `aevb.elbo`.
      modules: of the package, whose names the page has; none are the package itself.
    """

    title: str
    package: str
    modules: tuple[str, ...] = ()


PAGES = {
    "bounds": Page("Bounds of log p(x)", "aevb", ("estimators", "amortization")),
    "distributions": Page("Distributions", "aevb", ("distributions", "divergences")),
    "families": Page("Families of section 2.4", "aevb", ("reparameterizations",)),
    "training": Page("Training: Algorithm 1", "aevb", ("objectives", "train")),
    "likelihood": Page("Estimates of log p(x)", "aevb", ("marginal",)),
    "full_bayes": Page("Appendix F", "aevb", ("full_bayes",)),
    "observations": Page("What is seen of x", "aevb", ("observations",)),
    "imputation": Page("What was x", "aevb", ("imputation",)),
    "datapoints": Page("Many datapoints", "aevb", ("datapoints",)),
    "contracts": Page("Contracts", "aevb", ("types", "calls")),
    "baselines": Page("aevb.baselines", "aevb.baselines"),
    "nets": Page("aevb.nets", "aevb.nets"),
    "testing": Page("aevb.testing", "aevb.testing"),
    "trained": Page("experiments.trained", "experiments.trained"),
}
"""By the names of their files."""


def _tree(module: str) -> ast.Module | None:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text("utf-8")) if path.exists() else None


def public_names(module: str) -> list[str]:
    """The names in the `__all__` of a module; none where there is no such module.

    Args:
      module: its full name.
    """
    tree = _tree(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def _names(page: Page) -> list[tuple[str, list[str]]]:
    """The modules of a page, each with the names that it has: in `__all__`'s order."""
    public = public_names(page.package)
    if not page.modules:
        return [(page.package, public)]
    source = {}  # the module of the package from which each name comes
    tree = _tree(page.package)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ImportFrom) and node.module:
            module = ".".join(node.module.split(".")[:2])
            source |= {alias.name: module for alias in node.names}
    found = []
    for module in (f"{page.package}.{module}" for module in page.modules):
        names = [name for name in public_names(module) if source.get(name) == module]
        found.append((module, [name for name in names if name in public]))
    return found


def _check_complete() -> None:
    for package in PACKAGES:
        pages = [page for page in PAGES.values() if page.package == package]
        shown = [name for page in pages for _, names in _names(page) for name in names]
        for name in public_names(package):
            if shown.count(name) != 1:
                log.warning(
                    "%s.%s is on %d pages of the reference, expected one: PAGES of "
                    "docs/hooks/reference.py says which modules a page has",
                    package,
                    name,
                    shown.count(name),
                )


def _first_sentence(module: str) -> str:
    tree = _tree(module)
    text = ast.get_docstring(tree) if tree else ""
    return (text or "").split("\n\n")[0].replace("\n", " ")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages of the reference, and those that lie in the root."""
    _check_complete()
    index = ["# Every public name", ""]
    index += ["What `import aevb` has, and the packages that are imported by name.", ""]
    for stem, page in PAGES.items():
        lines = [f"# {page.title}", ""]
        index += [f"## [{page.title}]({stem}.md)", ""]
        for module, names in _names(page):
            lines += [f"::: {module}", _INTRODUCTION, ""]
            for name in names:
                lines += _entry(page.package, name)
            index += [_first_sentence(module), ""]
            index += [", ".join(f"`{page.package}.{name}`" for name in names) + ".", ""]
        files.append(_page(config, f"reference/{stem}.md", lines))
    files.append(_page(config, "reference/index.md", index))
    for source, name in OUTSIDE.items():
        files.append(_page(config, name, [(ROOT / source).read_text("utf-8")]))
    return files


def _entry(package: str, name: str) -> list[str]:
    full = f"{package}.{name}"
    if _tree(full) is None:
        return [f"::: {full}", ""]
    # `aevb.baselines.mcem` is a function, and the module that it comes from.
    return [
        f"[](){{#{full}}}",
        "",
        f"::: {full}.{name}",
        f"    options: {{heading: {full}, toc_label: {name}}}",
        "",
    ]


def _page(config: Any, uri: str, lines: list[str]) -> File:
    return File.generated(config, uri, content="\n".join(lines))


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or is in the `__all__` of one."""
    module, _, last = name.rpartition(".")
    return _tree(name) is not None or last in public_names(module)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links the names of the project, and the pages that lie in the root."""

    def target(name: str) -> str | None:
        for package in PACKAGES:
            if name.removeprefix(f"{package}.") in public_names(package):
                return name if name.startswith(f"{package}.") else None
        if name.startswith(("aevb.", "experiments.")) and not _exists(name):
            log.warning("%s: there is no `%s`", page.file.src_uri, name)
        return None

    for source, uri in OUTSIDE.items():
        markdown = markdown.replace(f"(../{source}", f"({uri}")
    if page.file.src_uri in OUTSIDE.values():
        markdown = markdown.replace("(docs/", "(")
    return link_names(markdown, target)
