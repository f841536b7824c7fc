"""The page of restored images: tables, grids, error against steps; and the files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.evaluation.points import Measured
from experiments.reports.charts import Curve, learning_curve
from experiments.reports.images import image_rows
from experiments.reports.page import Picture, write_report
from experiments.reports.tables import Table, format_table
from experiments.restoration.measuring import Found, TaskFound
from experiments.restoration.methods import METHODS
from experiments.restoration.problem import curve_steps
from experiments.restoration.scores import (
    Score,
    conditional,
    plain,
    sandwich_gap,
    scores,
    shortfall,
    with_error,
)
from experiments.restoration.verdict import verdict
from experiments.storage.atomic import write_atomically, write_json

__all__ = ["write_restoration_report"]

# What stands for all methods in a picture: the first of them that was asked for.
_SHOWN = ("exact", "hmc", "ac-mwg", "lair", "ais", "mwg", "sir", "pseudo-gibbs")


def write_restoration_report(
    found: Found,
    folder: Path,
    *,
    title: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Path:
    """Writes results.json, figures/, report.html, and restored/ of the user's images.

    Args:
      found: by `experiments.restoration.measuring.measure`.
      folder: where.
      title: of the page.
      config: of the run.
      options: of the command.

    Returns:
      The path of the page.
    """
    tables = [_table(found, one) for one in found.tasks] if found.scored else []
    sentences = verdict(found) if found.scored else []
    write_json(
        folder / "results.json",
        {
            "tasks": {
                one.task.name: {
                    "label": one.task.label,
                    "methods": {
                        name: score.as_json()
                        | {"shortfall": plain(shortfall(one, name))}
                        for name, score in scores(one).items()
                    },
                    "conditional": plain(conditional(found, one)),
                    "sandwich": plain(sandwich_gap(one)),
                }
                for one in found.tasks
            },
            "verdict": sentences,
            "options": options,
        },
    )
    pictures = []
    for one in found.tasks:
        pictures += _pictures(found, one, folder / "figures")
        if found.own:
            _write_images(found, one, folder / "restored" / one.task.name)
    for table in tables:
        print(f"\n{table.title}\n{format_table(table.columns, table.rows)}")
    print("\n" + "\n".join(sentences))
    page = write_report(
        folder / "report.html",
        title=title,
        summary=[],
        tables=tables,
        figures=pictures,
        config={"run": config, "options": options},
        notes=[*sentences, *_NOTES] if found.scored else [_DAMAGED],
    )
    if found.own:
        print(f"images {folder / 'restored'}")
    print(f"report {page}")
    return page


_NOTES = (
    "log p(x|y), by draws: the log density that the method's draws of z give to what "
    "is missing, log of the mean of p(x|z, y); below the truth, the more so the fewer "
    "draws are near it. AIS and quadrature tell the truth about the model: the best "
    "that any sampler can do.",
    "RMSE is of the posterior mean, wrong pixels are of the marginal mode, log loss is "
    "that of each pixel's probability, all over the pixels that are asked for. "
    "Calibration: the mean distance between what is said of pixels (in ten bins of "
    "probability) and how many of them are white. ± is the standard error over images.",
    "ESS: of the chains after burn-in, of the worst dimension of z; of weights with "
    "SIR, AIS and LAIR. R-hat: the worst dimension.",
)
_DAMAGED = (
    "The images are what was seen: there is no truth to score the answers against."
)


def _table(found: Found, one: TaskFound) -> Table:
    columns = [
        "method", "log p(x|y), nats", "nats / pixel", "RMSE",
        "wrong, %" if found.binary else "mean abs. error",
        *(["F1"] if found.binary else []),
        "log loss, nats / pixel" if found.binary else "in the 90 % interval, %",
        "calibration" if found.binary else "PSNR, dB",
        "acceptance", "ESS", "R-hat", "images / s",
    ]  # fmt: skip
    rows: list[list[Any]] = []
    truth = conditional(found, one)
    if truth is not None:
        nats = with_error(truth["log_likelihood"], truth["std_error"], ".2f")
        rows.append(
            [
                f"the model, by AIS (± {truth['draws_std_error']:.2f} over chains)",
                nats,
                f"{truth['per_pixel']:.4f}",
                *([None] * (len(columns) - 3)),
            ]
        )
    for score in scores(one).values():
        rows.append([_label(one, score.name), *_cells(score, found.binary)])
    if "exact" in one.methods:
        columns.insert(3, "below the truth, nats / pixel")
        names = [""] * (truth is not None) + list(one.methods)
        for name, row in zip(names, rows, strict=True):
            below = shortfall(one, name) if name else None
            text = None if below is None else with_error(*below, ".4f")
            row.insert(3, text)
    return Table(f"{one.task.name}: {one.task.label}", columns, rows)


def _label(one: TaskFound, name: str) -> str:
    label = one.methods[name].label
    known = METHODS.get(name)
    return f"{label} (baseline)" if known is not None and known.is_baseline else label


def _cells(score: Score, binary: bool) -> list[Any]:
    def number(value: float | None, digits: int) -> str | None:
        return None if value is None or np.isnan(value) else f"{value:.{digits}f}"

    nats = number(score.log_prob, 2)
    if nats is not None:
        nats = with_error(score.log_prob, score.log_prob_error, ".2f")
    scale, layout = (100, ".2f") if binary else (1, ".4f")
    wrong = with_error(scale * score.wrong, scale * score.wrong_error, layout)
    if binary:
        own = [
            number(score.f1, 3),
            number(score.log_loss, 4),
            number(score.calibration, 4),
        ]
    else:
        inside = None if score.inside is None else 100 * score.inside
        own = [number(inside, 1), number(-20 * np.log10(score.rmse), 2)]
    return [
        nats,
        number(score.log_prob_per_pixel, 4),
        with_error(score.rmse, score.rmse_error, ".4f"),
        wrong,
        *own,
        number(score.diagnostics.get("acceptance"), 2),
        number(score.diagnostics.get("ess"), 1),
        number(score.diagnostics.get("r_hat"), 3),
        number(score.images_per_second, 1),
    ]


def _pictures(found: Found, one: TaskFound, folder: Path) -> list[Picture]:
    name = one.task.name
    made = []
    grid = folder / f"{name}.png"
    shape, num = found.images.shape[1:], min(10, len(found.images))

    def images(values: Any) -> np.ndarray:
        values = np.asarray(values, np.float64).reshape(-1, *shape)[:num]
        # What is not seen is grey.
        return np.clip(np.where(np.isnan(values), 0.6, values), 0, 1)

    main = next((known for known in _SHOWN if known in one.pictures), None)
    first = next(iter(one.pictures.values()))
    rows: dict[str, Any] = {} if not found.scored else {"truth": found.images[:num]}
    rows["seen"] = images(first["seen"])
    if main is not None:
        shown, label = one.pictures[main], METHODS[main].label
        for index in range(shown["draws"].shape[1]):
            rows[f"draw {index + 1}, {label}"] = images(shown["draws"][:, index])
        # A binary pixel's standard deviation is at most a half.
        rows[f"uncertainty, {label}"] = images(
            shown["spread"] * (2 if found.binary else 4)
        )
    for method, pictures in one.pictures.items():
        rows[f"mean, {METHODS[method].label}"] = images(pictures["mean"])
    image_rows(grid, rows, title=f"{name}: {one.task.label}")
    made.append(
        Picture(
            grid,
            f"{one.task.label.capitalize()}: truth, what is seen of it (grey is not "
            "seen), draws, uncertainty (standard deviation), and the mean of each "
            "method.",
        )
    )
    chains = {
        method: measured
        for method, measured in one.methods.items()
        if method in METHODS and METHODS[method].has_chains
    }
    if chains:
        made.append(_error_against_steps(found, one, chains, folder))
    return made


def _error_against_steps(
    found: Found, one: TaskFound, chains: Mapping[str, Measured], folder: Path
) -> Picture:
    steps = curve_steps(found.budget.num_steps)

    def curve(measured: Measured) -> np.ndarray:
        per_image = measured.values["curve"] / measured.values["num"][:, None]
        return np.sqrt(per_image.mean(axis=0))

    reference = []
    for name in ("exact", "encoder"):
        if name in one.methods:
            rmse = scores(one)[name].rmse
            label = one.methods[name].label
            reference.append(Curve(label, steps, np.full(len(steps), rmse)))
    path = learning_curve(
        folder / f"{one.task.name}-steps.png",
        [Curve(one.methods[name].label, steps, curve(chains[name])) for name in chains],
        reference=reference,
        xlabel="steps of each chain",
        ylabel="RMSE of the mean of the second half of the steps",
        title=f"{one.task.name}: error against steps",
    )
    return Picture(
        path,
        f"{one.task.label.capitalize()}: the error of each chain's answer after so "
        f"many steps, of {found.budget.num_chains} chains together.",
    )


def _write_images(found: Found, one: TaskFound, folder: Path) -> None:
    """PNG files of each image, and an NPY of all means, by method."""
    shape = found.images.shape[1:]
    for method, pictures in one.pictures.items():
        for name, values in (
            ("mean", pictures["mean"]),
            ("uncertainty", pictures["spread"]),
            *_draws(pictures["draws"]),
        ):
            values = np.asarray(values, np.float32).reshape(-1, *shape)
            for index, image in enumerate(values):
                _write_png(folder / method / f"{index:03}-{name}.png", image)
        means = np.asarray(pictures["mean"], np.float32).reshape(-1, *shape)
        buffer = io.BytesIO()
        np.save(buffer, means)
        write_atomically(folder / method / "mean.npy", buffer.getvalue())


def _draws(draws: np.ndarray) -> Sequence[tuple[str, np.ndarray]]:
    return [(f"draw-{i + 1}", draws[:, i]) for i in range(draws.shape[1])]


def _write_png(path: Path, image: np.ndarray) -> None:
    buffer = io.BytesIO()
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
