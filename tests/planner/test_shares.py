"""What a chip reaches of its rates, and what is said of it."""

import pytest

from ape_jax.config import Config
from ape_jax.planner import estimate, report, shares, slices, targets
from ape_jax.planner.shapes import Captions
from ape_jax.planner.shares import GUESSED, Shares

MEASURED = Shares(
    matrix=0.6, memory=0.7, combine="sum", fixed=0.5, programs=24, error=0.18, source="H200, 2026"
)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [((1.0, 0, 0), 2.0), ((0, 2.0, 0), 2.5), ((0.5, 0.8, 3.0), 6.0)],
)
def test_at_guessed_shares_the_slowest_counts(times, seconds):
    assert GUESSED.seconds(*times) == pytest.approx(seconds)


def test_what_does_not_overlap_is_added():
    assert MEASURED.seconds(0.6, 1.4, 0.5) == pytest.approx(0.5 + 1.0 + 2.0 + 1.0)


def test_a_chip_that_is_not_in_the_table_is_guessed(monkeypatch):
    monkeypatch.setattr(shares, "_measured", lambda: {"h200": MEASURED})
    assert shares.of("h200") is MEASURED
    assert shares.of("h100") is GUESSED


def test_the_table_that_comes_with_the_package_can_be_read():
    assert all(0 < x.error and 0 < x.programs for x in shares._measured().values())


def planned(where):
    cost = estimate.Cost(fits=True, arguments={}, flops=1.0, passes=1.0, seconds=3.6, rows=64)
    made = report.record(Config(), where, Captions(mean=13.0, longest=64), cost, {}, 0)
    return made, report.text(made).splitlines()[-1]


def test_every_plan_says_how_far_its_times_can_be_trusted(monkeypatch):
    monkeypatch.setattr(shares, "_measured", lambda: {"h200": MEASURED})
    made, line = planned(targets.parse("h200:8"))
    assert line == "measured on h200 (H200, 2026): times within 18 % on 24 programs"
    assert made["trust"]["error"] == 0.18
    assert made["assumed"]["share of the peak rate of products"] == 0.6
    made, line = planned(slices.parse("v5e:2x2"))
    assert line == "not measured on this chip: times are rooflines at guessed shares"
    assert made["trust"]["programs"] == 0
