"""Greedy maximisation of monotone submodular functions over sparse similarities."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse


@runtime_checkable
class Term(Protocol):
    """A monotone submodular function of a set of candidates, which grows by one at a time."""

    def gain(self, candidate: int) -> float:
        """What the function would grow by."""
        ...

    def take(self, candidate: int) -> None:
        """Adds a candidate to the set."""
        ...


class Cover:
    """Diminishing returns a target: sum_j log(1 + sum_{i in S} s_ij).

    The second pair that serves a target adds less than the first, so that all targets get their
    share.

    Example:
      >>> cover = Cover(sparse.csr_array(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
      >>> greedy([cover], 3, 2)[0].tolist()
      [0, 2]

    Args:
      served: s, how well each candidate serves each target, at least 0, [n, targets].

    References:
      Lin and Bilmes, "A Class of Submodular Functions for Document Summarization", ACL 2011
      (concave over modular).
    """

    def __init__(self, served: sparse.csr_array):
        self._bounds, self._targets, self._values = _rows(served)
        self._sums = np.zeros(served.indices.max(initial=-1) + 1)

    def gain(self, candidate: int) -> float:
        """What the function would grow by."""
        at = slice(self._bounds[candidate], self._bounds[candidate + 1])
        return float(np.log1p(self._values[at] / (1 + self._sums[self._targets[at]])).sum())

    def take(self, candidate: int) -> None:
        """Adds a candidate to the set."""
        at = slice(self._bounds[candidate], self._bounds[candidate + 1])
        self._sums[self._targets[at]] += self._values[at]


class Facility:
    """Facility location: sum_v w_v max_{i in S} k_iv, large where all candidates have a near one.

    Example:
      >>> near = sparse.csr_array(np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]))
      >>> greedy([Facility(near, np.ones(3))], 3, 2)[0].tolist()
      [0, 2]

    Args:
      near: k, similarity of each candidate to each point that is to be represented, at least 0,
        [n, points].
      weight: w, of each point, at least 0.

    References:
      Nemhauser, Wolsey and Fisher, "An Analysis of Approximations for Maximizing Submodular Set
      Functions", 1978.
    """

    def __init__(self, near: sparse.csr_array, weight: Float[np.ndarray, " points"]):
        self._bounds, self._points, self._values = _rows(near)
        self._weight, self._best = weight.astype(np.float64), np.zeros(len(weight))

    def gain(self, candidate: int) -> float:
        """What the function would grow by."""
        at = slice(self._bounds[candidate], self._bounds[candidate + 1])
        points = self._points[at]
        more = np.maximum(self._values[at] - self._best[points], 0)
        return float(self._weight[points] @ more)

    def take(self, candidate: int) -> None:
        """Adds a candidate to the set."""
        at = slice(self._bounds[candidate], self._bounds[candidate + 1])
        points = self._points[at]
        self._best[points] = np.maximum(self._best[points], self._values[at])


def greedy(
    terms: Sequence[Term], candidates: int, count: int
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Chooses candidates one after the other, each time the one of the largest gain.

    The set is at least 1 - 1/e times as good as the best one of its size. Gains only shrink, so
    that one which was computed earlier is an upper bound, and few are computed again.

    Args:
      terms: functions that are added up.
      candidates: number of candidates n.
      count: number to choose, at most n.

    Returns:
      The chosen candidates in the order of choice, and the gain of each. Of equal gains the first
      candidate is taken.

    References:
      Minoux, "Accelerated Greedy Algorithms for Maximizing Submodular Set Functions", 1978.
    """
    waiting = [(-sum(term.gain(i) for term in terms), i, 0) for i in range(candidates)]
    heapq.heapify(waiting)
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < min(count, candidates):
        bound, i, known_at = heapq.heappop(waiting)
        if known_at == len(chosen):
            chosen.append(i)
            gains.append(-bound)
            for term in terms:
                term.take(i)
        else:
            fresh = -sum(term.gain(i) for term in terms)
            heapq.heappush(waiting, (fresh, i, len(chosen)))
    return np.array(chosen, np.int64), np.array(gains)


def _rows(matrix: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds of the rows, columns and values of a sparse matrix."""
    return matrix.indptr, matrix.indices, matrix.data.astype(np.float64)
