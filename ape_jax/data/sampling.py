"""Sampling without state: which record comes when, and every random choice, by (seed, position).

Positions count records from the start of training over all processes. A run that starts at step s,
or on another number of processes, samples what it would have sampled otherwise. All of it is
computed on the host, with NumPy; devices are sent the results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from ape_jax.errors import UserError

# Raise it when the same seed would give another order or other samples.
VERSION = "2"

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_WORD = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Order:
    """Epoch-wise shuffles of `n` records: every record once an epoch, batches straddle epochs.

    The permutation of an epoch is held in memory, 4 bytes a record: far less than the records, and
    a whole batch is looked up at once.

    Attributes:
      n: number of records.
      seed: seed of the run.
    """

    n: int
    seed: int

    def __post_init__(self):
        if not 1 <= self.n < 2**32:
            raise UserError(f"data.pairs: found {self.n} pairs; give between 1 and 2**32 - 1")

    def at(self, position: int) -> int:
        """The record at one global position."""
        epoch, offset = divmod(position, self.n)
        return int(_epoch(self.n, self.seed, epoch)[offset])

    def lookup(self, positions: Int64[np.ndarray, "*b"]) -> Int64[np.ndarray, "*b"]:
        """The records at global positions, of any number of epochs."""
        epochs, offsets = np.divmod(positions, self.n)
        out = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = _epoch(self.n, self.seed, int(epoch))[offsets[here]]
        return out

    def indices(
        self, step: int, batch: int, process_index: int = 0, process_count: int = 1
    ) -> Int64[np.ndarray, "b"]:
        """This process's records of one step: i64 [batch / process_count].

        The shares of all processes, in order, are the same global batch for every `process_count`.

        Raises:
          UserError: `batch` is larger than `n` (a record would be its own negative) or does not
            divide by `process_count`.
        """
        at = positions(step, batch, process_index, process_count)
        check_batch(self.n, batch)
        return self.lookup(at)


def check_batch(n: int, batch: int) -> None:
    """Raises UserError where a global batch would hold a record twice within an epoch."""
    if batch > n:
        raise UserError(
            f"train.batch: {batch} is more than the {n} pairs in data.pairs; "
            f"write at most {n} or give more pairs"
        )


def positions(
    step: int, batch: int, process_index: int = 0, process_count: int = 1
) -> Int64[np.ndarray, "b"]:
    """The global positions of one process's share of a step."""
    if batch < 1 or batch % process_count:
        raise UserError(
            f"train.batch: {batch} does not divide among {process_count} processes; "
            f"write a positive multiple of {process_count}"
        )
    share = batch // process_count
    start = step * batch + process_index * share
    return np.arange(start, start + share, dtype=np.int64)


def uniform(
    seed: int, stream: str, positions: Int64[np.ndarray, "*b"], counts: Int64[np.ndarray, "*b"]
) -> Int64[np.ndarray, "*b"]:
    """Samples uniform integers in [0, count), one for each position.

    An integer is the upper half of 32 random bits * count, so that no value is off by more than
    count / 2**32 of its share.

    Args:
      seed: seed of the run.
      stream: a name for what is sampled; streams are independent of each other.
      positions: i64 [b], not negative.
      counts: i64 [b], from 1 to 2**32 - 1.

    Returns:
      i64 [b].
    """
    counts = np.asarray(counts, np.int64)
    if counts.size and (counts.min() < 1 or counts.max() >= 2**32):
        raise ValueError("counts must lie in [1, 2**32)")
    bits, _ = threefry2x32(_stream_key(seed, stream), np.asarray(positions).astype(np.uint64))
    product = bits.astype(np.uint64) * counts.astype(np.uint64)
    return (product >> np.uint64(32)).astype(np.int64)


def permutation(n: int, seed: int, epoch: int, stream: str = "order") -> UInt32[np.ndarray, "n"]:
    """The order of one epoch: the indices below `n`, sorted by keyed hashes of themselves."""
    high, low = threefry2x32(_stream_key(seed, stream), np.array([epoch], np.uint64))
    # A counter gives two hashes, for an index of each half.
    counters = np.arange((n + 1) // 2, dtype=np.uint64)
    hashes = np.concatenate(threefry2x32(int(high[0]) << 32 | int(low[0]), counters))[:n]
    # Of equal hashes the first comes first.
    return np.argsort(hashes, stable=True).astype(np.uint32)


def threefry2x32(
    key: int, counters: UInt64[np.ndarray, "b"]
) -> tuple[UInt32[np.ndarray, "b"], UInt32[np.ndarray, "b"]]:
    """Computes two random words for each counter: Threefry-2x32 with 20 rounds.

    Args:
      key: 64 bits.
      counters: u64 [b]; of key and counters the high word comes first.

    References:
      Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    keys = (key >> 32, key & _WORD, key >> 32 ^ key & _WORD ^ _PARITY)
    x = (counters >> np.uint64(32)).astype(np.uint32) + np.uint32(keys[0])
    y = counters.astype(np.uint32) + np.uint32(keys[1])
    turned = np.empty_like(y)
    for group in range(5):  # In place: large arrays would mostly wait for new memory.
        for turn in _ROTATIONS[group % 2]:
            x += y
            np.left_shift(y, np.uint32(turn), out=turned)
            y >>= np.uint32(32 - turn)
            y |= turned
            y ^= x
        x += np.uint32(keys[(group + 1) % 3])
        y += np.uint32((keys[(group + 2) % 3] + group + 1) & _WORD)
    return x, y


def generator(seed: int, stream: str, position: int, view: int = 0) -> np.random.Generator:
    """A generator of its own for every (seed, stream, position, view); Philox4x64 by counter."""
    # The generator itself counts in the lowest of the four words.
    counter = np.array([0, 0, view, position], np.uint64)
    return np.random.Generator(np.random.Philox(key=_stream_key(seed, stream), counter=counter))


# A batch meets one epoch or two, a window of small data many more, each for a moment.
@functools.lru_cache(maxsize=4)
def _epoch(n: int, seed: int, epoch: int) -> UInt32[np.ndarray, "n"]:
    return permutation(n, seed, epoch)


@functools.cache
def _stream_key(seed: int, stream: str) -> int:
    """The 64-bit key of a stream."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
