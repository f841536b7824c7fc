"""Which epochs get a line."""

from experiments.training import progress


def test_a_short_run_has_a_line_an_epoch():
    pace = progress.Pace()
    assert all(pace.shows(epoch, 100) for epoch in range(1, 101))


def test_a_long_run_has_a_line_a_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    pace = progress.Pace()
    assert pace.shows(1, 101)
    assert not pace.shows(2, 101)
    now[0] += 1.0
    assert pace.shows(3, 101)
    assert not pace.shows(4, 101)
    assert pace.shows(101, 101)  # the last one
