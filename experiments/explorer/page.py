"""The page in one file: `assets/`, and what a run fills them with.

The scripts share one scope, in the order of `SCRIPTS`. The page allows itself no
connection: its content security policy names its own style and script by their sums,
and nothing else. It holds no time and no path: the same run gives the same bytes.
"""

import base64
import hashlib
import html
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import ConfigError
from experiments.explorer.contents import Explored, contents, places
from experiments.explorer.networks import Precision, decoder_error
from experiments.explorer.packing import Store
from experiments.storage.atomic import write_atomically

__all__ = ["PRECISIONS", "SCRIPTS", "Written", "write_explorer"]

PRECISIONS = (Precision(decoder=3, encoder=2), Precision(decoder=2, encoder=2))
"""What a page tries, in this order, until it is small enough."""

SCRIPTS = (
    "data", "random", "networks", "families", "model", "completion", "space",
    "pictures", "map", "place", "editor", "page",
)  # fmt: skip
"""The files of `assets/`, each of which uses those before it."""

_ASSETS = Path(__file__).resolve().parent / "assets"
_NUM_CHECKED = 128


class Written(NamedTuple):
    """A page that was written.

    Attributes:
      path: of the file.
      num_bytes: of the file.
      precision: of the weights in it.
      error: the largest difference of a pixel's mean that their rounding makes, at
        draws from the prior and at codes of test images.
    """

    path: Path
    num_bytes: int
    precision: Precision
    error: float


def write_explorer(run: Explored, path: Path, *, most_bytes: int) -> Written:
    """Writes the page of a run.

    Args:
      run: what it shows.
      path: of the file; an old one is replaced as a whole.
      most_bytes: of the file: weights get fewer bits until it is as small.

    Raises:
      ConfigError: it is too large with the fewest bits.
    """
    for precision in PRECISIONS:
        page = _page(*contents(run, precision)).encode()
        if len(page) <= most_bytes:
            break
    else:
        raise ConfigError(
            f"the page has {len(page) / 1e6:.1f} MB with 16 bits a weight, expected at "
            f"most {most_bytes / 1e6:g}: give --megabytes={math.ceil(len(page) / 1e6)}"
        )
    error = decoder_error(
        run.program.model, run.params, precision, places(run, _NUM_CHECKED)
    )
    return Written(write_atomically(path, page), len(page), precision, error)


def _page(words: dict[str, Any], store: Store) -> str:
    script = "\n".join(
        (_ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS
    )
    script = f"\n{script}"
    style = "\n" + (_ASSETS / "style.css").read_text(encoding="utf-8")
    data = store.to_bytes()
    words = words | {
        "arrays": store.directory,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    parts = {
        "title": html.escape(words["title"]),
        "policy": (
            f"default-src 'none'; script-src {_source(script)}; style-src "
            f"{_source(style)}; img-src data:; base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        "script": script,
        # In JSON as in HTML: no text of a run ends the element that holds it.
        "words": json.dumps(words, ensure_ascii=False).replace("<", "\\u003c"),
        "data": base64.b64encode(data).decode(),
    }
    template = (_ASSETS / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _source(text: str) -> str:
    """How a content security policy names an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
