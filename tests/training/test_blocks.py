"""Blocks and calls: every step once, the same blocks wherever a run starts."""

import pytest

from ape_jax.training import blocks


@pytest.mark.parametrize("start", [0, 5, 63, 70])
@pytest.mark.parametrize("steps", [1, 5, 32, 64])
def test_spans_cover_every_step_once_in_blocks_that_do_not_depend_on_the_start(start, steps):
    spans = list(blocks.spans(start, 200, steps, 64))
    taken = [s.first + i for s in spans for i in range(s.start, s.stop)]
    assert taken == list(range(start, 200))
    assert all(s.stop <= steps and s.first // 64 == (s.first + s.stop - 1) // 64 for s in spans)
    whole = {s.first for s in blocks.spans(0, 200, steps, 64)}
    assert {s.first for s in spans} <= whole


def test_calls_end_at_the_next_period():
    ends = [0]
    while ends[-1] < 20:
        ends.append(blocks.next_boundary(ends[-1], 20, 7, 0, 5))
    assert ends == [0, 5, 7, 10, 14, 15, 20]
