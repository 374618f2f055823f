"""Token encodings of captions of different lengths, stored without padding."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class RaggedTokens:
    """Rows of different lengths in one flat array.

    Attributes:
      flat: f32 [sum of lengths, d].
      offsets: i64 [n + 1]; row i is `flat[offsets[i]:offsets[i + 1]]`.
    """

    flat: Float[np.ndarray, "S d"]
    offsets: Int[np.ndarray, "n+1"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """The length of the longest row."""
        return int(np.diff(self.offsets).max(initial=0))

    def padded(
        self, rows: Int[np.ndarray, "b"], length: int
    ) -> tuple[Float[np.ndarray, "b T d"], Bool[np.ndarray, "b T"]]:
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

    def mean(self) -> Float[np.ndarray, "n d"]:
        """The mean of each row: mean-pooled text."""
        sums = np.add.reduceat(self.flat, self.offsets[:-1], axis=0)
        return (sums / np.diff(self.offsets)[:, None]).astype(np.float32)


def from_rows(rows: list[Float[np.ndarray, "t d"]]) -> RaggedTokens:
    """Joins rows of shape [t_i, d], each with at least one token."""
    lengths = [len(row) for row in rows]
    return RaggedTokens(np.concatenate(rows), np.concatenate([[0], np.cumsum(lengths)]))
