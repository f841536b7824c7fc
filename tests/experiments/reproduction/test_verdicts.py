"""Our numbers beside the paper's, of curves whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from experiments.reports.paper import tables, verdicts
from experiments.reproduction.outcome import Outcome, first_reached, value_at
from experiments.reproduction.protocol import panels
from experiments.reproduction.training import Curve, StepSizes


def panel_of(name: str):
    found = panels(("2", "3"), 10**7, "frey.mat")
    return next(panel for panel in found if panel.name == name)


def outcome_of(name="mnist-20", shifts=(0.0, 0.0), seed=0) -> Outcome:
    """The paper's own curves, moved up by some nats, as if they were our runs."""
    panel = panel_of(name)
    paper = verdicts.paper_points(Outcome(panel, {}, [], [], []))
    curves = []
    for method, shift in zip(("aevb", "wake_sleep"), shifts, strict=True):
        lines = [
            {"samples": samples, f"{split}/bound": value + shift}
            for split in ("train", "test")
            for samples, value in paper.get((method, split), [])
            if samples <= 1.03e7
        ]
        curves.append(
            Curve(method, seed, 0.02, 10**7, "done", Path("nowhere"), lines, 60.0)
        )
    return Outcome(panel, {}, curves, [], [])


def test_the_paper_s_own_curves_are_in_every_band():
    found = verdicts.verdicts([outcome_of()])
    assert {one.words for one in found} == {"within 1", "within 1.5"}
    assert all(one.ours == pytest.approx(one.paper, abs=0.02) for one in found)
    ends = {(one.method, one.split): one.paper for one in found if one.samples > 9e6}
    # FACTS.md, 1e7: test bounds of AEVB and wake-sleep.
    assert ends["aevb", "test"] == pytest.approx(-104.8, abs=0.1)
    assert ends["wake_sleep", "test"] == pytest.approx(-108.3, abs=0.1)


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        ((0.9, 1.4), ("within 1", "within 1.5")),
        ((1.1, 1.6), ("higher", "higher")),
        ((-1.1, -1.6), ("lower", "lower")),
    ],
)
def test_a_shift_is_judged_by_its_band(shifts, words):
    found = verdicts.verdicts([outcome_of(shifts=shifts)])
    for method, word in zip(("aevb", "wake_sleep"), words, strict=True):
        assert {one.words for one in found if one.method == method} == {word}


def test_a_band_of_frey_face_is_wider():
    found = verdicts.verdicts([outcome_of("frey_face-10", (39.0, -41.0))])
    words = {(one.method, one.words) for one in found}
    assert words == {("aevb", "within 40"), ("wake_sleep", "lower")}


def test_how_many_times_fewer_samples():
    """Of the paper's own curves it is the paper's headline, in both columns."""
    [row] = verdicts.speed_table([outcome_of()]).rows
    assert row[4] == row[5]
    assert 1.5 < float(row[4]) < 12
    [faster] = verdicts.speed_table([outcome_of(shifts=(3.0, 0.0))]).rows
    assert float(faster[4]) > float(row[4])
    [slower] = verdicts.speed_table([outcome_of(shifts=(-9.0, 0.0))]).rows
    assert slower[3:5] == (None, None)  # never reached


def test_the_order_of_the_methods():
    [row] = verdicts.order_table([outcome_of()]).rows
    assert row[2] == row[3]
    assert row[4] == "yes"
    [turned] = verdicts.order_table([outcome_of(shifts=(0.0, 9.0))]).rows
    assert turned[4] == "no"


def test_the_spread_over_seeds_is_at_one_length():
    panel = next(one for one in panels(("2",), 10**7) if one.name == "mnist-20-seeds")
    main = outcome_of()
    short = []
    for seed, shift in ((1, 1.0), (2, -1.0)):
        [curve, _] = outcome_of(shifts=(shift, 0.0), seed=seed).curves
        lines = [line for line in curve.lines if line["samples"] <= 2.05e6]
        short.append(curve._replace(samples=2_000_000, lines=lines, seed=seed))
    extra = Outcome(panel, {}, short, [], [])
    [row] = tables._seed_table([main, extra]).rows
    at = value_at(main.curves[0].points("test/bound"), 2e6)
    ends = [at, at + 1, at - 1]
    assert row[2] == "2e+06"
    assert row[3] == ", ".join(f"{end:.2f}" for end in ends)
    assert row[4] == f"{np.mean(ends):.2f} ± 1.00"


def test_every_table_of_nothing_is_left_out():
    outcomes = [Outcome(panel_of("mnist-20"), {}, [], [], [])]
    assert tables.tables_of(outcomes) == []


def test_a_step_size_that_diverged_says_so():
    sizes = {"aevb": StepSizes(0.01, {0.01: -150.0, 0.1: None}, 500_000)}
    outcome = outcome_of()._replace(step_sizes=sizes)
    [row] = tables._step_size_table([outcome]).rows
    assert row[3:] == ("0.01: -150.0, 0.1: diverged", "0.01")


def test_interpolation_is_over_the_logarithm():
    points = [(1e5, -200.0), (1e6, -150.0), (1e7, -100.0)]
    assert value_at(points, 10**5.5) == pytest.approx(-175)
    assert value_at(points, 1.04e7) == -100
    assert value_at(points, 1.06e7) is None
    assert value_at([], 1e6) is None
    assert first_reached(points, -125.0) == pytest.approx(10**6.5)
    assert first_reached(points, -99.0) is None
    assert first_reached(points, -250.0) == 1e5
