"""What the numbers say, in sentences: against baselines, and against the truth."""

import numpy as np

from experiments.evaluation.verdict import std_error
from experiments.restoration.measuring import Found, TaskFound
from experiments.restoration.methods import METHODS
from experiments.restoration.scores import (
    conditional,
    sandwich_gap,
    scores,
    with_error,
)

__all__ = ["verdict"]


def verdict(found: Found) -> list[str]:
    """One sentence a task on the baselines, one on log p(x|y) where it is known."""
    sentences = []
    for one in found.tasks:
        sentences += _against_baselines(one, found.binary)
        sentences += _against_truth(found, one)
    return sentences


def _against_baselines(one: TaskFound, binary: bool) -> list[str]:
    table = scores(one)
    ours = [n for n in table if n in METHODS and not METHODS[n].is_baseline]
    baselines = [n for n in table if n in METHODS and METHODS[n].is_baseline]
    if not ours or not baselines:
        return []
    said = []
    errors = "pixel errors" if binary else "mean absolute error"
    for of, word in (("squared_error", "RMSE"), ("wrong", errors)):
        best, rival = (
            min(names, key=lambda name: one.methods[name].values[of].sum())
            for names in (ours, baselines)
        )
        how, z = _compared(one, best, rival, of)
        said.append(f"{_label(one, best)} {how} the {_label(one, rival)} in {word}{z}")
        if how != "beats" and "exact" in one.methods:
            how, z = _compared(one, "exact", rival, of)
            said[-1] += f", where p(x|y) itself, by quadrature, {how} it{z}"
    return [f"{one.task.name}: {'; '.join(said)}."]


def _compared(one: TaskFound, name: str, rival: str, of: str) -> tuple[str, str]:
    """Whether a method has smaller errors than another, and by how much."""
    # Of the same images: the difference has less error than either.
    difference = one.methods[rival].values[of] - one.methods[name].values[of]
    error = std_error(difference)
    z = difference.mean() / error if error > 0 else np.nan
    how = "beats" if z > 2 else "does not beat" if z < -2 else "is level with"
    return how, f" ({z:.1f} standard errors)" if np.isfinite(z) else ""


def _label(one: TaskFound, name: str) -> str:
    return one.methods[name].label


def _against_truth(found: Found, one: TaskFound) -> list[str]:
    annealed, gap = conditional(found, one), sandwich_gap(one)
    said = []
    if annealed is not None and "exact" in one.methods:
        values = one.methods["ais"].values
        whole = found.whole.values["log_likelihood"] if found.whole else np.nan
        seen = values["seen_log_likelihood"]
        each = whole - seen - one.methods["exact"].values["log_prob"]
        off = with_error(float(each.mean()), std_error(each), "+.3f")
        said.append(f"AIS is {off} nats from quadrature")
    if gap is not None:
        said.append(
            f"on {gap['num_images']} images of the model's own the bounds on log "
            f"p(x|y) are {with_error(gap['gap'], gap['gap_std_error'], '.2f')} nats "
            "apart"
        )
    return [f"{one.task.name}: {'; '.join(said)}."] if said else []
