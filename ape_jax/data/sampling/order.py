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
_VERSION_OF_BLOCKS = "3"  # Of the order of more records than are shuffled at once.

# Records of an epoch that are shuffled at once. Of more, blocks of neighbours are shuffled, and the
# records of a window of blocks: features are read from a disk in long runs, and those of a window
# stay in memory while they come.
_AT_ONCE = 2**18
_BLOCK = 2**10
_WINDOW = 2**6

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_WORD = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Order:
    """Epoch-wise shuffles of `n` records: every record once an epoch, batches straddle epochs.

    Up to 2**18 records are one shuffle, which is held in memory. More are shuffled on two levels:
    the blocks of 1024 neighbours, and the records of each 64 blocks that follow each other then.
    Of these one window is held in memory, whatever the number of records.

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
        return int(self._at(epoch, np.array([offset]))[0])

    def lookup(self, positions: Int64[np.ndarray, "*b"]) -> Int64[np.ndarray, "*b"]:
        """The records at global positions, of any number of epochs."""
        epochs, offsets = np.divmod(positions, self.n)
        out = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._at(int(epoch), offsets[here])
        return out

    def _at(self, epoch: int, offsets: Int64[np.ndarray, "b"]) -> Int64[np.ndarray, "b"]:
        if self.n > _AT_ONCE:
            return by_blocks(self.n, self.seed, epoch, offsets)
        return _epoch(self.n, self.seed, epoch)[offsets].astype(np.int64)

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


def version(n: int) -> str:
    """The version of the order of `n` records."""
    return VERSION if n <= _AT_ONCE else _VERSION_OF_BLOCKS


def by_blocks(
    n: int,
    seed: int,
    epoch: int,
    offsets: Int64[np.ndarray, "b"],
    block: int = _BLOCK,
    window: int = _WINDOW,
) -> Int64[np.ndarray, "b"]:
    """The records of an epoch that is shuffled on two levels.

    Args:
      n: number of records.
      seed: seed of the run.
      epoch: the epoch.
      offsets: i64 [b], places in the epoch, from 0 to n - 1.
      block: records of a block, neighbours; the last block may have fewer.
      window: blocks whose records are shuffled together.

    Returns:
      i64 [b].
    """
    starts = _blocks(n, seed, epoch, block, window)[1]
    out, windows = np.empty(offsets.shape, np.int64), np.searchsorted(starts, offsets, "right") - 1
    for number in np.unique(windows):
        here = windows == number
        records = _window(n, seed, epoch, int(number), block, window)
        out[here] = records[offsets[here] - starts[number]]
    return out


@functools.lru_cache(maxsize=4)
def _blocks(
    n: int, seed: int, epoch: int, block: int, window: int
) -> tuple[UInt32[np.ndarray, "m"], Int64[np.ndarray, "w"]]:
    """The blocks of an epoch in order, and the places at which windows begin."""
    order = permutation(-(-n // block), seed, epoch, "order of blocks")
    sizes = np.full(len(order), block)
    sizes[order == len(order) - 1] = n - (len(order) - 1) * block
    return order, (np.cumsum(sizes) - sizes)[::window]


# A batch meets one window or two, the steps that are sampled at once some more.
@functools.lru_cache(maxsize=4)
def _window(
    n: int, seed: int, epoch: int, number: int, block: int, window: int
) -> UInt32[np.ndarray, "m"]:
    """The records of a window in order."""
    order, starts = _blocks(n, seed, epoch, block, window)
    chosen = order[number * window : (number + 1) * window].astype(np.int64)
    records = (chosen[:, None] * block + np.arange(block)).reshape(-1)
    records = records[records < n].astype(np.uint32)
    count = (epoch * len(starts) + number) % 2**64
    return records[permutation(len(records), seed, count, "order in a window")]


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
