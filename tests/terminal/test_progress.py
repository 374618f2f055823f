"""The progress line."""

import pytest

from ape_jax.terminal import progress


def test_line_shows_done_total_rate_and_time(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    line = progress.Progress("training", 40, "pairs", per=8, done=20)
    line.update(30, "loss 1.0")
    line.update(40)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "training: 30/40  8 pairs/s  0:10 left  loss 1.0"
    assert last == "training: 40/40  8 pairs/s  0:20"


def test_compiling_is_said_and_left_out_of_the_rate(capsys, monkeypatch):
    """The first of 100 steps takes a minute to compile; the others take a tenth of a second."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = progress.Progress("training", 100, "pairs", compiles=True)
    for step, seconds in ((1, 60.0), (61, 66.0), (62, 66.1), (100, 70.0)):
        now[0] = seconds
        line.update(step)
    assert capsys.readouterr().err.splitlines() == [
        "training: compiling",
        "training: 1/100",
        "training: 61/100  10 pairs/s  0:04 left",
        "training: 100/100  10 pairs/s  1:10",
    ]


def test_a_log_of_a_day_has_few_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = progress.Progress("training", 86401, "pairs")
    for second in range(1, 86401):
        now[0] = float(second)
        line.update(second)
    assert 250 < len(capsys.readouterr().err.splitlines()) < 500


def test_a_terminal_has_one_line_that_is_rewritten(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    line = progress.Progress("training", 2, "pairs", compiles=True)
    line.update(1)
    line.update(2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("\n") and said.count("\r") == 3


@pytest.mark.parametrize("total", [3, None])
def test_track_yields_everything_and_is_silent_when_quick(capsys, total):
    assert list(progress.track(range(3), "reading", total, "records")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
