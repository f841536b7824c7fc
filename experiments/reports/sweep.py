"""The end of a sweep: rows as JSON lines and CSV, the ranking, pictures, the page."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reports.charts import Curve, learning_curve, sweep_field
from experiments.reports.page import Picture, write_report
from experiments.reports.tables import Table, format_table
from experiments.storage.atomic import write_atomically, write_json
from experiments.sweeps.grid import Run

__all__ = ["ranking", "write_sweep_report"]

# More lines than these cannot be told apart.
_NUM_CURVES = 6
# Rows shown; the files have all.
_NUM_PRINTED, _NUM_ON_PAGE = 50, 1000


def _score_name(rows: Sequence[dict[str, Any]]) -> str:
    """What runs are ranked by: the validation bound, where there is one."""
    done = [row for row in rows if row["status"] == "done"]
    names = [name for name in ("valid_bound", "test_bound") if done and name in done[0]]
    return names[0] if names else "test_bound"


def ranking(
    rows: Sequence[dict[str, Any]], fields: Sequence[str]
) -> list[dict[str, Any]]:
    """Orders settings from best to worst, as a user should choose among them.

    A setting under which a run diverged stands below all that never did, however good
    the runs that were left: the mean of the survivors is not what to expect of it.
    Among themselves such settings are ordered by the share that diverged, and settings
    with one share by the mean over seeds.

    >>> rows = [
    ...     {"latent_dim": 2, "status": "done", "test_bound": -90.0},
    ...     {"latent_dim": 2, "status": "diverged in epoch 1", "test_bound": None},
    ...     {"latent_dim": 3, "status": "done", "test_bound": -95.0},
    ... ]
    >>> [(s["latent_dim"], s["num_diverged"]) for s in ranking(rows, ["latent_dim"])]
    [(3, 0), (2, 1)]

    Args:
      rows: of the sweep.
      fields: what was swept; a setting is the values of all but the seed.

    Returns:
      `{field: value, ..., "num_runs", "num_diverged", NAME, NAME_std_error}` for every
      number of the results; `std_error` is that of the mean over seeds, None for one.
    """
    by = [field for field in fields if field != "seed"]
    settings: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = json.dumps([row.get(field) for field in by])
        settings.setdefault(key, []).append(row)
    names = [
        name
        for name in ("valid_bound", "test_bound", "log_likelihood", "train_bound")
        if any(row.get(name) is not None for row in rows)
    ]
    found = []
    for own in settings.values():
        done = [row for row in own if row["status"] == "done"]
        entry: dict[str, Any] = {field: own[0].get(field) for field in by}
        entry |= {"num_runs": len(done), "num_diverged": len(own) - len(done)}
        for name in names:
            values = [row[name] for row in done if row.get(name) is not None]
            entry[name] = float(np.mean(values)) if values else None
            entry[f"{name}_std_error"] = (
                float(np.std(values, ddof=1) / np.sqrt(len(values)))
                if len(values) > 1
                else None
            )
        found.append(entry)
    score = _score_name(rows)

    def order(entry: dict[str, Any]) -> tuple[float, float]:
        diverged = entry["num_diverged"] / (entry["num_runs"] + entry["num_diverged"])
        value = entry.get(score)
        return diverged, float("inf") if value is None else -value

    return sorted(found, key=order)


def write_sweep_report(
    runs: Sequence[Run],
    fields: Sequence[str],
    rows: Sequence[dict[str, Any]],
    workdir: Path,
) -> Path:
    """Writes results.jsonl, results.csv, figures/ and report.html; prints the ranking.

    Returns:
      The path of the page.
    """
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(workdir / "results.jsonl", text.encode())
    write_atomically(workdir / "results.csv", _csv(rows).encode())
    ranked = ranking(rows, fields)
    write_json(workdir / "ranking.json", {"ranking": ranked})
    table = _ranking_table(ranked, rows, fields)
    diverged = sum(row["status"] != "done" for row in rows)
    print(f"\n{table.title}\n{format_table(table.columns, table.rows[:_NUM_PRINTED])}")
    if len(table.rows) > _NUM_PRINTED:
        print(f"... and {len(table.rows) - _NUM_PRINTED:,} more in ranking.json")
    columns = ["run", "status", "train_bound", _score_name(rows), "test_bound"]
    columns += ["log_likelihood", "seconds"]
    columns = list(dict.fromkeys(columns))
    page = write_report(
        workdir / "report.html",
        title=f"A sweep over {', '.join(fields)}: {len(rows):,} runs",
        summary=[
            ("runs", f"{len(rows):,}", f"{diverged:,} diverged"),
            *[
                (
                    "best " + name.replace("_", " "),
                    f"{ranked[0][name]:.2f}",
                    _remark(ranked[0], fields),
                )
                for name in (_score_name(rows),)
                if ranked[0].get(name) is not None
            ],
        ],
        tables=[
            _first(table, "ranking.json"),
            _first(
                Table("Runs", columns, [[row.get(c) for c in columns] for row in rows]),
                "results.csv",
            ),
        ],
        figures=_pictures(rows, ranked, fields, workdir),
        config=runs[0].config.to_dict(),
        notes=[
            "Settings are ranked by the mean over seeds. Those with a diverged run are "
            "below all others, by the share that diverged; their mean is over the runs "
            "that did not diverge. ± is the standard error of the mean. The config is "
            "that of the first run."
        ],
    )
    print(f"report {page}")
    return page


def _remark(best: dict[str, Any], fields: Sequence[str]) -> str:
    parts = [f"{field}={best[field]}" for field in fields if field != "seed"]
    if best["num_diverged"]:
        count = best["num_runs"] + best["num_diverged"]
        parts.append(f"{best['num_diverged']:,} of {count:,} runs diverged")
    return ", ".join(parts)


def _first(table: Table, file: str) -> Table:
    """A table that a page can hold."""
    if len(table.rows) <= _NUM_ON_PAGE:
        return table
    title = f"{table.title}, the first {_NUM_ON_PAGE:,} of {len(table.rows):,} ({file})"
    return table._replace(title=title, rows=table.rows[:_NUM_ON_PAGE])


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _ranking_table(
    ranked: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    fields: Sequence[str],
) -> Table:
    by = [field for field in fields if field != "seed"]
    score = _score_name(rows)
    names = [
        name
        for name in dict.fromkeys((score, "test_bound", "log_likelihood"))
        if any(entry.get(name) is not None for entry in ranked)
    ]

    def cell(entry: dict[str, Any], name: str) -> str | None:
        if entry.get(name) is None:
            return None
        error = entry[f"{name}_std_error"]
        return f"{entry[name]:.2f}" + (f" ± {error:.2f}" if error is not None else "")

    return Table(
        f"Settings by {score.replace('_', ' ')}, nats",
        [*by, "runs", "diverged", *[name.replace("_", " ") for name in names]],
        [
            [
                *[entry[field] for field in by],
                entry["num_runs"],
                entry["num_diverged"],
                *[cell(entry, name) for name in names],
            ]
            for entry in ranked
        ],
    )


def _pictures(
    rows: Sequence[dict[str, Any]],
    ranked: Sequence[dict[str, Any]],
    fields: Sequence[str],
    workdir: Path,
) -> list[Picture]:
    folder = workdir / "figures"
    score = _score_name(rows)
    by = [field for field in fields if field != "seed"]
    pictures = []
    curves = []
    for entry in ranked[:_NUM_CURVES]:
        own = [
            row
            for row in rows
            if all(row.get(field) == entry[field] for field in by)
            and row["status"] == "done"
        ]
        lines = [_lines(workdir / "runs" / row["run"]) for row in own]
        if lines and lines[0]:
            x = np.array([line["samples"] for line in lines[0]], float)
            y = np.mean(
                [[line["train/bound"] for line in run] for run in lines], axis=0
            )
            label = ", ".join(f"{f}={entry[f]}" for f in by) or "mean over seeds"
            curves.append(Curve(label, x, y, False))
    if curves:
        path = learning_curve(
            folder / "learning_curves.png",
            curves,
            xlabel="training samples evaluated",
            ylabel="train bound, nats per image",
            title="Learning curves, mean over seeds",
        )
        which = f"The best {len(curves)} settings" if by else "All seeds"
        if any(entry["num_diverged"] for entry in ranked[:_NUM_CURVES]):
            which += ", without their diverged runs"
        pictures.append(Picture(path, f"{which}; each epoch's mean."))
    values = [row for row in rows if row.get(score) is not None]
    shown = (
        "Every run" if len(values) == len(rows) else "Every run that did not diverge"
    )
    for field in fields if values else ():
        path = sweep_field(
            folder / f"{field}.png",
            [_plain(row.get(field)) for row in values],
            [row[score] for row in values],
            xlabel=field,
            ylabel=f"{score.replace('_', ' ')}, nats per image",
        )
        pictures.append(Picture(path, f"{shown}, by {field}; the line is the mean."))
    return pictures


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
