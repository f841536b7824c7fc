"""The charts: what they hold, what part of a curve they show, what they refuse."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.reports.charts import (
    Curve,
    _line_styles,
    _readable_limits,
    kl_per_dimension,
    learning_curve,
    scatter,
    sweep_field,
)
from experiments.reports.panels import CurvePanel, curve_panels
from experiments.reports.paper_curves import paper_figure2
from experiments.reports.style import LINES


def _bound(x):
    return -103.0 - 100.0 * np.exp(-np.asarray(x) / 2e6)


X = np.linspace(5e4, 1e7, 60)
POINTS = np.random.default_rng(0).normal(size=(2, 200))


def _panel(latent_dim):
    curves = [Curve("train", X, _bound(X)), Curve("test", X, _bound(X) - 1, True)]
    return CurvePanel(f"N_z = {latent_dim}", curves, paper_figure2(latent_dim))


# One call of every kind, with the size in pixels that the file must have.
PICTURES = {
    "learning_curve": (
        lambda path: learning_curve(
            path,
            [Curve("train", X, _bound(X)), Curve("test", X, _bound(X) - 1, True)],
            reference=paper_figure2(20),
            xlabel="training samples",
            ylabel="bound (nats)",
        ),
        (1080, 720),
    ),
    "one_epoch": (
        lambda path: learning_curve(
            path, [Curve("train", [1], [-540.0])], xlabel="epoch", ylabel="nats"
        ),
        (1080, 720),
    ),
    "panels": (
        lambda path: curve_panels(
            path,
            [
                [_panel(latent_dim) for latent_dim in (3, 5, 20)],
                [CurvePanel("no reference", [Curve("train", X, _bound(X))], [])],
            ],
            xlabel="training samples",
            ylabel="bound (nats)",
        ),
        (1395, 900),
    ),
    "kl_per_dimension": (
        lambda path: kl_per_dimension(path, [0.0, 2.5, 0.003], threshold=0.01),
        (1080, 630),
    ),
    "kl_collapsed": (
        lambda path: kl_per_dimension(path, np.zeros(50), threshold=0.01),
        (1080, 630),
    ),
    "scatter": (
        lambda path: scatter(
            path, *POINTS, xlabel="k-hat", ylabel="nats", title="Points", mark_x=0.7
        ),
        (960, 630),
    ),
    "sweep_of_numbers": (
        lambda path: sweep_field(
            path, [1e-3, 1e-3, 1e-1], [-91, -90, -95], xlabel="rate", ylabel="nats"
        ),
        (960, 630),
    ),
    "sweep_of_names": (
        lambda path: sweep_field(
            path, ["adam", "sgd"], [-90, -95], xlabel="optimizer", ylabel="nats"
        ),
        (960, 630),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_chart_is_a_png_of_the_stated_size(check_picture, name):
    check_picture(*PICTURES[name])


def test_drawing_needs_no_pyplot_and_changes_no_settings(tmp_path):
    program = f"""
import sys, matplotlib
before = matplotlib.rcParams.copy()
from experiments.reports.charts import kl_per_dimension
kl_per_dimension({str(tmp_path / "a.png")!r}, [1.0], threshold=0.01)
assert "matplotlib.pyplot" not in sys.modules
names = set(before) - {{"backend"}}  # chosen, with pyplot, when it is looked at
assert [name for name in names if matplotlib.rcParams[name] != before[name]] == []
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_panels_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no panel"):
        curve_panels(tmp_path / "none.png", [[]], xlabel="x", ylabel="y")


def test_bad_arguments_are_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="1 not finite"):
        kl_per_dimension(path, [1.0, np.nan], threshold=0.01)
    with pytest.raises(ValueError, match="vectors of one length"):
        learning_curve(path, [Curve("a", [1, 2], [3])], xlabel="", ylabel="")
    with pytest.raises(ValueError, match="no curve has a finite point"):
        learning_curve(path, [Curve("a", [1], [np.nan])], xlabel="", ylabel="")
    with pytest.raises(ValueError, match="vectors of one length"):
        scatter(path, [1, 2], [3], xlabel="", ylabel="", title="")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("log_x", [True, False])
def test_a_bad_start_does_not_squeeze_the_curve(log_x):
    epoch = np.arange(1.0, 101.0)
    bound = -86 - 60 / epoch
    bound[0] = -1e5
    low, high = _readable_limits(epoch, bound, log_x)
    assert high == bound.max()
    assert -130 < low < np.median(bound)
    # Nor does a spike above a falling curve.
    low, high = _readable_limits(epoch, -bound, log_x)
    assert low == -bound.max()
    assert np.median(-bound) < high < 130


def test_a_curve_without_outliers_is_shown_whole():
    x = np.linspace(1.0, 10.0, 30)
    assert _readable_limits(x, -100 + x, False) == (-99.0, -90.0)


def test_a_dashed_curve_pairs_with_the_solid_one_before_it():
    solid, dashed = Curve("a", [1], [1]), Curve("b", [1], [1], dashed=True)
    curves = [solid, dashed, dashed, solid]
    styles = _line_styles(curves, LINES, 1.0)
    first, second, third, fourth = (style["color"] for style in styles)
    assert first == second
    assert len({second, third, fourth}) == 3
