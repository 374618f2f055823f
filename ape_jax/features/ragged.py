"""Token encodings of captions of different lengths, stored without padding."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from ape_jax.config import poolings
from ape_jax.storage.rows import access
from ape_jax.storage.rows.access import Rows

_BLOCK = (
    4096  # Rows pooled at a time: what is stored in bf16, or in files, is never f32 as a whole.
)


@dataclasses.dataclass(frozen=True)
class RaggedTokens:
    """Rows of different lengths in one flat array, which may lie in files.

    Attributes:
      flat: f32 or bf16 (`ml_dtypes`) [sum of lengths, d].
      offsets: i64 [n + 1]; row i is `flat[offsets[i]:offsets[i + 1]]`.
      ids: i32 [sum of lengths], what each token is in its tower's vocabulary, where that is wanted.
      padded_length: the length that rows are padded to where batches have to say at which places
        each row's tokens lie; else 0.
    """

    flat: Float[Rows, "S d"] | Int32[np.ndarray, "S 1"]
    offsets: Int[np.ndarray, " bounds"]
    ids: Int32[np.ndarray, "S"] | None = None
    padded_length: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, "n"]:
        """The length of each row."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """The length of the longest row."""
        return int(self.lengths.max(initial=0))

    def rows(self, chosen: Int[np.ndarray, "b"]) -> RaggedTokens:
        """The chosen rows, in that order."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        moved = np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        places = moved + np.arange(len(moved))
        ids = None if self.ids is None else self.ids[places]
        return RaggedTokens(access.choose(self.flat, places), offsets, ids, self.padded_length)

    def with_padded_length(self) -> RaggedTokens:
        """The same rows, whose batches say at which places each row's tokens lie."""
        return dataclasses.replace(self, padded_length=max(-(-self.longest // 4) * 4, 4))

    def padded(
        self, rows: Int[np.ndarray, "b"], length: int
    ) -> tuple[Float[np.ndarray, "b T d"] | Int32[np.ndarray, "b T 1"], Bool[np.ndarray, "b T"]]:
        """The rows' tokens, zero where the mask is false.

        Args:
          rows: which rows, in which order.
          length: T, at least the longest of these rows.

        Raises:
          ValueError: where a row is longer than `length`.
        """
        start, size = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        if len(rows) and size.max() > length:
            raise ValueError(f"a row of {size.max()} tokens does not fit into {length}")
        place = np.arange(length)
        mask = place[None, :] < size[:, None]
        tokens = self.flat[np.where(mask, start[:, None] + place[None, :], 0)]
        tokens[~mask] = 0
        return tokens, mask

    def packed(
        self, rows: Int[np.ndarray, "B"], groups: int, size: int
    ) -> tuple[Float[np.ndarray, "G S d"] | Int32[np.ndarray, "G S 1"], Int32[np.ndarray, "G b"]]:
        """The rows' tokens end to end in groups, as `align.packing.Packed` holds them.

        Args:
          rows: which rows, in which order; the first B / G of them make the first group.
          groups: G, a divisor of B.
          size: S, at least the tokens of any group; see `bucket` and `largest_group`.

        Returns:
          The tokens in the type of `flat`, zero behind each group's last, and the lengths.

        Raises:
          ValueError: where a group has more tokens than `size`.
        """
        rows = rows.reshape(groups, -1)
        lengths = self.lengths[rows]
        if (longest := lengths.sum(axis=1).max(initial=0)) > size:
            raise ValueError(f"a group of {longest} tokens does not fit into {size}")
        tokens = np.zeros((groups, size, self.flat.shape[1]), self.flat.dtype)
        for group, starts, counts in zip(tokens, self.offsets[rows], lengths):
            # Each token's place in `flat`: its own number plus how far its caption was moved.
            moved = np.repeat(starts - (np.cumsum(counts) - counts), counts)
            places = moved + np.arange(len(moved))
            self.flat.take(places, axis=0, out=group[: len(moved)], mode="clip")
        return tokens, lengths.astype(np.int32)

    def batch(self, rows: Int[np.ndarray, "B"], groups: int, size: int) -> dict[str, np.ndarray]:
        """A batch of packed rows, as `Model.text_features` takes it.

        Args:
          rows: as for `packed`.
          groups: likewise.
          size: likewise.

        Returns:
          `tokens` and `lengths`, `ids` i32 [G, S] where they are known, and with a `padded_length`
          T `token_index` i32 [G, B / G, T].
        """
        tokens, lengths = self.packed(rows, groups, size)
        batch = {"tokens": tokens, "lengths": lengths}
        if self.ids is not None:
            flat = RaggedTokens(self.ids[:, None], self.offsets)
            batch["ids"] = flat.packed(rows, groups, size)[0][..., 0]
        if self.padded_length:
            starts = np.cumsum(lengths, axis=1) - lengths
            place = np.arange(self.padded_length)
            real = place < lengths[..., None]
            batch["token_index"] = np.where(real, starts[..., None] + place, size).astype(np.int32)
        return batch

    def padded_batch(self, rows: Int[np.ndarray, "b"], length: int) -> dict[str, np.ndarray]:
        """Makes a padded batch: `tokens`, `mask` and, where they are known, `ids` i32 [b, T]."""
        tokens, mask = self.padded(rows, length)
        batch = {"tokens": tokens, "mask": mask}
        if self.ids is not None:
            batch["ids"] = RaggedTokens(self.ids[:, None], self.offsets).padded(rows, length)[0]
            batch["ids"] = batch["ids"][..., 0]
        return batch

    def largest_group(self, rows: Int[np.ndarray, "B"], groups: int) -> int:
        """The tokens of the group of `packed` that has most of them."""
        return int(self.lengths[rows].reshape(groups, -1).sum(axis=1).max(initial=0))

    def mean(self) -> Float[np.ndarray, "n d"]:
        """The mean of each row, in f32: mean-pooled text."""
        return self.pool("mean")

    def pool(
        self, pooling: str, start: int = 0, stop: int | None = None
    ) -> Float[np.ndarray, "n e"]:
        """One f32 vector a row, as `align.packing.Packed` pools.

        Args:
          pooling: a mode, or several joined by "+" (`config.poolings`).
          start: the first row.
          stop: one behind the last, None for all.

        Raises:
          ValueError: for another pooling.
        """
        parts = poolings.parts(pooling)
        if not parts:
            raise ValueError(f"captions are not pooled by {pooling!r}")
        stop, width = len(self) if stop is None else stop, self.flat.shape[1]
        pooled = np.empty((stop - start, len(parts) * width), np.float32)
        for first in range(start, stop, _BLOCK):
            rows = slice(first, min(first + _BLOCK, stop))
            for k, part in enumerate(parts):
                into = pooled[rows.start - start : rows.stop - start, k * width : (k + 1) * width]
                into[:] = self._pooled(part, rows)
        return pooled

    def _pooled(self, mode: str, rows: slice) -> Float[np.ndarray, "n d"]:
        """One mode of a block of rows."""
        offsets = self.offsets[rows.start : rows.stop + 1]
        if mode in ("cls", "last"):
            places = offsets[:-1] if mode == "cls" else offsets[1:] - 1
            return self.flat[places].astype(np.float32)
        flat = self.flat[int(offsets[0]) : int(offsets[-1])].astype(np.float32, copy=False)
        starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
        count = lengths[:, None].astype(np.float32)
        if mode == "max":
            return np.maximum.reduceat(flat, starts, axis=0)
        if mode == "weightedmean":
            place = np.arange(len(flat)) - np.repeat(starts, lengths) + 1
            flat = flat * place[:, None].astype(np.float32)
            return np.add.reduceat(flat, starts, axis=0) / (count * (count + 1) / 2)
        total = np.add.reduceat(flat, starts, axis=0)
        return total / (np.sqrt(count) if mode == "mean_sqrt_len" else count)


def bucket(total: int | np.integer) -> int:
    """The smallest size of the grid that holds `total` tokens: 16 sizes a doubling, all by 8.

    From 128 on less than 1/16 of a size is padding. A run's batches vary little in their number of
    tokens, so that they need two or three sizes, and as many compiled programs.

    Example:
      >>> [bucket(n) for n in (0, 1, 100, 129, 1000, 1025, 13_312)]
      [8, 8, 104, 136, 1024, 1088, 13312]
    """
    total = int(total)
    doubling = 1 << max(total - 1, 1).bit_length()  # The power of two at or above.
    step = max(8, doubling // 32)
    return max(step, -(-total // step) * step)


def from_rows(rows: list[Float[np.ndarray, "_ d"]]) -> RaggedTokens:
    """Joins rows of shape [t_i, d], each with at least one token."""
    lengths = [len(row) for row in rows]
    return RaggedTokens(np.concatenate(rows), np.concatenate([[0], np.cumsum(lengths)]))
