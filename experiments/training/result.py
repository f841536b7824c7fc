"""What a run found."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import data
from experiments.evaluation.bounds import BoundEvaluation
from experiments.evaluation.probes import Probes
from experiments.evaluation.sampled import SampledLikelihood
from experiments.program import Program

__all__ = ["Result"]


class Result(NamedTuple):
    """What a finished run found.

    Attributes:
      config: the configuration.
      dataset: the data, split.
      program: the run's functions.
      params: the trained parameters.
      metrics: the lines of `metrics.jsonl`.
      test: the bound on all of the test split; None without an encoder.
      likelihood: importance-sampled log p(x) of test points, and its mean over the
        test split; None where it is not defined or not asked for.
      probes: how well labels are found from codes; None where that is not asked for.
      timings: seconds and images per second, which differ from run to run.
    """

    config: ConfigDict
    dataset: data.Dataset
    program: Program
    params: Any
    metrics: list[dict[str, Any]]
    test: BoundEvaluation | None
    likelihood: SampledLikelihood | None
    probes: Probes | None
    timings: dict[str, float]
