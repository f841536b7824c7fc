"""What a page holds of a run: words and settings as JSON, numbers as arrays."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import aevb
from experiments.config import GENERIC_POSTERIORS, flatten
from experiments.evaluation.bounds import BoundEvaluation, bound_evaluator
from experiments.explorer.codes import (
    choose_examples,
    describe_codes,
    prior_quantiles,
)
from experiments.explorer.networks import Precision, for_page, put_networks
from experiments.explorer.packing import Store
from experiments.keys import Stream, stream_key
from experiments.program import Program, build
from experiments.program.posteriors import family_of, prior_shape
from experiments.reports.style import class_colours
from experiments.training.opened import Opened

__all__ = ["Explored", "contents", "explore", "places"]

_METHODS = {"aevb": "AEVB", "wake_sleep": "wake-sleep", "mcem": "Monte Carlo EM"}


class Explored(NamedTuple):
    """A run as its page computes it: in float32, its weights points.

    Attributes:
      opened: the run.
      config: its configuration, with that precision and those weights.
      program: of that configuration.
      params: points.
      test: the bound and the codes of the test set; None without an encoder.
    """

    opened: Opened
    config: ConfigDict
    program: Program
    params: Any
    test: BoundEvaluation | None


def explore(opened: Opened) -> Explored:
    """Evaluates a run for its page.

    Raises:
      ConfigError: a page cannot show this run.
    """
    config, params = for_page(opened)
    program = build(config, opened.dataset)
    test = None
    if program.has_encoder:
        evaluate = jax.jit(bound_evaluator(program))
        test = jax.device_get(evaluate(params, jnp.asarray(program.test)))
    return Explored(opened, config, program, params, test)


def places(run: Explored, count: int) -> jax.Array:
    """Where the decoder is looked at: draws from the prior, and codes. `[n, J]`

    Args:
      run: of the page.
      count: of each.
    """
    z = jnp.zeros(run.config.latent_dim)
    prior = aevb.prior_or_normal(run.program.model.prior(run.params), z)
    keys = jax.random.split(stream_key(Stream.PRIOR_SAMPLES), count)
    zs = jax.vmap(prior.sample)(keys)
    if run.test is None:
        return zs
    return jnp.concatenate([zs, jnp.asarray(run.test.means[:count])])


def contents(run: Explored, precision: Precision) -> tuple[dict[str, Any], Store]:
    """What the scripts read: a JSON object, and arrays.

    Args:
      run: of the page.
      precision: of its weights.
    """
    store = Store()
    networks = put_networks(store, run.params, precision)
    labels = run.opened.dataset.test.labels
    names = np.unique(labels) if labels is not None else np.zeros(0)
    means = None if run.test is None else np.asarray(run.test.means)
    codes = describe_codes(means, run.config)
    for name in ("axes", "centre", "spread", "shares", "plane"):
        store.put(name, getattr(codes, name))
    quantiles = prior_quantiles(run.config)
    if quantiles is not None:
        store.put("quantiles", quantiles)
    if run.program.has_encoder:
        _put_images(store, run, names, codes.chosen)
    return _words(run, [str(name) for name in names]) | {"networks": networks}, store


def _put_images(
    store: Store, run: Explored, names: np.ndarray, of_codes: np.ndarray
) -> None:
    dataset, fields = run.opened.dataset, run.config.data
    chosen = choose_examples(dataset)
    put = store.put if fields.binarization == "grey" else store.put_bits
    put("images", run.program.test[chosen])
    # What chains start from where nothing is seen.
    average = np.asarray(dataset.train.images).mean(axis=0) / fields.scale
    store.put("average", np.clip(average, 1e-3, 1 - 1e-3))
    labels = dataset.test.labels
    if labels is not None:
        for name, rows in (("image_labels", chosen), ("code_labels", of_codes)):
            store.put(name, np.searchsorted(names, labels[rows]))


def _words(run: Explored, names: list[str]) -> dict[str, Any]:
    config, dataset = run.config, run.opened.dataset
    family = family_of(config)
    settings = flatten(run.opened.config.to_dict())
    del settings["data.path"]  # the data's place on this machine is no one else's
    return {
        "name": dataset.name,
        "title": f"The latent space of {dataset.name}, "
        f"{config.latent_dim} dimension{'s' * (config.latent_dim > 1)}",
        "summary": _summary(run),
        "notes": _notes(run),
        "height": dataset.image_shape[0],
        "width": dataset.image_shape[1],
        "latentDim": config.latent_dim,
        "activation": config.activation,
        "likelihood": config.likelihood,
        "minLogScale": math.log(config.min_scale) if config.min_scale else None,
        "isBinary": config.data.binarization != "grey",
        "isLikelihood": run.program.is_likelihood,
        "scale": config.data.scale,
        "family": {
            "name": config.posterior,
            "shape": prior_shape(config),
            "loc": family.loc,
            "scale": family.scale,
        },
        "hasCodes": run.test is not None,
        "labels": names,
        "colours": class_colours(max(1, len(names))),
        "testBound": None if run.test is None else float(run.test.bound),
        "config": settings,
    }


def _summary(run: Explored) -> list[str]:
    config, program = run.opened.config, run.program
    widths = [program.test.shape[1], *config.hidden_dims, config.latent_dim]
    parts = [
        f"{_METHODS[config.algorithm]}, {'–'.join(map(str, widths))} and back, "
        f"{config.activation}",
        f"step {run.opened.step:,} of {program.num_epochs * program.steps_per_epoch:,}",
    ]
    if run.test is not None:
        equation = "6" if config.posterior in GENERIC_POSTERIORS else "7"
        bound = f"{run.test.bound:.2f}".replace("-", "−")
        parts.append(
            f"test bound {bound} ± {run.test.std_error:.2f} nats "
            f"(eq. {equation}, {len(program.test):,} images)"
        )
    return parts


def _notes(run: Explored) -> list[str]:
    config = run.opened.config
    notes = []
    if config.weights != "point":
        notes.append(
            "The weights have a posterior: this page, its bound included, is of their "
            "means."
        )
    if config.algorithm == "mcem":
        notes.append(
            "Monte Carlo EM trains no encoder: there is nothing to encode a drawing "
            "with, and the axes are those of z."
        )
    if config.data.binarization == "grey" and config.likelihood == "bernoulli":
        notes.append(
            "The pixels are grey under a Bernoulli, as very probably in the paper: "
            "there is no likelihood of them, no bound on one, and nothing that follows "
            "from a part of an image."
        )
    if config.precision != "float32":
        notes.append(
            f"It was trained with {config.precision} products; this page computes in "
            "double precision."
        )
    return notes
