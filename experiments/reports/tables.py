"""Tables as plain text, for the terminal."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Table", "cells_of", "format_table", "numeric_columns", "text_of"]


class Table(NamedTuple):
    """A table of the report.

    title:   one line above the table.
    columns: the column names; name the unit there ("bound, nats").
    rows:    one sequence a row, as long as `columns`; see `format_table` for the cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lays a table out as aligned plain text, for the terminal.

    A column whose cells all start like numbers is flushed right, any other left. Floats
    get six significant digits, None a dash; a string is shown as it is, so a caller who
    wants other digits passes the string.

    >>> print(format_table(["quantity", "nats"], [["bound", -104.8], ["kl", 25.25]]))
    quantity    nats
    --------  ------
    bound     -104.8
    kl         25.25

    Args:
      columns: the column names.
      rows: one sequence a row, each as long as `columns`.

    Returns:
      The lines joined by newlines, with no trailing blanks and no newline at the end.

    Raises:
      ValueError: a row is not as long as `columns`.
    """
    cells = cells_of(columns, rows)
    numeric = numeric_columns(cells, len(columns))
    names = [text_of(name) for name in columns]
    lines = [names, ["-" * len(name) for name in names], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    lines[1] = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def text_of(value: Any) -> str:
    """A cell as text: six digits of a float, a dash for None."""
    if getattr(value, "ndim", None) == 0:  # a NumPy or JAX scalar
        value = value.item()
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cells_of(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """All cells as text; a row that is not as long as `columns` is a ValueError."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"a row has {len(row)} cells, the table has {len(columns)} columns "
                f"({', '.join(map(str, columns))}): {list(row)!r}"
            )
    return [[text_of(value) for value in row] for row in rows]


def numeric_columns(cells: Sequence[Sequence[str]], num_columns: int) -> list[bool]:
    """Which columns have cells that all start like numbers."""
    number = re.compile(r"[-+<>≈±]?\s?(\d|\.\d|nan\b|inf\b)|-?$", re.IGNORECASE)
    return [
        bool(cells) and all(number.match(row[i]) for row in cells)
        for i in range(num_columns)
    ]
