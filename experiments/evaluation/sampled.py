"""log p(x) of a whole test set, from many samples of some of its images.

K = 5000 samples of every test image take several times as long as training. What
spreads the images' log p(x) is nearly all seen with a few dozen samples: those are
drawn of every image, K of some, and the mean of all follows with the error of that
choice (`aevb.sampled_mean`).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import aevb
from experiments.evaluation.estimators import importance
from experiments.evaluation.points import (
    Measured,
    Progress,
    evenly_spaced,
    point_evaluator,
    points_identity,
)
from experiments.keys import Stream, stream_key
from experiments.processes.interruption import StopRequest
from experiments.program import Program
from experiments.storage.parts import Parts

__all__ = ["SampledLikelihood", "log_likelihood"]

# Enough for the spread that says how many more are needed.
_FIRST_POINTS = 100


class SampledLikelihood(NamedTuple):
    """log p(x) of a test set by importance sampling.

    Attributes:
      points: with K samples, of the chosen images.
      whole: the mean over all images and the error of the choice, nats; None where all
        were chosen, or there is no proxy and no error was asked for.
    """

    points: Measured
    whole: aevb.SampledMean | None


def log_likelihood(
    config: ConfigDict,
    program: Program,
    params: Any,
    data_sha256: str,
    workdir: Path,
    stop: StopRequest,
    mesh: Mesh | None,
    report: Callable[[Progress], None],
) -> SampledLikelihood:
    """Estimates log p(x) as `config.eval` says; continues what is in `workdir`.

    `num_points` images have K = `num_samples` samples, evenly spaced over the test
    split. With a `std_error` they are a random choice instead, which grows until the
    error of the whole split's mean is below it, or until `num_points` are in it.

    Args:
      config: of the run.
      program: of the run.
      params: trained.
      data_sha256: of the data.
      workdir: of the run; finished points are kept in its folder `evaluation`.
      stop: asked after every batch of points, in all processes.
      mesh: of the axis "data", whose devices share the points; None is one device.
      report: called after every batch of points.

    Raises:
      StoppedError: a signal came, and what was done is saved.
    """
    fields, images = config.eval, program.test

    def evaluator(
        num_samples: int, batch_size: int, name: str
    ) -> Callable[[np.ndarray], Measured]:
        estimator = importance(
            program.likelihood_model,
            num_samples=num_samples,
            chunk_size=fields.chunk_size,
            batch_size=batch_size,
        )
        identity = points_identity(config, params, data_sha256) | estimator.settings
        evaluate = point_evaluator(estimator, program.to_input, mesh=mesh, share=True)
        parts = Parts(workdir / "evaluation" / f"{name}.jsonl", identity)
        return partial(evaluate, params, images, parts=parts, stop=stop, report=report)

    measure = evaluator(fields.num_samples, fields.batch_size, "log_likelihood")
    total, has_proxy = len(images), 0 < fields.proxy_samples < fields.num_samples
    limit = min(fields.num_points or total, total)
    if limit < 3 or (limit == total and not fields.std_error):
        return SampledLikelihood(measure(evenly_spaced(total, limit)), None)

    proxies = np.zeros(total)
    if has_proxy:
        # As many draws at a time.
        batch_size = fields.batch_size * fields.chunk_size // fields.proxy_samples
        cheap = evaluator(
            fields.proxy_samples, max(1, batch_size), "log_likelihood_proxy"
        )
        proxies = cheap(np.arange(total)).values["log_likelihood"]

    def whole(points: Measured) -> aevb.SampledMean:
        values = jnp.asarray(points.values["log_likelihood"])
        chosen = jnp.asarray(proxies[points.indices])
        return aevb.sampled_mean(values, chosen, jnp.asarray(proxies))

    if not fields.std_error:
        points = measure(evenly_spaced(total, limit))
        return SampledLikelihood(points, whole(points) if has_proxy else None)

    order = np.asarray(jax.random.permutation(stream_key(Stream.TEST_POINTS), total))
    count = min(_FIRST_POINTS, limit)
    while True:
        points = measure(np.sort(order[:count]))
        found = whole(points)
        if found.std_error <= fields.std_error or count == limit:
            return SampledLikelihood(points, found if count < total else None)
        # std_error^2 = s^2 (1 / n - 1 / N): the n of the error that is asked for, a
        # little more where the spread was found too small.
        spread = float(found.std_error) ** 2 / (1 / count - 1 / total)
        needed = spread / (fields.std_error**2 + spread / total)
        count = min(limit, max(int(1.05 * needed) + 1, count + 10))
