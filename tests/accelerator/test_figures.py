"""What is printed of a figure, and what decides the exit code."""

import json

import pytest

from tests.accelerator import parts
from tests.accelerator.figures import Figures, table, wrong


@pytest.fixture
def lines():
    return []


@pytest.fixture
def figures(lines):
    return Figures(part="correct/x", write=lambda line: lines.append(json.loads(line)))


@pytest.mark.parametrize(
    "value, right", [(1e-6, True), (1e-5, True), (1e-4, False), (float("nan"), False)]
)
def test_a_difference_is_right_up_to_its_bound(figures, lines, value, right):
    assert figures.checked("bert", value, bound=1e-5) is right
    assert wrong(lines) == ([] if right else ["correct/x: bert"])


def test_what_is_measured_decides_nothing(figures, lines):
    figures.measured("vit", 12.5, "images/s", beside={"torch": 10.0})
    figures.left_out("rings", "one device")
    assert not wrong(lines)
    assert "12.5 images/s" in table(lines) and "torch 10" in table(lines)
    assert "one device" in table(lines)


def test_a_group_stands_for_its_parts():
    assert parts.named(["fast"]) == [x for x in parts.PARTS if x.startswith("fast/")]
    assert parts.named([]) == list(parts.PARTS)
    with pytest.raises(ValueError, match="no part 'quick'"):
        parts.named(["quick"])
