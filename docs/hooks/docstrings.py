"""Docstrings as Markdown has them, and signatures of records: an extension of griffe.

The docstrings in the code are laid out for people who read code. What Markdown would
take for something else is changed here, on its way to the page.
"""

import re
from collections.abc import Callable
from typing import Any

import griffe

__all__ = ["PACKAGES", "Docstrings", "as_markdown", "link_names"]

PACKAGES = (
    "aevb.baselines",
    "aevb.nets",
    "aevb.testing",
    "experiments.trained",
    "aevb",
)
"""Whose `__all__` is public; those inside another one before it."""

_DATACLASS = griffe.ExprName("dataclasses.dataclass")
_ITEM = re.compile(r"^  (?:\\\*)*(?:\w|\\_)+(?=:)", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2}\w[^*]*\*{1,2})(?![\w*])")
_BLOCK = re.compile(
    r"(^```.*?^```$|(?:\A|(?<=\n\n)) {4}.*?(?=\n\n|\Z))", re.DOTALL | re.MULTILINE
)
_CODE = re.compile(r"(`[^`]+`)")
# A name in backticks, or a call of it, that is no link yet.
_NAME = re.compile(
    r"(?<![\[`])`(?P<name>[A-Za-z_][\w.]*)(?P<call>\(\.\.\.\))?`(?![`\]])"
)


def link_names(text: str, target: Callable[[str], str | None]) -> str:
    """Makes links of the names in backticks; blocks of code stay as they are.

    Args:
      text: Markdown.
      target: `target(name)` is the full name of what it means, None where it means
        nothing of this project.
    """

    def link(match: re.Match[str]) -> str:
        found = target(match["name"])
        return match[0] if found is None else f"[{match[0]}][{found}]"

    parts = _BLOCK.split(text)
    parts[::2] = [_NAME.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def as_markdown(text: str) -> str:
    """A docstring with its examples in fences, and its formulas as they are written.

    Markdown takes >>> for three quotes, and the underscores of Σ_k w̃_k for emphasis.
    """
    return "\n\n".join(map(_paragraph, text.split("\n\n")))


def _paragraph(text: str) -> str:
    if text.startswith(">>>"):
        return f"```pycon\n{text}\n```"
    if text.startswith("    "):  # code
        return text
    parts = _CODE.split(re.sub("^Source: ", "**Source:** ", text))
    for index in range(0, len(parts), 2):
        words = _EMPHASIS.split(parts[index].replace("_", r"\_"))
        words[::2] = [word.replace("*", r"\*") for word in words[::2]]
        parts[index] = "".join(words)
    # The names of arguments and fields, at the start of their lines, are no Markdown.
    return _ITEM.sub(lambda name: name[0].replace("\\", ""), "".join(parts))


class Docstrings(griffe.Extension):
    """Rewrites docstrings for the site."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Gives a record, or a named tuple, the signature that its fields make."""
        bases = {str(base) for base in cls.bases}
        decorators = {str(decorator.value) for decorator in cls.decorators}
        if "record" in decorators or "NamedTuple" in bases:
            dataclass = griffe.Decorator(_DATACLASS, lineno=None, endlineno=None)
            cls.decorators.append(dataclass)
            for member in cls.members.values():
                if isinstance(member, griffe.Attribute) and (
                    str(member.value) == "static()"  # no default, but what it is
                ):
                    member.value = None

    def on_object(
        self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **_: Any
    ) -> None:
        """Rewrites the docstring."""
        if obj.docstring is None:
            return
        own = {obj.name, *_own_names(obj)}

        def target(name: str) -> str | None:
            if name in own:
                return None
            for package in PACKAGES:
                prefix = f"{package}."
                is_full = name.startswith(prefix)
                if is_full or f"{obj.path}.".startswith(prefix):
                    public = loader.modules_collection[package].exports or ()
                    short = name.removeprefix(prefix)
                    if short in {str(item) for item in public}:
                        return prefix + short
            return None

        text = as_markdown(obj.docstring.value)
        obj.docstring.value = link_names(text, target)


def _own_names(obj: griffe.Object) -> set[str]:
    """What a docstring means by a bare name: parameters, fields, methods."""
    names: set[str] = set()
    scope: griffe.Object | None = obj
    while scope is not None and not scope.is_module:
        if isinstance(scope, griffe.Function):
            names |= {parameter.name for parameter in scope.parameters}
        else:
            names |= set(scope.members)
        scope = scope.parent
    return names
