"""Formulas in MathML, which a browser draws by itself: no script, and no network.

MkDocs runs this file as a hook. The font, with the table of mathematics that MathML
needs, comes from a package; the site has a copy of it.
"""

import html
import importlib.util
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

_FONT = "STIXTwoMath-Regular.ttf"  # the SIL Open Font License
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)
_FUNCTION = "(<mi>(?:log|tanh|exp)</mi>)"
_THIN = '<mspace width="0.167em"></mspace>'
_TAG = re.compile(r"\\tag\{(.*?)\}")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the font of the formulas to the site; `docs/style.css` names it."""
    package = importlib.util.find_spec("ziamath")
    if package is None or package.origin is None:
        raise PluginError("there is no ziamath: pip install -e '.[docs]'")
    source = Path(package.origin).parent / "fonts" / _FONT
    files.append(File.generated(config, f"fonts/{_FONT}", abs_src_path=str(source)))
    return files


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Turns what `pymdownx.arithmatex` found into MathML, its tag beside it."""

    def formula(match: re.Match[str]) -> str:
        tex = html.unescape(match[3]).strip()
        tag = _TAG.search(tex)
        is_block = match[2] == "["
        drawn = convert(_TAG.sub("", tex), display="block" if is_block else "inline")
        if "\\" in drawn:
            raise PluginError(f"{page.file.src_uri}: this formula is not read: {tex}")
        drawn = _with_spaces(drawn)
        if not is_block:
            return drawn
        number = f"<span>({tag[1]})</span>" if tag else ""
        return f'<div class="formula">{drawn}{number}</div>'

    return _FORMULA.sub(formula, content)


def _with_spaces(drawn: str) -> str:
    """The spaces of TeX that MathML leaves out: around log, ∼, and after a sign."""
    drawn = drawn.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    drawn = re.sub(r"(&#x0003D;</mo>)<mo>(&#x02212;)", r'\1<mo form="prefix">\2', drawn)
    drawn = re.sub(rf"(?<=[^o]>){_FUNCTION}(?!<mo)", rf"{_THIN}\1{_THIN}", drawn)
    drawn = re.sub(rf"{_FUNCTION}(?!<mo|{_THIN})", rf"\1{_THIN}", drawn)
    return drawn.replace(f"<mrow>{_THIN}", "<mrow>")
