"""The order of records where some sources come more often than others.

An epoch has a number of slots for each record: its weight, where that is a whole number; of the
fraction that is left over, so large a share of the records, another one in each epoch. Slots are
shuffled as records are without weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from ape_jax.data.sampling.order import Order, permutation


@dataclasses.dataclass(frozen=True)
class Source:
    """Records of one weight.

    Attributes:
      records: their indices, ascending, i64 [n].
      weight: above 0.
    """

    records: Int64[np.ndarray, " n"]
    weight: float

    @property
    def copies(self) -> int:
        """How often each record comes in an epoch, at least."""
        return int(self.weight)

    @property
    def sampled(self) -> int:
        """Number of records that come once more; at least one record of a source comes."""
        some = round((self.weight - self.copies) * len(self.records))
        return max(some, 0 if self.copies else 1)

    @property
    def slots(self) -> int:
        """Records an epoch."""
        return self.copies * len(self.records) + self.sampled


class WeightedOrder:
    """The order of a mixture; as `Order`, a function of (seed, position).

    Example:
      >>> order = WeightedOrder(np.array([2.0, 1.0]), seed=0)
      >>> sorted(order.lookup(np.arange(3)).tolist())
      [0, 0, 1]

    Args:
      weights: of each record, f64 [n].
      seed: seed of the run.
    """

    def __init__(self, weights: Float64[np.ndarray, " n"], seed: int):
        found, of_record = np.unique(weights, return_inverse=True)
        self.seed = seed
        self._sources = [
            Source(np.flatnonzero(of_record == i), float(weight)) for i, weight in enumerate(found)
        ]
        self._ends = np.cumsum([source.slots for source in self._sources])
        self._slots = Order(int(self._ends[-1]), seed)
        # A window is of one epoch or two.
        self._sample = functools.lru_cache(maxsize=2 * len(self._sources))(self._sample_epoch)

    def at(self, position: int) -> int:
        """The record at one global position."""
        return int(self.lookup(np.array([position], np.int64))[0])

    def lookup(self, positions: Int64[np.ndarray, "*b"]) -> Int64[np.ndarray, "*b"]:
        """The records at global positions, of any number of epochs."""
        slots = self._slots.lookup(positions)
        epochs = positions // self._slots.n
        number = np.searchsorted(self._ends, slots, side="right")
        out = np.empty(positions.shape, np.int64)
        for i, source in enumerate(self._sources):
            here = number == i
            slot = slots[here] - (self._ends[i] - source.slots)
            n = len(source.records)
            row = slot % n
            more = slot >= source.copies * n
            for epoch in np.unique(epochs[here][more]):
                these = more & (epochs[here] == epoch)
                row[these] = self._sample(i, int(epoch))[slot[these] - source.copies * n]
            out[here] = source.records[row]
        return out

    def _sample_epoch(self, number: int, epoch: int) -> Int64[np.ndarray, " k"]:
        """The records of a source that come once more in an epoch, ascending for long reads."""
        source = self._sources[number]
        shuffled = permutation(len(source.records), self.seed, epoch, f"source {number}")
        return np.sort(shuffled[: source.sampled].astype(np.int64))


def order_of(pairs: Sequence[Any], seed: int) -> Order | WeightedOrder:
    """The order that records come in: weighted where they are of a mixture with weights.

    Args:
      pairs: the records; `weights`, if they have any, is f64 [n] or None.
      seed: seed of the run.
    """
    weights = getattr(pairs, "weights", None)
    return Order(len(pairs), seed) if weights is None else WeightedOrder(weights, seed)
