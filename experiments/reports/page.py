"""One HTML page that holds a run's numbers, pictures and config, and plain-text tables.

The page is a single file with no script and no reference to anything outside itself, so
it can be mailed or archived. It holds no time, version or path: the same input gives
the same bytes, and a resumed run writes the same page as an uninterrupted one.
"""

import base64
import html
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config import flatten
from experiments.reports.tables import Table, cells_of, numeric_columns, text_of
from experiments.storage.atomic import write_atomically

__all__ = ["Picture", "write_report"]


class Picture(NamedTuple):
    """A figure of the report.

    path:    a PNG file; its bytes are copied into the page.
    caption: one or two sentences under the picture.
    alt:     what the picture shows, for those who cannot see it; empty is the caption.
    """

    path: str | os.PathLike[str]
    caption: str
    alt: str = ""


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Sequence[tuple[str, Any, str]],
    tables: Sequence[Table],
    figures: Sequence[Picture],
    config: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Path:
    """Writes a run's results as one self-contained HTML page.

    Args:
      path: the file to write; its folder is made if it is not there.
      title: the heading and the name of the browser's tab.
      summary: the few numbers to read first: (name, value, unit or remark).
      tables: shown in order, below the summary.
      figures: shown in order; a wide picture takes the whole width, others half.
      config: the run's settings, possibly nested; shown flattened (`data.name`), sorted
        by name, in a section that is closed until it is clicked.
      notes: paragraphs that say how to read the numbers.

    Returns:
      The path written. The page is replaced as a whole: a failed write leaves the old
      one as it was.

    Raises:
      ValueError: a figure is not a PNG file, or a table's row is not as long as its
        columns.
      OSError: a figure cannot be read, or the page cannot be written.
    """
    body = [f"<h1>{_escape(title)}</h1>"]
    if summary:
        items = "".join(
            f'<div><dt>{_escape(name)}</dt><dd class="value">{_escape(value)}</dd>'
            f"<dd>{_escape(remark)}</dd></div>"
            for name, value, remark in summary
        )
        body.append(f'<dl class="summary">{items}</dl>')
    body += [f'<p class="note">{_escape(note)}</p>' for note in notes]
    for table in tables:
        body.append(f"<h2>{_escape(table.title)}</h2>")
        body.append(_html_table(table.columns, table.rows))
    if figures:
        pictures = "\n".join(_html_picture(picture) for picture in figures)
        body.append(f'<h2>Figures</h2>\n<div class="figures">\n{pictures}\n</div>')
    # As in config.json, so that text and number, None and "None" differ.
    settings = sorted(
        (name, json.dumps(value, default=str, ensure_ascii=False))
        for name, value in flatten(config).items()
    )
    body.append(
        f"<details><summary>Config ({len(settings)} settings)</summary>\n"
        f"{_html_table(('setting', 'value'), settings)}\n</details>"
    )
    page = _PAGE.format(title=_escape(title), style=_STYLE, body="\n".join(body))
    return write_atomically(path, page.encode())


def _escape(value: Any) -> str:
    return html.escape(text_of(value))


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = cells_of(columns, rows)
    classes = [
        ' class="number"' if numeric else ""
        for numeric in numeric_columns(cells, len(columns))
    ]

    def line(tag: str, texts: Sequence[Any]) -> str:
        pairs = zip(texts, classes, strict=True)
        inner = "".join(f"<{tag}{kind}>{_escape(t)}</{tag}>" for t, kind in pairs)
        return f"<tr>{inner}</tr>"

    body = "\n".join(line("td", row) for row in cells)
    return (
        f'<div class="table"><table>\n<thead>{line("th", columns)}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _html_picture(picture: Picture) -> str:
    data = Path(picture.path).read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError(f"{os.fspath(picture.path)!r} is not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    kind = ' class="wide"' if width > 2 * height else ""
    return (
        f"<figure{kind}>"
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" '
        f'width="{width}" height="{height}" '
        f'alt="{_escape(picture.alt or picture.caption)}">'
        f"<figcaption>{_escape(picture.caption)}</figcaption></figure>"
    )


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
_STYLE = """\
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1b1f24; --dim: #5b6570; --line: #d5dae0; --card: #f5f7f9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --text: #e4e7eb; --dim: #9ba5b0; --line: #353c45; --card: #1f242a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
.summary {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  gap: .75rem; margin: 0 0 1.5rem;
}
.summary div {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .8rem;
}
dt, .summary dd { margin: 0; color: var(--dim); font-size: .85rem; }
.summary .value {
  color: var(--text); font-size: 1.2rem; font-weight: 600; line-height: 1.35;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
.note { color: var(--dim); max-width: 48rem; margin: .5rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td {
  padding: .35rem 1.5rem .35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
th { color: var(--dim); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures {
  display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.25rem;
}
figure {
  display: flex; flex-direction: column; margin: 0; overflow: hidden;
  border: 1px solid var(--line); border-radius: 8px; background: #ffffff;
}
.wide { grid-column: 1 / -1; }
img {
  display: block; width: auto; max-width: 100%; height: auto; margin: auto;
  padding: .5rem;
}
figcaption {
  padding: .6rem .9rem; font-size: .88rem; color: var(--dim);
  border-top: 1px solid var(--line); background: var(--card);
}
details { margin-top: 2.25rem; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: 600; }
details td { font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
@media (max-width: 48rem) { .figures { grid-template-columns: minmax(0, 1fr); } }
@media print {
  :root {
    color-scheme: light;
    --page: #ffffff; --text: #000000; --dim: #444444; --line: #bbbbbb; --card: #ffffff;
  }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .8rem; }
  .summary div, figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  details::details-content { content-visibility: visible; }
}
"""
