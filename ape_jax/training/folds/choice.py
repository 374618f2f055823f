"""The number of steps that the curves of held-out folds choose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ape_jax.align.closed_form import held_out

MOST_POINTS = 20
"""Steps of a curve, beside the start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen number of steps, and what it was chosen by.

    Attributes:
      chosen: number of steps; 0 keeps the heads that training starts from.
      best: the number of steps with the best mean.
      mean: the curve, averaged over the folds.
    """

    chosen: int
    best: int
    mean: list[float]


def points(steps: int, *, starts: bool) -> list[int]:
    """The numbers of steps after which a fold is evaluated, evenly spaced up to the last.

    Example:
      >>> points(90, starts=True)[:3], points(90, starts=True)[-1]
      ([0, 5, 10], 90)

    Args:
      steps: the most steps.
      starts: whether the heads are worth evaluating before the first step.
    """
    every = spacing(steps)
    return [0] * starts + list(range(every, steps, every)) + [steps]


def spacing(steps: int) -> int:
    """Steps between two points."""
    return -(-steps // MOST_POINTS)


def choose(steps: Sequence[int], curves: Sequence[Sequence[float]]) -> Choice:
    """Chooses the fewest steps within one standard error of the best.

    A fold's figures are taken relative to their mean, so that folds count alike, whatever number of
    pairs each is retrieved among.

    Example:
      >>> choose([0, 10, 20], [[0.1, 0.3, 0.31], [0.1, 0.3, 0.29]]).chosen
      10

    Args:
      steps: the numbers of steps, in rising order.
      curves: of each fold, the held-out retrieval after these steps.

    References:
      As `closed_form.held_out.simplest`.
    """
    table = np.asarray(curves, np.float64)
    relative = table / np.maximum(table.mean(axis=1, keepdims=True), 1e-12)
    (chosen,) = held_out.simplest(relative)
    best = int(np.argmax(relative.mean(axis=0)))
    return Choice(
        chosen=int(steps[chosen]), best=int(steps[best]), mean=[float(x) for x in table.mean(0)]
    )


def record(choice: Choice, start: str) -> dict[str, Any]:
    """The choice for JSON, with the reason in words.

    Args:
      choice: the choice.
      start: what the heads start from, for a choice of no steps.
    """
    near = "the best" if choice.chosen == choice.best else "within one standard error of the best"
    many = "1 step is" if choice.chosen == 1 else f"{choice.chosen} steps are"
    what = many if choice.chosen else f"{start} is"
    few = "" if choice.chosen == choice.best else ", which is the fewest such steps"
    return {**dataclasses.asdict(choice), "why": f"{what} {near}{few}"}
