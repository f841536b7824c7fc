"""What estimates say together: differences, errors, the verdict."""

import numpy as np
import pytest

from experiments.evaluation import verdict
from experiments.evaluation.annealing import ANNEALED
from experiments.evaluation.estimators import IMPORTANCE, QUADRATURE, RECIPROCAL
from experiments.evaluation.kinds import Kind
from experiments.evaluation.points import Measured

SETTINGS = {"num_samples": 100, "num_temperatures": 50, "start": "encoder"}


def measured(kind: Kind, indices: list[int], values: list[float], **extra) -> Measured:
    arrays = {
        "log_likelihood": np.array(values),
        "std_error": np.full(len(values), 0.1),
    }
    arrays |= {name: np.asarray(value) for name, value in extra.items()}
    return Measured(kind, SETTINGS, np.array(indices), arrays, 1.0)


def test_differences_are_of_shared_points():
    one = measured(ANNEALED, [0, 4, 8], [-1.0, -2.0, -6.0])
    other = measured(IMPORTANCE, [8, 2, 4], [-7.0, 50.0, -2.5])
    found = verdict.difference(one, other)
    assert found["mean"] == pytest.approx(0.75)
    assert found["std_error"] == pytest.approx(0.25)
    assert (found["largest"], found["num_points"]) == (1.0, 2)
    apart = measured(IMPORTANCE, [9], [0.0])
    assert verdict.difference(one, apart) is None


def test_errors_over_points_and_over_draws_are_two():
    found = verdict.describe(measured(ANNEALED, [0, 1], [-1.0, -3.0]))
    assert found["log_likelihood"] == -2.0
    assert found["std_error"] == pytest.approx(1.0)
    assert found["draws_std_error"] == pytest.approx(0.1 / np.sqrt(2))


def test_the_verdict_names_who_is_apart_from_the_truth_and_why():
    truth = measured(QUADRATURE, [0, 1], [-10.0, -20.0])
    low = measured(
        IMPORTANCE,
        [0, 1],
        [-10.5, -21.5],
        pareto_k=[0.2, 0.9],
        curve=[[-12.0, -11.0, -10.5], [-23.0, -22.0, -21.5]],
    )
    close = measured(ANNEALED, [0, 1], [-10.01, -20.01])
    text = " ".join(verdict.verdict([truth, low, close]))
    assert "importance-100 by -1.00 ± 0.50" in text
    assert "misses mass" in text
    assert "annealed-50 by" not in text
    assert "k-hat is above 0.7 at 1 of 2 points" in text
    assert "temperatures is +0.99 ± 0.50 nats above it" in text


def test_a_new_kind_is_in_the_verdict_by_its_row_alone():
    """No code knows its name: the table of agreement and the quoted bound do."""
    kind = Kind("guess", lambda _: "a guess", IMPORTANCE.stream, "lower", tightness=9)
    guess = measured(kind, [0, 1], [-10.5, -20.5])
    truth = measured(QUADRATURE, [0, 1], [-10.0, -20.0])
    lower = measured(IMPORTANCE, [0, 1], [-11.0, -21.0])
    assert verdict.best_of([lower, truth, guess]) is guess
    rows = {
        row["name"]: row["mean"] for row in verdict.agreement([lower, truth, guess])
    }
    assert rows == {"importance-100": -1.0, "guess": -0.5}


def test_a_second_estimate_of_the_same_draws_has_a_row_of_its_own():
    truth = measured(QUADRATURE, [0, 1], [-10.0, -20.0])
    both = measured(
        RECIPROCAL, [0, 1], [-9.5, -19.5], kernel_density=np.array([-9.0, -19.0])
    )
    names = [row["name"] for row in verdict.agreement([truth, both])]
    assert names == ["reciprocal", "reciprocal, kernel density"]
