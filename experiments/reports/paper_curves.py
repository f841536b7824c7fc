"""The paper's own curves, digitised, to draw beside those of a run."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.reports.charts import Curve
from experiments.reproduction.protocol import LABELS

__all__ = ["paper_figure2", "paper_figure3"]

_PAPER = Path(__file__).parents[1] / "assets" / "paper"


def paper_figure2(n_z: int, dataset: str = "mnist") -> list[Curve]:
    """Reads the paper's Figure 2: lower bound against training samples.

    The values are digitised from the paper (Kingma & Welling, arXiv 1312.6114) to about
    0.1-0.3 nat.

    >>> [curve.label for curve in paper_figure2(20)][:2]
    ['paper: AEVB, train', 'paper: AEVB, test']

    Args:
      n_z: dimension of the latent space: 3, 5, 10, 20, 200 for MNIST; 2, 5, 10, 20 for
        Frey Face.
      dataset: "mnist" or "freyface".

    Returns:
      Four curves: AEVB, then wake-sleep; of each the training set (solid), then the
      test set (dashed). x: training samples evaluated; y: lower bound per datapoint,
      nats.

    Raises:
      ValueError: the paper has no such panel; the message lists those it has.
    """
    rows = _read_csv("figure2.csv")
    there = sorted({(row["dataset"], int(row["n_z"])) for row in rows})
    if (dataset, n_z) not in there:
        raise ValueError(
            f"the paper's Figure 2 has no panel for n_z={n_z!r} on {dataset!r}; it has "
            + "; ".join(
                f"{name!r} with n_z in {[j for d, j in there if d == name]}"
                for name in sorted({d for d, _ in there}, reverse=True)
            )
        )
    panel = [row for row in rows if (row["dataset"], int(row["n_z"])) == (dataset, n_z)]
    return _paper_curves(panel, "train_samples", 1.0, "lower_bound_nats")


def paper_figure3(num_train: int) -> list[Curve]:
    """Reads the paper's Figure 3: estimated marginal likelihood against samples.

    MNIST, 100 hidden units, 3 latents. The values are digitised as those of Figure 2.
    At 50 000 the first 3e6 samples of each curve are not reliable.

    Args:
      num_train: size of the training set, 1000 or 50000.

    Returns:
      Six curves: AEVB, wake-sleep, MCEM; of each the training set (solid), then the
      test set (dashed). x: training samples evaluated (the paper's axis has millions);
      y: estimate of log p(x) per datapoint, nats.

    Raises:
      ValueError: the paper has no such panel; the message lists those it has.
    """
    rows = _read_csv("figure3.csv")
    there = sorted({int(row["n_train"]) for row in rows})
    if num_train not in there:
        raise ValueError(
            f"the paper's Figure 3 has no panel for num_train={num_train!r}; "
            f"it has {there}"
        )
    panel = [row for row in rows if int(row["n_train"]) == num_train]
    return _paper_curves(panel, "train_samples_millions", 1e6, "marginal_loglik_nats")


def _read_csv(name: str) -> list[dict[str, str]]:
    with (_PAPER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _paper_curves(
    rows: Sequence[dict[str, str]], x: str, unit: float, y: str
) -> list[Curve]:
    curves = []
    for method, name in LABELS.items():
        for split in ("train", "test"):
            points = [
                (float(row[x]) * unit, float(row[y]))
                for row in rows
                if (row["method"], row["split"]) == (method, split)
            ]
            if points:
                xs, ys = np.array(sorted(points)).T
                label = f"paper: {name}, {split}"
                curves.append(Curve(label, xs, ys, dashed=split == "test"))
    return curves
