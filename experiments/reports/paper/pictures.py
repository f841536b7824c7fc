"""The pictures of the page about the paper's figures: curves, manifolds, samples."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.keys import Stream, stream_key
from experiments.reports.charts import Curve, learning_curve
from experiments.reports.images import image_grid, manifold_points
from experiments.reports.page import Picture
from experiments.reports.panels import CurvePanel, curve_panels
from experiments.reports.paper.verdicts import paper_points
from experiments.reports.paper_curves import paper_figure2
from experiments.reproduction import training
from experiments.reproduction.outcome import Outcome
from experiments.reproduction.protocol import LABELS
from experiments.training.opened import load_run

__all__ = ["pictures_of"]

_SIDE = 20  # of a manifold
_NUM_SAMPLES = 100
_SAMPLE_DIMS = (2, 5, 10, 20)


def pictures_of(
    outcomes: Sequence[Outcome], sections: Sequence[str], folder: Path
) -> list[Picture]:
    """Draws what is there.

    Args:
      outcomes: of all panels.
      sections: what was asked for, of `protocol.SECTIONS`.
      folder: for the PNG files. Images of a finished run are drawn once.
    """
    found = _figure_2(outcomes, folder) if "2" in sections else []
    for outcome in outcomes:
        if outcome.panel.section in ("2", "3") and outcome.panel.section in sections:
            found += _panel(outcome, folder)
    if "4" in sections:
        found += _manifolds(outcomes, folder)
    if "5" in sections:
        found += _samples(outcomes, folder)
    for section, title in (
        ("readings", "Readings of what the paper leaves open, N_z = 20, test bound"),
        ("beyond", "Other pixels and optimizers, test bound"),
    ):
        found += _together(outcomes, section, title, folder)
    return found


def _figure_2(outcomes: Sequence[Outcome], folder: Path) -> list[Picture]:
    """All panels of Fig. 2 in one picture, MNIST above Frey Face as in the paper."""
    rows = []
    for name in ("mnist", "frey_face"):
        row = [
            CurvePanel(outcome.panel.title, *curves)
            for outcome in outcomes
            if (outcome.panel.section, outcome.panel.config.data.name) == ("2", name)
            and not outcome.panel.drawn_in
            and (curves := _curves(outcome))[0]
        ]
        rows += [row] if row else []
    if sum(map(len, rows)) < 2:
        return []
    path = curve_panels(
        folder / "figure2.png",
        rows,
        xlabel="training samples evaluated",
        ylabel="bound, nats",
    )
    caption = (
        "Fig. 2: ours in colour, the paper's in grey; solid is train, dashed is test."
    )
    return [Picture(path, caption)]


def _curves(outcome: Outcome) -> tuple[list[Curve], list[Curve]]:
    """A panel's curves, ours and the paper's."""
    panel = outcome.panel
    curves = []
    for method in panel.methods:
        for split in ("train", "test"):
            if panel.section == "3":
                points = [
                    (float(one.samples), one.value)
                    for one in outcome.marginals
                    if (one.method, one.split) == (method, split)
                ]
            else:
                run = outcome.curve(method)
                points = run.points(f"{split}/bound") if run else []
            if points:
                label = f"{LABELS[method]}, {split}"
                curves.append(_curve(label, points, dashed=split == "test"))
    if not curves:
        return [], []
    reference = [
        _curve(f"paper: {LABELS[method]}, {split}", points, dashed=split == "test")
        for (method, split), points in paper_points(outcome).items()
        if method in panel.methods
    ]
    return curves, _visible(reference, curves)


def _panel(outcome: Outcome, folder: Path) -> list[Picture]:
    """A panel of Fig. 2 or 3: our curves over the paper's."""
    panel = outcome.panel
    curves, reference = _curves(outcome)
    if panel.drawn_in or not curves:
        return []
    what = "bound" if panel.section == "2" else "log p(x), Appendix D"
    path = learning_curve(
        folder / f"{panel.name}.png",
        curves,
        reference=reference,
        xlabel="training samples evaluated",
        ylabel=f"{what}, nats per image",
        title=f"Fig. {panel.section}: {panel.title}",
    )
    caption = (
        f"Fig. {panel.section}, {panel.title}: ours in colour, the paper's in grey; "
        "solid is train, dashed is test."
    )
    return [Picture(path, caption)]


def _curve(label: str, points: Sequence[tuple[float, float]], *, dashed: bool) -> Curve:
    xs, ys = np.array(sorted(points)).T
    return Curve(label, xs, ys, dashed)


def _visible(reference: Sequence[Curve], curves: Sequence[Curve]) -> list[Curve]:
    """The paper's curves, up to a few times beyond the end of ours."""
    end = 10 * max(float(np.max(curve.x)) for curve in curves)
    found = []
    for curve in reference:
        keep = np.asarray(curve.x) <= end
        if keep.any():
            xs, ys = np.asarray(curve.x)[keep], np.asarray(curve.y)[keep]
            found.append(curve._replace(x=xs, y=ys))
    return found


def _together(
    outcomes: Sequence[Outcome], section: str, title: str, folder: Path
) -> list[Picture]:
    """All runs of a section on MNIST in one picture, over the paper's N_z = 20."""
    curves = []
    for outcome in outcomes:
        for run in outcome.curves:
            points = run.points("test/bound")
            on_mnist = outcome.panel.config.data.name == "mnist"
            if (
                outcome.panel.section == section
                and run.status == "done"
                and points
                and on_mnist
            ):
                label = outcome.panel.title
                if len(outcome.panel.methods) > 1:
                    label += f", {LABELS[run.method]}"
                dashed = run.method == "wake_sleep"
                curves.append(_curve(label, points, dashed=dashed))
    if not curves:
        return []
    paper = [curve for curve in paper_figure2(20) if curve.label.endswith("test")]
    if section == "readings":
        paper = paper[:1]
    path = learning_curve(
        folder / f"{section}.png",
        curves,
        reference=_visible(paper, curves),
        xlabel="training samples evaluated",
        ylabel="bound, nats per image",
        title=title,
    )
    caption = f"{title}. Grey: the paper's Fig. 2."
    if section == "beyond":
        caption += " Dashed is wake-sleep. Nats of grey and of binary pixels differ."
    return [Picture(path, caption)]


def _manifolds(outcomes: Sequence[Outcome], folder: Path) -> list[Picture]:
    found = []
    for outcome in outcomes:
        run = outcome.curve("aevb")
        name = outcome.panel.name
        if run is None or name not in ("mnist-2", "frey_face-2"):
            continue
        path = folder / f"manifold-{name}.png"
        if not path.exists():
            means = _decode(outcome, run, manifold_points(_SIDE))
            title = f"Fig. 4: {outcome.panel.title}"
            image_grid(path, means, columns=_SIDE, title=title, gap=0)
        caption = (
            f"Fig. 4, {outcome.panel.title}: the decoder's mean on a grid through the "
            f"inverse normal CDF, after {run.samples:.2g} samples."
        )
        found.append(Picture(path, caption))
    return found


def _samples(outcomes: Sequence[Outcome], folder: Path) -> list[Picture]:
    found = []
    for dim in _SAMPLE_DIMS:
        for outcome in outcomes:
            run = outcome.curve("aevb")
            if run is None or outcome.panel.name != f"mnist-{dim}":
                continue
            path = folder / f"samples-{outcome.panel.name}.png"
            if not path.exists():
                key = stream_key(Stream.PRIOR_SAMPLES)
                zs = jax.random.normal(key, (_NUM_SAMPLES, dim))
                title = f"Fig. 5: {outcome.panel.title}"
                images = _decode(outcome, run, np.asarray(zs))
                image_grid(path, images, columns=10, title=title)
            caption = (
                f"Fig. 5, {outcome.panel.title}: the decoder's mean at draws from the "
                f"prior, after {run.samples:.2g} samples."
            )
            found.append(Picture(path, caption))
    return found


def _decode(outcome: Outcome, run: training.Curve, zs: np.ndarray) -> np.ndarray:
    """The decoder's means, as images in [0, 1]."""
    opened = load_run(run.folder, data_path=outcome.panel.config.data.path)

    def mean(params: Any, z: jax.Array) -> jax.Array:
        p: Any = opened.program.model.decode(params, z)
        return p.mean

    images = jax.jit(jax.vmap(partial(mean, opened.params)))(jnp.asarray(zs))
    shape = opened.dataset.image_shape
    return np.clip(np.asarray(images), 0, 1).reshape(-1, *shape)
