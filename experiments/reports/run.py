"""The end of a run for a person: figures, the table in the terminal, `report.html`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.keys import Stream, stream_key
from experiments.reports.charts import Curve, kl_per_dimension, learning_curve
from experiments.reports.images import image_grid, manifold_points, reconstructions
from experiments.reports.latent import latent_space
from experiments.reports.numbers import numbers_of, rows_of
from experiments.reports.page import Picture, write_report
from experiments.reports.paper_curves import paper_figure2
from experiments.reports.tables import Table, format_table
from experiments.storage.atomic import write_json
from experiments.training.result import Result

__all__ = ["write_run_report"]

# Nats; what the picture colours apart. Active units are counted by another measure.
_KL_THRESHOLD = 0.01
_METHODS = {"aevb": "AEVB", "wake_sleep": "Wake-sleep", "mcem": "Monte Carlo EM"}
_MANIFOLD_SIDE = 20


def write_run_report(result: Result, workdir: Path) -> Path:
    """Draws the figures, writes `results.json` and `report.html`, prints the table.

    Returns:
      The path of the report.
    """
    numbers = numbers_of(result)
    write_json(workdir / "results.json", numbers)
    pictures = _figures(result, workdir / "figures")
    rows = rows_of(numbers)
    print()
    print(format_table(("test set", "value", ""), rows))
    report = write_report(
        workdir / "report.html",
        title=f"{_METHODS[result.config.algorithm]} on {result.dataset.name}, "
        f"{result.config.latent_dim} latent dims",
        summary=rows[:4],
        tables=[Table("Results", ("quantity", "value", "remark"), rows)],
        figures=pictures,
        config=result.config.to_dict(),
        notes=_notes(result),
    )
    print(f"report {report}")
    return report


def _notes(result: Result) -> list[str]:
    config = result.config
    notes = []
    if config.data.binarization == "grey" and config.likelihood == "bernoulli":
        notes.append(
            "The training targets are grey pixels under a Bernoulli, as in the paper's "
            "Fig. 2 (very probably). The bound is then not a bound on a likelihood of "
            "anything, cannot be compared with results on binary MNIST, and has no "
            "log p(x) to estimate."
        )
    elif config.likelihood == "gaussian":
        notes.append(
            "A density over pixels scaled to bytes / "
            f"{config.data.scale}: nats change with that scaling."
        )
        notes.append(_floor_note(config.min_scale))
    else:
        how = "drawn anew at each presentation in training, once for evaluation"
        if config.data.binarization == "static":
            how = "drawn once"
        notes.append(
            f"Pixels are binary, P(1) = byte / {config.data.scale}, {how} with a fixed "
            "key."
        )
    if config.weights != "point":
        notes.append(
            "The weights have a posterior q(theta), with the prior N(0, "
            f"{config.weight_prior:g}²): the bound is its mean over q(theta), and log "
            "p(x) is the predictive one, log E p(x|theta). Pictures are of the means."
        )
    notes.append(
        f"Matrix products: {config.precision} in training and in the bound, "
        f"{config.eval.precision} in log p(x)."
    )
    return notes


def _floor_note(min_scale: float) -> str:
    if not min_scale:
        return (
            "The density is unbounded: it goes to infinity as a pixel's standard "
            "deviation goes to 0. config.min_scale sets a floor."
        )
    return (
        "The density would be unbounded as a pixel's standard deviation goes to 0: it "
        f"is at least {min_scale:.3g} (config.min_scale)."
    )


def _figures(result: Result, folder: Path) -> list[Picture]:
    folder.mkdir(exist_ok=True)
    config, program, test = result.config, result.program, result.test
    shape = result.dataset.image_shape

    def means(zs: jax.Array) -> np.ndarray:
        def mean(z: jax.Array) -> jax.Array:
            p: Any = program.model.decode(result.params, z)
            return p.mean

        images = np.asarray(jax.jit(jax.vmap(mean))(zs))
        return np.clip(images, 0, 1).reshape(-1, *shape)

    pictures = [_learning_curve(result, folder / "learning_curve.png")]
    if test is not None:
        chosen = np.arange(10) * len(program.test) // 10
        originals = program.to_input(jnp.asarray(program.test[chosen]))
        pictures.append(
            Picture(
                reconstructions(
                    folder / "reconstructions.png",
                    np.asarray(originals).reshape(-1, *shape),
                    means(test.means[chosen]),
                ),
                "Test images, and the decoder's mean at the posterior's mean.",
            )
        )
    prior = program.model.prior(result.params)
    zs = _prior_samples(result, 100)
    pictures.append(
        Picture(
            image_grid(
                folder / "samples.png", means(zs), columns=10, title="Prior samples"
            ),
            "The decoder's mean at 100 draws from the prior.",
        )
    )
    if test is not None and len(test.kl_per_dim):
        pictures.append(
            Picture(
                kl_per_dimension(
                    folder / "kl_per_dimension.png",
                    test.kl_per_dim,
                    threshold=_KL_THRESHOLD,
                ),
                "Mean KL(q(z|x) ‖ p(z)) of each latent dimension, test set, sorted.",
            )
        )
    if test is not None:
        labels = result.dataset.test.labels
        by = "" if labels is None else ", coloured by digit"
        pictures.append(
            Picture(
                latent_space(folder / "latent_space.png", test.means, labels),
                f"Posterior means of the test set{by}.",
            )
        )
    if config.latent_dim == 2 and prior is None:
        grid = jnp.asarray(manifold_points(_MANIFOLD_SIDE))
        pictures.append(
            Picture(
                image_grid(
                    folder / "manifold.png",
                    means(grid),
                    columns=_MANIFOLD_SIDE,
                    title="Learned manifold",
                    gap=0,
                ),
                "The decoder's mean on a grid through the inverse normal CDF (Fig. 4).",
            )
        )
    return pictures


def _prior_samples(result: Result, count: int) -> jax.Array:
    """Draws from the model's own prior, the same for every run. `[count, J]`"""
    z = jnp.zeros(result.config.latent_dim)
    prior = aevb.prior_or_normal(result.program.model.prior(result.params), z)
    keys = jax.random.split(stream_key(Stream.PRIOR_SAMPLES), count)
    return jax.vmap(prior.sample)(keys)


def _learning_curve(result: Result, path: Path) -> Picture:
    curve = result.config.eval.curve

    def series(name: str, label: str, dashed: bool) -> Curve:
        lines = [line for line in result.metrics if name in line]
        return Curve(
            label,
            np.array([line["samples"] for line in lines]),
            np.array([line[name] for line in lines]),
            dashed,
        )

    what = "bound"
    curves = [
        series("train/bound", "train", False),
        series(f"{curve}/bound", curve, True),
    ]
    caption = "The bound in training (mean over each epoch) and on held-out images."
    if result.test is None:
        what, curves = "objective", [series("train/objective", "train", False)]
        caption = "The objective in training (mean over each epoch)."
    reference = () if result.test is None else _paper_curves(result)
    if reference:
        caption += " Grey: the paper's Fig. 2, digitised."
    learning_curve(
        path,
        curves,
        reference=reference,
        xlabel="training samples evaluated",
        ylabel=f"{what}, nats per image",
    )
    return Picture(path, caption)


def _paper_curves(result: Result) -> Sequence[Curve]:
    """Fig. 2's panel of these data and this many latent dimensions, if there is one."""
    names = {"mnist": "mnist", "frey_face": "freyface"}
    name, grey = result.dataset.name, result.config.data.binarization == "grey"
    if name not in names or not grey:
        return ()
    try:
        return paper_figure2(result.config.latent_dim, names[name])
    except ValueError:  # no such panel
        return ()
