"""Lines are drawn where they belong, inside well-formed SVG."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from ape_jax.pages import charts


def drawn(svg):
    """The points of each line, in pixels."""
    lines = ElementTree.fromstring(svg).iter("polyline")
    return [[tuple(map(float, p.split(","))) for p in x.get("points").split()] for x in lines]


def test_a_line_runs_from_corner_to_corner():
    ((start, middle, end),) = drawn(charts.chart("loss", {"a": [(0, 4.0), (5, 3.0), (10, 2.0)]}))
    assert start[0] < middle[0] < end[0] and start[1] < middle[1] < end[1]
    assert middle == pytest.approx(((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), abs=0.1)


def test_what_is_not_finite_is_left_out_and_nothing_gives_nothing():
    ((_, _),) = drawn(charts.chart("x", {"a": [(0, 1.0), (1, float("nan")), (2, 3.0)]}))
    assert charts.chart("x", {"a": [(0, float("inf"))], "b": []}) == ""


@pytest.mark.parametrize(
    "ys",
    [(0.0, 3e-14, 1e-15), (5e-324, 0.0, 0.0), (1.0, 1.0 + 2e-16, 1.0), (1e30, 1e30, 2e30)],
    ids=["tiny", "least", "nearly equal", "huge"],
)
def test_values_of_any_size_are_drawn_inside(ys):
    ((_, _, _),) = drawn(charts.chart("gradient", {"a": [(i, y) for i, y in enumerate(ys)]}))


def test_long_lines_are_thinned_and_keep_their_ends():
    points = [(i, float(i)) for i in range(10_000)]
    (line,) = drawn(charts.chart("x", {"a": points}))
    (short,) = drawn(charts.chart("x", {"a": [points[0], points[-1]]}))
    assert len(line) <= 400 and (line[0], line[-1]) == (short[0], short[-1])


def words(svg):
    """The texts of a chart and their heights."""
    return [(x.text, float(x.get("y"))) for x in ElementTree.fromstring(svg).iter("text")]


def test_axes_have_round_ticks_that_cover_the_values_and_marks():
    svg = charts.chart("loss", {"a": [(5, 1.2), (90, 3.9)]}, y_title="nats", marks={"ln": 5.55})
    texts = [text for text, _ in words(svg)]
    assert [t for t in texts if t.isdigit()] == ["0", "2", "4", "6", "0", "25", "50", "75", "100"]
    assert {"nats", "training step", "ln"} <= set(texts)


@pytest.mark.parametrize("last", [0.0, 5.0, 9.0])
def test_names_of_lines_that_end_together_do_not_cover_each_other(last):
    lines = {f"line {i}": [(0, 0.0), (1, last + i / 100), (2, last)] for i in range(6)}
    heights = sorted(y for text, y in words(charts.chart("x", lines)) if text.startswith("line"))
    assert all(b - a >= 12.9 for a, b in itertools.pairwise(heights)) and heights[-1] < 240


def test_steps_are_whole_numbers():
    texts = [text for text, _ in words(charts.chart("x", {"a": [(1, 1.0), (2, 2.0), (3, 1.0)]}))]
    assert "1.5" not in texts[-4:] and {"1", "2", "3"} <= set(texts)


def test_names_are_escaped():
    svg = charts.chart("<b>", {"a&b": [(0, 1), (1, 1)], "<i>": [(0, 2), (1, 2)]})
    assert not re.search("<b>|<i>", svg)
    assert {x.text for x in ElementTree.fromstring(svg).iter("text")} >= {"<b>", "a&b", "<i>"}
