"""The paper's digitised curves: the published numbers, and which panels there are."""

import numpy as np
import pytest

from experiments.reports.paper_curves import paper_figure2, paper_figure3


def test_paper_figure2_holds_the_published_numbers():
    train, test, *wake_sleep = paper_figure2(20)
    assert (train.label, train.dashed) == ("paper: AEVB, train", False)
    assert (test.label, test.dashed) == ("paper: AEVB, test", True)
    assert np.interp(1e7, test.x, test.y) == pytest.approx(-104.8, abs=0.1)
    assert np.interp(1e7, train.x, train.y) == pytest.approx(-104.2, abs=0.1)
    assert np.interp(1e7, wake_sleep[1].x, wake_sleep[1].y) == pytest.approx(
        -108.3, 0.1
    )
    frey_face = paper_figure2(10, "freyface")[1]
    assert np.interp(1e7, frey_face.x, frey_face.y) == pytest.approx(1171, abs=1)
    assert all((np.diff(c.x) > 0).all() for c in (train, test, *wake_sleep))


def test_paper_figure3_holds_the_published_numbers():
    curves = {curve.label: curve for curve in paper_figure3(50_000)}
    assert len(curves) == 6
    test = curves["paper: AEVB, test"]
    assert np.interp(30e6, test.x, test.y) == pytest.approx(-139.7, abs=0.1)
    small = {curve.label: curve for curve in paper_figure3(1000)}
    mcem = small["paper: MCEM, train"]
    assert np.interp(10e6, mcem.x, mcem.y) == pytest.approx(-118.3, abs=0.1)


def test_a_panel_the_paper_lacks_is_an_error_that_lists_those_it_has():
    with pytest.raises(ValueError, match=r"n_z=7 .*\[3, 5, 10, 20, 200\]"):
        paper_figure2(7)
    with pytest.raises(ValueError, match=r"'freyface' with n_z in \[2, 5, 10, 20\]"):
        paper_figure2(3, "freyface")
    with pytest.raises(ValueError, match=r"num_train=60000; it has \[1000, 50000\]"):
        paper_figure3(60_000)
