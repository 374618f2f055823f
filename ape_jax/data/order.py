"""Which record comes when, and every random draw, as pure functions of (seed, position).

Positions count records from the start of training over all processes. Nothing here has state: a
run that starts at step s, or on another number of processes, sees what it would have seen.

The arithmetic is 32-bit and the same for NumPy and jax.numpy: what the host draws, the device
draws too, bit for bit. A 64-bit position or epoch is two words, the high one first.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt32

from ape_jax.errors import UserError

# Raise it when the same seed would give another order or other draws.
VERSION = "2"

# Arrays of NumPy, or of JAX where the caller has those.
Word = UInt32[Any, "..."]
Words = tuple[Word, Word]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_HALF = np.uint32(0xFFFF)


@dataclasses.dataclass(frozen=True)
class Order:
    """Epoch-wise shuffles of `n` records: every record once an epoch, batches straddle epochs.

    The permutation of an epoch is held in memory, 4 bytes a record: far less than the records, and
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
        return int(_epoch(self.n, self.seed, epoch)[place])

    def lookup(self, positions: Int64[np.ndarray, "*b"]) -> Int64[np.ndarray, "*b"]:
        """The records at global positions, of any number of epochs."""
        epochs, places = np.divmod(positions, self.n)
        out = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = _epoch(self.n, self.seed, int(epoch))[places[here]]
        return out

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
        return self.lookup(at)


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
    seed: int, stream: str, positions: Int64[np.ndarray, "*b"], counts: Int64[np.ndarray, "*b"]
) -> Int64[np.ndarray, "*b"]:
    """Uniform integers in [0, count), one for each position, without state.

    Args:
      seed: Of the run.
      stream: A name for what is drawn; streams are independent of each other.
      positions: `int64 [b]`, not negative.
      counts: `int64 [b]`, from 1 to 2**32 - 1.

    Returns:
      `int64 [b]`.
    """
    counts = np.asarray(counts, np.int64)
    if counts.size and (counts.min() < 1 or counts.max() >= 2**32):
        raise ValueError("counts must lie in [1, 2**32).")
    drawn = draw_words(stream_key(seed, stream), words(positions), counts.astype(np.uint32))
    return drawn.astype(np.int64)


def draw_words(key: Words, position: Words, counts: Word) -> Word:
    """`draw` on words, for arrays of NumPy or JAX: u32 of the shape of `counts`.

    The range is reached by the upper half of bits * count, so that no value is off by more than
    count / 2**32 of its share.
    """
    return _multiply_high(threefry2x32(key, position)[0], counts)


def permutation(n: int, key: Words, epoch: Words, xp: Any = np) -> Any:
    """The order of one epoch: the indices below `n`, sorted by keyed hashes of themselves.

    Args:
      n: number of records; below 2**31 with `jax.numpy`, whose indices have 32 bits.
      key: `stream_key(seed, "order")`.
      epoch: its number in words, of shape [1].
      xp: `numpy` or `jax.numpy`; both give the same integers.

    Returns:
      u32 [n] with NumPy, i32 [n] with JAX.
    """
    if xp is np:
        return rank(_hashes(n, threefry2x32(key, epoch), xp), xp).astype(np.uint32)
    if n >= 2**31:
        raise ValueError(f"a device sorts fewer than 2**31 records, found {n}")
    return rank(_hashes(n, threefry2x32(key, epoch), xp), xp)


def rank(hashes: Word, xp: Any = np) -> Any:
    """The places of `hashes` in ascending order; of equal ones the first comes first."""
    return xp.argsort(hashes, stable=True)


def threefry2x32(key: Words, counter: Words) -> Words:
    """Two random words for each counter: Threefry-2x32 with 20 rounds.

    Args:
      key: two u32 words; NumPy's of at least one dimension, where additions wrap silently.
      counter: two arrays of u32 words.

    References:
      Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    keys = (*key, key[0] ^ key[1] ^ _PARITY)
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x = x + y
            y = ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn))) ^ x
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def words(numbers: Int64[np.ndarray, "*b"] | int) -> Words:
    """Whole numbers below 2**64 as their high and low words, u32, of at least one dimension."""
    numbers = np.atleast_1d(np.asarray(numbers)).astype(np.uint64)
    return (numbers >> np.uint64(32)).astype(np.uint32), numbers.astype(np.uint32)


@functools.cache
def stream_key(seed: int, stream: str) -> Words:
    """The key of a stream of draws, two words of shape [1]."""
    return words(_stream_number(seed, stream))


def generator(seed: int, stream: str, position: int, view: int = 0) -> np.random.Generator:
    """A generator of its own for every (seed, stream, position, view); Philox4x64 by counter."""
    # The generator itself counts in the lowest of the four words.
    counter = np.array([0, 0, view, position], np.uint64)
    return np.random.Generator(np.random.Philox(key=_stream_number(seed, stream), counter=counter))


# A batch meets one epoch or two, a window of small data many more, each for a moment.
@functools.lru_cache(maxsize=4)
def _epoch(n: int, seed: int, epoch: int) -> UInt32[np.ndarray, "n"]:
    return permutation(n, stream_key(seed, "order"), words(epoch))


@functools.cache
def _stream_number(seed: int, stream: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _hashes(n: int, key: Words, xp: Any) -> Word:
    """One hash an index, u32 [n]; a counter gives two, for an index of each half."""
    counter = xp.arange((n + 1) // 2, dtype=np.uint32)
    return xp.concatenate(threefry2x32(key, (xp.zeros_like(counter), counter)))[:n]


def _multiply_high(a: Word, b: Word) -> Word:
    """The upper 32 bits of a 64-bit product, from products of halves that fit 32 bits."""
    half = np.uint32(16)
    a_low, a_high, b_low, b_high = a & _HALF, a >> half, b & _HALF, b >> half
    middle = a_high * b_low + ((a_low * b_low) >> half)
    carry = (a_low * b_high + (middle & _HALF)) >> half
    return a_high * b_high + (middle >> half) + carry
