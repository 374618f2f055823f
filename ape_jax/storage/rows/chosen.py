"""Some rows of an array in files, used as an array of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from ape_jax.storage.rows.mapped import MappedRows, aligned, inside

_BLOCK = 4096  # Rows read at a time.


class ChosenRows:
    """Some rows of a `MappedRows`, in any order, used as one.

    Args:
      rows: the array.
      index: i64 [k], which rows of it.
    """

    def __init__(self, rows: MappedRows, index: Int[np.ndarray, "k"]):
        small = np.uint32 if len(rows) < 2**32 else np.int64
        self._rows, self._index = rows, inside(index, len(rows)).astype(small)
        self.shape, self.dtype = (len(index), *rows.shape[1:]), rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Shaped[np.ndarray, "..."]:
        if isinstance(key, tuple):
            return self._rows[self._index[key[0]].astype(np.int64), key[1]]
        return self._rows[self._index[key].astype(np.int64)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of files are in memory only as a copy")
        return self.read() if dtype is None else self.read().astype(dtype, copy=False)

    def take(
        self,
        indices: Int[np.ndarray, "..."],
        axis: int = 0,
        out: np.ndarray | None = None,
        mode: str = "raise",
    ) -> Shaped[np.ndarray, "..."]:
        """Copies rows, as `MappedRows.take` does."""
        return self._rows.take(self._index[indices].astype(np.int64), axis, out, mode)

    def choose(self, indices: Int[np.ndarray, "k"]) -> ChosenRows:
        """Some of these rows."""
        return ChosenRows(self._rows, self._index[indices].astype(np.int64))

    def read(self) -> Shaped[np.ndarray, "..."]:
        """Reads all rows into memory, as `MappedRows.read` does."""
        whole = aligned(self.shape, self.dtype)
        for start in range(0, len(self), _BLOCK):
            block = self._index[start : start + _BLOCK].astype(np.int64)
            self._rows.take(block, out=whole[start : start + _BLOCK])
        return whole
