"""Captions as one vector each, pooled from their tokens as they are read."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from ape_jax.config import poolings
from ape_jax.features.ragged import RaggedTokens

_TOKENS = 2**15  # Of captions that are pooled together.
_ROOT = "mean_sqrt_len"  # The pooling that a shift of tokens is stretched by.


class PooledRows:
    """One f32 vector a caption, pooled from its tokens as it is read: [n, e].

    Args:
      tokens: the captions' encodings, in memory or on disk.
      pooling: a mode, or several joined by "+", as for `RaggedTokens.pool`.
    """

    def __init__(self, tokens: RaggedTokens, pooling: str):
        self._tokens, self._pooling = tokens, pooling
        width = tokens.flat.shape[1] * len(poolings.parts(pooling))
        self.shape: tuple[int, ...] = (len(tokens), width)
        self.dtype = np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> Float32[np.ndarray, "b e"]:
        """The vectors of some captions."""
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else index
        out = np.empty((len(rows), self.shape[1]), np.float32)
        # Captions may be long: so many at a time that their tokens stay few.
        ends = np.cumsum(self._tokens.lengths[rows])
        start = 0
        while start < len(rows):
            before = ends[start - 1] if start else 0
            stop = max(int(np.searchsorted(ends, before + _TOKENS, side="right")), start + 1)
            out[start:stop] = self._read(rows[start:stop]).pool(self._pooling)
            start = stop
        return out

    def _read(self, rows: np.ndarray) -> RaggedTokens:
        if (np.diff(rows) != 1).any():
            return self._tokens.rows(rows)
        # Neighbours lie side by side: one long read.
        offsets = self._tokens.offsets[rows[0] : rows[-1] + 2]
        return RaggedTokens(self._tokens.flat[offsets[0] : offsets[-1]], offsets - offsets[0])


def shifts(
    tokens: RaggedTokens, texts: Int[np.ndarray, " b"], pooling: str
) -> Float[np.ndarray, " b"]:
    """How far what is pooled of each text moves where each of its tokens moves by one."""
    if pooling != _ROOT:
        return np.ones(len(texts))
    return np.sqrt(tokens.lengths[texts])
