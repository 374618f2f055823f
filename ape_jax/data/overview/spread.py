"""Exact distributions of whole numbers: how often each value occurs."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer


@dataclasses.dataclass(frozen=True)
class Spread:
    """Distribution of whole numbers, such as the lengths of all captions.

    Example:
      >>> spread = Spread.of(np.array([5, 5, 1, 5]))
      >>> spread.min, spread.median, spread.max, spread.count
      (1, 5, 5, 4)

    Attributes:
      counts: how often each value occurs, by value, ascending.
    """

    counts: Mapping[int, int]

    @classmethod
    def of(cls, values: Integer[np.ndarray, " n"]) -> Spread:
        """Counts the values of an array."""
        tally = Tally()
        tally.add(values)
        return tally.spread()

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts.values())

    @property
    def min(self) -> int:
        """Smallest value; 0 if there is none."""
        return next(iter(self.counts), 0)

    @property
    def max(self) -> int:
        """Largest value; 0 if there is none."""
        return next(reversed(self.counts), 0) if self.counts else 0

    @property
    def median(self) -> int:
        """The lower median."""
        return self.quantile(0.5)

    @property
    def mean(self) -> float:
        """Arithmetic mean; 0 if there is no value."""
        return sum(v * n for v, n in self.counts.items()) / max(self.count, 1)

    def quantile(self, share: float) -> int:
        """The smallest value that at least this share of the values does not exceed."""
        needed, seen = share * self.count, 0
        for value, count in self.counts.items():
            seen += count
            if seen >= needed:
                return value
        return 0

    def above(self, limit: int) -> int:
        """Number of values above a limit."""
        return sum(count for value, count in self.counts.items() if value > limit)

    def bins(self, most: int = 8) -> Sequence[tuple[str, int]]:
        """At most so many bins that cover all values, each as its range and its count.

        Single values have a bin each where there are few of them; else bins are equally wide up to
        the 99th percentile, and the last one takes the rest.

        Example:
          >>> Spread({1: 2, 5: 7}).bins()
          [('1', 2), ('5', 7)]
          >>> Spread({value: 1 for value in range(1, 101)}).bins(4)
          [('1-33', 33), ('34-66', 33), ('67-99', 33), ('100-100', 1)]
        """
        if len(self.counts) <= most:
            return [(str(value), count) for value, count in self.counts.items()]
        usual = max(self.quantile(0.99), self.min + most - 2)
        width = -(-(usual - self.min + 1) // (most - 1))
        starts = [self.min + i * width for i in range(most - 1)]
        edges = [*starts, min(starts[-1] + width, self.max), self.max + 1]
        found = []
        for low, high in itertools.pairwise(edges):
            count = sum(n for value, n in self.counts.items() if low <= value < high)
            found.append((f"{low}-{high - 1}", count))
        return [(name, count) for name, count in found if count]

    def record(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {
            "min": self.min,
            "median": self.median,
            "p95": self.quantile(0.95),
            "max": self.max,
            "mean": round(self.mean, 3),
            "histogram": [list(bin) for bin in self.bins()],
        }


class Tally:
    """Counts values block by block."""

    def __init__(self) -> None:
        self._counts: collections.Counter[int] = collections.Counter()

    def add(self, values: Integer[np.ndarray, " n"]) -> None:
        """Counts the values of a block."""
        found, counts = np.unique(values, return_counts=True)
        self._counts.update(dict(zip(found.tolist(), counts.tolist())))

    def spread(self) -> Spread:
        """The distribution of all values so far."""
        return Spread(dict(sorted(self._counts.items())))
