"""How much of its published rates a chip reaches, and how far times from them can be trusted.

`measured.json` has the chips on which programs of this package were timed. It is written by
`tests/accelerator/plan/fit.py`, which fits these numbers to them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any, Literal

Combine = Literal["max", "sum"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shares:
    """A chip's, measured or guessed.

    Attributes:
      matrix: of the peak rate of products.
      memory: of the peak rate of memory.
      link: of the peak rate of the links.
      combine: whether the three times overlap ("max") or follow each other ("sum").
      fixed: seconds that every run of a program takes on top.
      programs: how many were timed; 0 for a guess.
      error: of times, the largest relative one among these programs; 0 for a guess.
      source: where and when they were timed, and with which versions.
    """

    matrix: float = 0.5
    memory: float = 0.8
    link: float = 0.5
    combine: Combine = "max"
    fixed: float = 0.0
    programs: int = 0
    error: float = 0.0
    source: str = "not measured"

    def seconds(self, products: float, memory: float, links: float) -> float:
        """Time of a program.

        Args:
          products: seconds that its products would take at the peak rate.
          memory: likewise, that it would take to read and to write all that it does.
          links: likewise, to send all that it sends.
        """
        parts = products / self.matrix, memory / self.memory, links / self.link
        return self.fixed + (max(parts) if self.combine == "max" else sum(parts))

    def line(self, chip: str) -> str:
        """How far times can be trusted, in a sentence."""
        if not self.programs:
            return "not measured on this chip: times are rooflines at guessed shares"
        return (
            f"measured on {chip} ({self.source}): times within {100 * self.error:.0f} % on "
            f"{self.programs} programs"
        )


GUESSED = Shares()


def of(chip: str) -> Shares:
    """The shares of a chip.

    Args:
      chip: as it is called in a topology, such as "h100".
    """
    return _measured().get(chip, GUESSED)


@functools.cache
def _measured() -> Mapping[str, Shares]:
    text = importlib.resources.files(__package__).joinpath("measured.json").read_text("utf-8")
    return read(json.loads(text))


def read(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Shares]:
    """The chips of a table as `measured.json` is one."""
    return {chip: Shares(**row) for chip, row in found.items()}
