"""Figure 3: log p(x) along training, of every kept checkpoint of every method."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aevb
from experiments.evaluation.points import (
    Measured,
    Progress,
    point_evaluator,
    points_identity,
)
from experiments.processes.interruption import StopRequest
from experiments.program import build
from experiments.reproduction.appendix_d import AppendixE, appendix_d
from experiments.reproduction.protocol import Panel
from experiments.reproduction.training import Curve
from experiments.storage.atomic import read_json, write_json
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.parts import Parts
from experiments.storage.workdir import read_config, same_work
from experiments.training.loop import start
from experiments.training.opened import load_run

__all__ = ["Marginal", "find_marginals", "measure_panel"]

# Nats between Appendix D and importance sampling: the first has failed.
_FAILED = 20.0


class Marginal(NamedTuple):
    """Estimates of log p(x) of one split by the parameters of one step; nats.

    Attributes:
      method: one of `protocol.LABELS`.
      split: train or test.
      samples: training samples evaluated before.
      num_points: datapoints of the split.
      value: the mean of Appendix D's estimates, but for those that failed.
      std_error: of it, over datapoints.
      num_failed: datapoints whose two halves of draws lie in different modes: 20 nats
        or more from importance sampling.
      importance: the mean of importance sampling from normals around the same chains.
      truth: the mean over the same datapoints by quadrature; None where it was not
        computed.
      truth_std_error: of not having the quadrature of all of them.
      acceptance: the mean of the chains'.
      r_hat: the 95th percentile over datapoints.
      seconds: that the estimates took.
    """

    method: str
    split: str
    samples: int
    num_points: int
    value: float
    std_error: float
    num_failed: int
    importance: float
    truth: float | None
    truth_std_error: float | None
    acceptance: float
    r_hat: float
    seconds: float


def measure_panel(
    panel: Panel,
    curves: list[Curve],
    workdir: Path,
    stop: StopRequest,
    report: Callable[[Progress], None],
) -> None:
    """Estimates log p(x) for every kept checkpoint of a panel's runs; continues.

    Args:
      panel: of Fig. 3; of any other, nothing is done.
      curves: its runs.
      workdir: of the whole; finished points are kept in its folder `marginal`.
      stop: asked after every batch of points.
      report: called after every batch of points.

    Raises:
      StoppedError: a signal came, and what was done is saved.
    """
    how = panel.likelihoods
    if how is None or find_marginals(panel, workdir):
        return
    finished = [curve for curve in curves if curve.status == "done"]
    found: list[Marginal] = []
    if finished:
        measure = _measurer(panel, how, finished[0], workdir, stop, report)
        found = [one for curve in finished for one in measure(curve)]
    made = [one._asdict() for one in found]
    write_json(_file(panel, workdir), {"of": _identity(panel, how), "estimates": made})


def find_marginals(panel: Panel, workdir: Path) -> list[Marginal]:
    """The estimates of a panel, if they are all there."""
    how, path = panel.likelihoods, _file(panel, workdir)
    kept = read_json(path) if how and path.exists() else {}
    if how is None or kept.get("of") != _identity(panel, how):
        return []
    return [Marginal(**one) for one in kept["estimates"]]


def _identity(panel: Panel, how: AppendixE) -> dict[str, Any]:
    """Of what the estimates are, and by which estimator."""
    asked = {"num_points": how.num_points, "num_quadrature": how.num_quadrature}
    return same_work(panel.config.to_dict()) | asked | how.identity(with_truth=True)


def _file(panel: Panel, workdir: Path) -> Path:
    return workdir / "marginal" / f"{panel.name}.json"


def _measurer(
    panel: Panel,
    how: AppendixE,
    first: Curve,
    workdir: Path,
    stop: StopRequest,
    report: Callable[[Progress], None],
) -> Callable[[Curve], list[Marginal]]:
    """Returns `measure(curve)`, of its kept checkpoints; compiled once for all runs."""
    path = panel.config.data.path
    opened = load_run(first.folder, data_path=path)
    program, latent_dim = opened.program, panel.config.latent_dim
    images = {
        split: np.asarray(getattr(program, split)[: how.num_points])
        for split in ("train", "test")
    }
    kinds = [
        appendix_d(program.likelihood_model, latent_dim, how, with_truth=with_truth)
        for with_truth in (False, True)
    ]
    evaluators = [point_evaluator(one, program.to_input) for one in kinds]

    def measure(curve: Curve) -> list[Marginal]:
        config = read_config(curve.folder, data_path=path)
        like = jax.eval_shape(partial(start, config, build(config, opened.dataset)))
        checkpoints = Checkpoints(curve.folder)
        steps = checkpoints.steps()
        found = []
        for step in steps:
            params = checkpoints.read(like, step).state.params
            identity = points_identity(config, params, opened.dataset.sha256)
            # Of all methods the same program: no encoder has a part in it.
            own = {name: leaf for name, leaf in params.items() if name != "encoder"}
            for split, shown in images.items():
                # Quadrature, of a few points, at the end alone.
                counts = [len(shown)]
                if step == steps[-1]:
                    counts.append(min(how.num_quadrature, len(shown)))
                measured = []
                for count, kind, evaluate in zip(
                    counts, kinds, evaluators, strict=False
                ):
                    name = f"{curve.method}-{curve.seed}-{step}-{split}-{count}.jsonl"
                    parts = Parts(
                        workdir / "marginal" / panel.name / name,
                        identity | kind.settings,
                    )
                    indices = np.arange(count)
                    measured.append(
                        evaluate(
                            own, shown, indices, parts=parts, stop=stop, report=report
                        )
                    )
                samples = step * config.batch_size
                found.append(_summary(curve.method, split, samples, *measured))
        return found

    return measure


def _summary(
    method: str,
    split: str,
    samples: int,
    points: Measured,
    truth: Measured | None = None,
) -> Marginal:
    estimates, proxies = points.values["log_likelihood"], points.values["importance"]
    good = np.abs(estimates - proxies) < _FAILED
    values = estimates[good] if good.sum() > 1 else estimates
    whole = None
    if truth is not None:
        # The same points by both: quadrature of a few, and the cheap estimate of all.
        count = len(truth.indices)
        whole = aevb.sampled_mean(
            jnp.asarray(truth.values["truth"]),
            jnp.asarray(proxies[:count]),
            jnp.asarray(proxies),
        )
    return Marginal(
        method,
        split,
        samples,
        len(estimates),
        float(np.mean(values)),
        float(np.std(values, ddof=1) / np.sqrt(len(values))),
        len(estimates) - len(values),
        float(np.mean(proxies)),
        None if whole is None else float(whole.mean),
        None if whole is None else float(whole.std_error),
        float(np.mean(points.values["acceptance"])),
        float(np.quantile(points.values["r_hat"], 0.95)),
        points.seconds + (0.0 if truth is None else truth.seconds),
    )
