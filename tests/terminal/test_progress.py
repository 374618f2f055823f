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


@pytest.mark.parametrize("total", [3, None])
def test_track_yields_everything_and_is_silent_when_quick(capsys, total):
    assert list(progress.track(range(3), "reading", total, "records")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
