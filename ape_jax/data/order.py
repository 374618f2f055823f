"""Which record comes when, and every random draw, as pure functions of (seed, position).

Positions count records from the start of training over all processes. Nothing here has state: a
run that starts at step s, or on another number of processes, sees what it would have seen.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Int64, UInt64

from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Order:
    """Epoch-wise shuffles of `n` records: every record once an epoch, batches straddle epochs.

    The permutation of an epoch is held in memory, 8 bytes a record: far less than the records, and
    a whole batch is looked up at once.

    Attributes:
      n: Number of records.
      seed: Of the run.
    """

    n: int
    seed: int

    def __post_init__(self):
        if not 1 <= self.n < 2**32:
            raise UserError(f"data.pairs: found {self.n} pairs; give between 1 and 2**32 - 1.")

    def at(self, position: int) -> int:
        """The record at one global position."""
        epoch, place = divmod(position, self.n)
        return int(_permutation(self.n, self.seed, epoch)[place])

    def indices(
        self, step: int, batch: int, process_index: int = 0, process_count: int = 1
    ) -> Int64[np.ndarray, "b"]:
        """This process's records of one step: `int64 [batch / process_count]`.

        The shares of all processes, in order, are the same global batch for every `process_count`.

        Raises:
          UserError: `batch` is larger than `n` (a record would be its own negative) or does not
            divide by `process_count`.
        """
        at = positions(step, batch, process_index, process_count)
        check_batch(self.n, batch)
        epochs, places = np.divmod(at, self.n)
        # A batch is no larger than an epoch, so it meets one or two of them.
        first, last = (_permutation(self.n, self.seed, int(e)) for e in epochs[[0, -1]])
        return np.where(epochs == epochs[0], first[places], last[places])


def check_batch(n: int, batch: int) -> None:
    """Raises UserError where a global batch would hold a record twice within an epoch."""
    if batch > n:
        raise UserError(
            f"train.batch: {batch} is more than the {n} pairs in data.pairs; "
            f"write at most {n} or give more pairs."
        )


def positions(
    step: int, batch: int, process_index: int = 0, process_count: int = 1
) -> Int64[np.ndarray, "b"]:
    """The global positions of one process's share of a step."""
    if batch < 1 or batch % process_count:
        raise UserError(
            f"train.batch: {batch} does not divide among {process_count} processes; "
            f"write a positive multiple of {process_count}."
        )
    share = batch // process_count
    start = step * batch + process_index * share
    return np.arange(start, start + share, dtype=np.int64)


def draw(
    seed: int, stream: str, positions: Int64[np.ndarray, "b"], counts: Int64[np.ndarray, "b"]
) -> Int64[np.ndarray, "b"]:
    """Uniform integers in [0, count), one for each position, without state.

    A counter-based generator: two rounds of SplitMix64's finaliser (Steele, Lea and Flood 2014,
    "Fast splittable pseudorandom number generators") over the position, keyed by (seed, stream);
    the range by multiply-shift on the upper 32 bits, so that no value is off by more than
    count / 2**32 of its share.

    Args:
      seed: Of the run.
      stream: A name for what is drawn; streams are independent of each other.
      positions: `int64 [b]`, not negative.
      counts: `int64 [b]`, from 1 to 2**32 - 1.

    Returns:
      `int64 [b]`.
    """
    at = np.asarray(positions, np.int64).astype(np.uint64)
    counts = np.asarray(counts, np.int64)
    if counts.size and (counts.min() < 1 or counts.max() >= 2**32):
        raise ValueError("counts must lie in [1, 2**32).")
    key = _stream_key(seed, stream)
    bits = _mix(_mix(at + key) ^ key)
    return ((bits >> np.uint64(32)) * counts.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def generator(seed: int, stream: str, position: int, view: int = 0) -> np.random.Generator:
    """A generator of its own for every (seed, stream, position, view); Philox4x64 by counter."""
    # The generator itself counts in the lowest of the four words.
    counter = np.array([0, 0, view, position], np.uint64)
    return np.random.Generator(
        np.random.Philox(key=int(_stream_key(seed, stream)), counter=counter)
    )


@functools.lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> Int64[np.ndarray, "n"]:
    return generator(seed, "order", epoch).permutation(n)


@functools.cache
def _stream_key(seed: int, stream: str) -> np.uint64:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mix(x: UInt64[np.ndarray, "b"]) -> UInt64[np.ndarray, "b"]:
    x = x + np.uint64(0x9E3779B97F4A7C15)  # Wraps, as it should.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
