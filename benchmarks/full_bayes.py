"""Point weights against a posterior over them, on few and on many images (Appendix F).

    python -m benchmarks.full_bayes --workdir=runs/full_bayes              # the table
    python -m benchmarks.full_bayes --workdir=runs/full_bayes latents      # the picture

Maximum likelihood, MAP and full variational Bayes, each with the same network, number
of updates and step sizes, on the first N training images (binarised once), over seeds.
The same command again goes on where it stopped. `latents` is the evidence bound against
the number of latent dimensions, beside log p(x) of the test set.
"""

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import mnist
from experiments.config import base, validate
from experiments.evaluation.points import shown_nowhere
from experiments.evaluation.sampled import log_likelihood
from experiments.processes.interruption import StopRequest
from experiments.reports.style import DPI, INK, LINES, save_png
from experiments.storage.atomic import read_json, write_json
from experiments.training.opened import load_run

METHODS = {"ML": "point", "MAP": "point", "VB": "posterior"}
SIZES = (100, 1000, 10_000, 50_000)
LATENTS = (3, 5, 10, 20, 30, 50)


def configure(
    method: str, size: int, seed: int, options: argparse.Namespace, latent_dim: int = 20
) -> ConfigDict:
    """A run of a method on the first `size` images."""
    config = base()
    config.seed = seed
    config.data.num_train, config.data.binarization = size, "static"
    config.latent_dim, config.hidden_dims = latent_dim, (200,)
    config.weights = METHODS[method]
    config.weight_prior = 0.0 if method == "ML" else options.prior
    if method == "MAP":
        config.weight_prior_on = "all"
    config.optimizer, config.learning_rate = "adam", 3e-3
    config.batch_size = 100
    config.epochs = max(1, round(options.samples / size))
    config.eval.every = config.checkpoint.every = max(1, config.epochs // 10)
    config.eval.num_samples, config.eval.num_points = 1000, 300
    validate(config)
    return config


def measure(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The numbers of a run; it is trained unless it is there."""
    results = workdir / "results.json"
    if not results.exists():
        workdir.parent.mkdir(parents=True, exist_ok=True)
        mnist.run(config, workdir)
    numbers = read_json(results)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    curve = [line for line in map(json.loads, lines) if "valid/bound" in line]
    return {
        "train": curve[-1]["train/bound"],
        "bound": numbers["test_bound"],
        "log p(x)": numbers["importance_sampling"]["test_set"]["log_likelihood"],
        "best valid": max(line["valid/bound"] for line in curve),
        "evidence": numbers.get("evidence_bound"),
    }


def stopped_early(workdir: Path) -> float:
    """Test log p(x) of the checkpoint with the best bound on the validation images."""
    kept = workdir / "stopped_early.json"
    if not kept.exists():
        opened = load_run(workdir, step="best")
        with StopRequest() as stop:
            found = log_likelihood(
                opened.config,
                opened.program,
                opened.params,
                opened.dataset.sha256,
                workdir / "stopped_early",
                stop,
                None,
                shown_nowhere,
            )
        assert found.whole is not None
        value = {"step": opened.step, "log_likelihood": float(found.whole.mean)}
        write_json(kept, value)
    return read_json(kept)["log_likelihood"]


def cell(numbers: Iterable[float]) -> str:
    """The mean over seeds, and its standard error."""
    values = list(numbers)
    error = statistics.stdev(values) / len(values) ** 0.5 if values[1:] else 0.0
    return f"{statistics.mean(values):.2f} ± {error:.2f}"


def table(options: argparse.Namespace) -> None:
    """A row for each N and method: means over seeds, and their standard errors."""
    names = ("train", "bound", "log p(x)", "best valid", "log p(x), best")
    heads = ("train bound", "test bound", "test log p(x)", "best valid bound")
    print(f"| N | method | {' | '.join(heads)} | test log p(x) there |")
    print("|---|---|---|---|---|---|---|")
    for size in options.sizes:
        for method in options.methods:
            found = []
            for seed in range(options.seeds):
                name = f"{method}-{size}-{options.prior:g}-{seed}"
                config = configure(method, size, seed, options)
                row = measure(config, options.workdir / name)
                row["log p(x), best"] = stopped_early(options.workdir / name)
                found.append(row)
            cells = [cell(row[name] for row in found) for name in names]
            print(f"| {size:,} | {method} | {' | '.join(cells)} |", flush=True)


def latents(options: argparse.Namespace) -> None:
    """The evidence bound and log p(x) against the number of latent dimensions."""
    size, rows = options.sizes[0], {}
    name = f"latents-{size}-{options.prior:g}"
    print("| N_z | evidence bound / N | train bound | test bound | test log p(x) |")
    print("|---|---|---|---|---|")
    for latent_dim in LATENTS:
        found = [
            measure(
                configure("VB", size, seed, options, latent_dim),
                options.workdir / f"{name}-{latent_dim}-{seed}",
            )
            for seed in range(options.seeds)
        ]
        rows[latent_dim] = [
            [row["evidence"] / size for row in found],
            *([row[name] for row in found] for name in ("train", "bound", "log p(x)")),
        ]
        cells = " | ".join(map(cell, rows[latent_dim]))
        print(f"| {latent_dim} | {cells} |", flush=True)
    draw(rows, options.workdir / f"{name}.png")


def draw(rows: dict[int, list[list[float]]], path: Path) -> None:
    """Two panels with one horizontal axis; a point a seed, a line through the means."""
    figure = Figure((8, 3.4), dpi=DPI, facecolor="white", layout="constrained")
    titles = ("evidence bound, nats an image", "test log p(x), nats an image")
    for axes, which, title in zip(figure.subplots(1, 2), (0, 3), titles, strict=True):
        values = [row[which] for row in rows.values()]
        axes.plot([*rows], [statistics.mean(v) for v in values], color=LINES[0])
        for latent_dim, of_seeds in zip(rows, values, strict=True):
            axes.plot([latent_dim] * len(of_seeds), of_seeds, "o", color=LINES[0])
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel("latent dimensions")
        axes.set_xticks([*rows])
    save_png(figure, path)


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"table": table, "latents": latents}
    parser.add_argument("what", nargs="?", choices=parts, default="table")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--samples", type=float, default=1e6, help="images in all")
    parser.add_argument("--prior", type=float, default=1.0, help="sd of p(theta)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    options = parser.parse_args()
    parts[options.what](options)


if __name__ == "__main__":
    main()
