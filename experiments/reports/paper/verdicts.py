"""Our curves beside the paper's digitised ones: verdicts, speed, order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.reports.charts import Curve
from experiments.reports.paper_curves import paper_figure2, paper_figure3
from experiments.reports.tables import Table
from experiments.reproduction.outcome import Outcome, first_reached, value_at
from experiments.reproduction.protocol import LABELS

__all__ = [
    "Verdict",
    "order_table",
    "paper_points",
    "speed_table",
    "verdict_table",
    "verdicts",
]

# Nats on either side of the paper's value: (dataset, method) of Fig. 2, and Fig. 3.
_BANDS = {("mnist", "aevb"): 1.0, ("mnist", "wake_sleep"): 1.5}
_FREY_BAND = 40.0
_MARGINAL_BAND = 1.5


class Verdict(NamedTuple):
    """A number of the paper beside ours.

    Attributes:
      figure: "2" or "3".
      panel: for a person.
      method: one of `protocol.LABELS`.
      split: train or test.
      samples: training samples evaluated.
      paper: digitised, nats.
      ours: nats.
      band: nats on either side that count as the same.
    """

    figure: str
    panel: str
    method: str
    split: str
    samples: float
    paper: float
    ours: float
    band: float

    @property
    def words(self) -> str:
        """In the band, better or worse."""
        difference = self.ours - self.paper
        if abs(difference) <= self.band:
            return f"within {self.band:g}"
        return "higher" if difference > 0 else "lower"


def paper_points(outcome: Outcome) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """The paper's curves of a panel, `{(method, split): [(samples, nats)]}`."""
    curves = _paper_curves(outcome)
    methods = {label: method for method, label in LABELS.items()}
    found = {}
    for curve in curves:
        label, split = curve.label.removeprefix("paper: ").split(", ")
        points = zip(np.asarray(curve.x), np.asarray(curve.y), strict=True)
        found[methods[label], split] = [(float(x), float(y)) for x, y in points]
    return found


def _paper_curves(outcome: Outcome) -> Sequence[Curve]:
    panel = outcome.panel
    config = panel.config
    dataset = "freyface" if config.data.name == "frey_face" else config.data.name
    try:
        if panel.section == "3":
            return paper_figure3(config.data.num_train)
        return paper_figure2(config.latent_dim, dataset)
    except ValueError:  # no such panel
        return ()


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Every number that the paper has too, at powers of ten and where a run ends."""
    found = []
    for outcome in outcomes:
        if outcome.panel.section not in ("2", "3") or outcome.panel.drawn_in:
            continue
        paper = paper_points(outcome)
        for (method, split), reference in paper.items():
            own = _own_points(outcome, method, split)
            if not own:
                continue
            last = max(samples for samples, _ in own)
            tens = [10.0**k for k in range(5, 10) if 10.0**k < 0.9 * last]
            for samples in [*tens, last]:
                theirs, ours = value_at(reference, samples), value_at(own, samples)
                if theirs is not None and ours is not None:
                    found.append(
                        Verdict(
                            outcome.panel.section,
                            outcome.panel.title,
                            method,
                            split,
                            samples,
                            theirs,
                            ours,
                            _band(outcome, method),
                        )
                    )
    return found


def _band(outcome: Outcome, method: str) -> float:
    if outcome.panel.section == "3":
        return _MARGINAL_BAND
    return _BANDS.get((outcome.panel.config.data.name, method), _FREY_BAND)


def _own_points(outcome: Outcome, method: str, split: str) -> list[tuple[float, float]]:
    if outcome.panel.section == "3":
        return [
            (one.samples, one.value)
            for one in outcome.marginals
            if (one.method, one.split) == (method, split)
        ]
    curve = outcome.curve(method)
    return curve.points(f"{split}/bound") if curve else []


def verdict_table(found: Sequence[Verdict]) -> Table:
    """Every verdict as a row."""
    return Table(
        "Verdict: the paper's figures (digitised) and ours, nats per datapoint",
        (
            "figure",
            "panel",
            "method",
            "split",
            "samples",
            "paper",
            "ours",
            "difference",
            "verdict",
        ),
        [
            (
                f"{one.figure}",
                one.panel,
                LABELS[one.method],
                one.split,
                f"{one.samples:.2g}",
                f"{one.paper:.1f}",
                f"{one.ours:.1f}",
                f"{one.ours - one.paper:+.1f}",
                one.words,
            )
            for one in found
        ],
    )


def speed_table(outcomes: Sequence[Outcome]) -> Table:
    """The paper's headline: how many samples AEVB needs for wake-sleep's last bound."""
    rows = []
    for outcome in outcomes:
        if outcome.panel.section != "2" or outcome.panel.drawn_in:
            continue
        ours = {
            method: _own_points(outcome, method, "test")
            for method in ("aevb", "wake_sleep")
        }
        paper = paper_points(outcome)
        if not all(ours.values()):
            continue
        end = max(samples for samples, _ in ours["wake_sleep"])

        def cells(points: dict[str, list[tuple[float, float]]]) -> tuple:
            final = value_at(points["wake_sleep"], end)  # noqa: B023
            if final is None:
                return None, None, None
            reached = first_reached(points["aevb"], final)
            if reached is None:
                return f"{final:.1f}", None, None
            ratio = end / reached  # noqa: B023
            return f"{final:.1f}", f"{reached:.2g}", f"{ratio:.1f}"

        theirs = {method: paper.get((method, "test"), []) for method in ours}
        rows.append((outcome.panel.title, f"{end:.2g}", *cells(ours), cells(theirs)[2]))
    return Table(
        "Samples that AEVB needs for wake-sleep's last test bound",
        (
            "panel",
            "wake-sleep's samples",
            "its bound, nats",
            "AEVB's samples",
            "times fewer",
            "paper's curves: times fewer",
        ),
        rows,
    )


def order_table(outcomes: Sequence[Outcome]) -> Table:
    """Which method is ahead at the end, ours and the paper's."""
    rows = []
    for outcome in outcomes:
        if outcome.panel.section != "2" or outcome.panel.drawn_in:
            continue
        ours = {m: _own_points(outcome, m, "test") for m in ("aevb", "wake_sleep")}
        if not all(ours.values()):
            continue
        end = min(max(x for x, _ in points) for points in ours.values())
        paper = paper_points(outcome)
        own = _gap(ours, end)
        theirs = _gap({method: paper.get((method, "test"), []) for method in ours}, end)
        rows.append(
            (
                outcome.panel.title,
                f"{end:.2g}",
                _signed(own),
                _signed(theirs),
                None if own is None or theirs is None else _same_sign(own, theirs),
            )
        )
    return Table(
        "AEVB ahead of wake-sleep, test bound, nats",
        ("panel", "samples", "ours", "paper", "the same order"),
        rows,
    )


def _gap(points: dict[str, list[tuple[float, float]]], samples: float) -> float | None:
    """How far AEVB is ahead of wake-sleep, nats."""
    aevb, other = (value_at(points[m], samples) for m in ("aevb", "wake_sleep"))
    return None if aevb is None or other is None else aevb - other


def _same_sign(one: float, other: float) -> str:
    return "yes" if one * other > 0 else "no"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.1f}"
