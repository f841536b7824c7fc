"""From the values of each image to the numbers of a table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation.points import Measured
from experiments.evaluation.verdict import std_error
from experiments.restoration.measuring import Found, TaskFound

__all__ = [
    "Score",
    "conditional",
    "plain",
    "sandwich_gap",
    "scores",
    "shortfall",
    "with_error",
]


class Score(NamedTuple):
    """A method's row.

    Attributes:
      name: of the method.
      log_prob: the mean log p(x|y) of an image by the method's draws, in nats; NaN
        where it has none.
      log_prob_error: its standard error over images.
      log_prob_per_pixel: in nats per pixel that is asked for.
      rmse: the root of the mean squared error of all those pixels.
      rmse_error: its standard error over images.
      wrong: the share of wrong pixels by the marginal mode; of grey ones the mean
        absolute error of the median.
      wrong_error: its standard error over images.
      f1: of the white pixels by the marginal mode, over all images; None for grey.
      log_loss: of the pixels' probabilities, nats per pixel; None for grey ones.
      calibration: the mean distance of said and true probabilities; None for grey.
      inside: the share of grey pixels in the 90 % interval; None for binary.
      images_per_second: of this machine.
      diagnostics: means over images.
    """

    name: str
    log_prob: float
    log_prob_error: float
    log_prob_per_pixel: float
    rmse: float
    rmse_error: float
    wrong: float
    wrong_error: float
    f1: float | None
    log_loss: float | None
    calibration: float | None
    inside: float | None
    images_per_second: float
    diagnostics: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """As a JSON object: no number is NaN."""

        return plain(self._asdict())


def plain(value: Any) -> Any:
    """As JSON has it, at any depth: what is no finite number is None.

    >>> plain({"error": float("nan"), "pair": (1.0, float("inf"))})
    {'error': None, 'pair': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def with_error(value: float, error: float, layout: str) -> str:
    """A number and its error, where there is one.

    >>> with_error(1.25, 0.5, "+.1f"), with_error(1.25, float("nan"), ".2f")
    ('+1.2 ± 0.5', '1.25')
    """
    text = f"{value:{layout}}"
    if np.isnan(error):
        return text
    return f"{text} ± {error:{layout.replace('+', '')}}"


def scores(one: TaskFound) -> dict[str, Score]:
    """The rows of a task, by the name of the method."""
    return {name: _score(name, measured) for name, measured in one.methods.items()}


def _score(name: str, measured: Measured) -> Score:
    values, num = measured.values, measured.values["num"]

    def share(of: str) -> tuple[float, float]:
        """Sum over pixels of all images, and the error of the ratio over images."""
        if not num.sum():
            return float("nan"), float("nan")
        ratio = values[of].sum() / num.sum()
        residual = values[of] - ratio * num
        return float(ratio), len(num) * std_error(residual) / float(num.sum())

    squared, squared_error = share("squared_error")
    wrong, wrong_error = share("wrong")
    log_prob = values["log_prob"]
    binary = "bin_count" in values
    calibration = None
    if binary:
        said, true = values["bin_said"].sum(axis=0), values["bin_true"].sum(axis=0)
        calibration = (
            float(np.abs(said - true).sum() / num.sum()) if num.sum() else float("nan")
        )
    diagnostics = {
        key: float(np.nanmean(values[key]))
        for key in ("acceptance", "ess", "r_hat", "pareto_k")
        if key in values and np.isfinite(values[key]).any()
    }
    return Score(
        name=name,
        log_prob=float(log_prob.mean()),
        log_prob_error=std_error(log_prob),
        log_prob_per_pixel=share("log_prob")[0],
        rmse=float(np.sqrt(squared)),
        rmse_error=float(squared_error / (2 * np.sqrt(squared))) if squared else 0.0,
        wrong=wrong,
        wrong_error=wrong_error,
        f1=_f1(values) if binary else None,
        log_loss=share("log_loss")[0] if binary else None,
        calibration=calibration,
        inside=None if binary else share("inside")[0],
        images_per_second=len(num) / measured.seconds if measured.seconds else np.nan,
        diagnostics=diagnostics,
    )


def _f1(values: Mapping[str, np.ndarray]) -> float:
    """The harmonic mean of precision and recall, as Mattei and Frellsen report it."""
    said, white = values["said_white"].sum(), values["white"].sum()
    if not said + white:
        return float("nan")
    return float(2 * values["both_white"].sum() / (said + white))


def conditional(found: Found, one: TaskFound) -> dict[str, float] | None:
    """log p(x|y) of the model by AIS: log p(x) + log p(y|x) − log p(y).

    Its errors: over images, and over the chains of all images together.
    """
    if found.whole is None or "ais" not in one.methods:
        return None
    values, whole = one.methods["ais"].values, found.whole.values
    each = whole["log_likelihood"] - values["seen_log_likelihood"]
    chains = np.hypot(whole["std_error"], values["seen_std_error"])
    return {
        "log_likelihood": float(each.mean()),
        "std_error": std_error(each),
        "draws_std_error": float(np.sqrt((chains**2).sum()) / len(each)),
        "per_pixel": float(each.sum() / values["num"].sum()),
    }


def sandwich_gap(one: TaskFound) -> dict[str, float] | None:
    """The mean distance of both bounds on simulated images, in nats."""
    if one.sandwich is None:
        return None
    values = one.sandwich.values
    gap = values["upper"] - values["log_likelihood"]
    return {
        "lower": float(values["log_likelihood"].mean()),
        "upper": float(values["upper"].mean()),
        "gap": float(gap.mean()),
        "gap_std_error": std_error(gap),
        "num_images": len(gap),
    }


def shortfall(one: TaskFound, name: str) -> tuple[float, float] | None:
    """How far a method's log p(x|y) is below the truth, in nats per pixel.

    Returns:
      It, and its standard error over images, of the same images; None where there is no
      truth, or no log p(x|y).
    """
    if "exact" not in one.methods:
        return None
    values, truth = one.methods[name].values, one.methods["exact"].values
    gap, num = truth["log_prob"] - values["log_prob"], values["num"]
    if np.isnan(gap).any():
        return None
    ratio = float(gap.sum() / num.sum())
    return ratio, len(num) * std_error(gap - ratio * num) / float(num.sum())
