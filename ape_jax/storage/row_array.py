"""Arrays that are read by rows, wherever they lie: in memory, in a mapped file, in several files.

What works on a `RowArray` reads blocks of rows and never all rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np

Index = slice | np.ndarray


@runtime_checkable
class RowArray(Protocol):
    """An array whose first axis is read by a slice or an array of indices, as `np.ndarray` is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of what is read."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all rows if they were read."""
        ...

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray, /) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: Any, /) -> Any: ...


class Joined:
    """Arrays of rows one after the other, read as one of another type.

    Example:
      >>> rows = Joined([np.zeros((2, 3), np.float16), np.ones((1, 3), np.float16)], np.float32)
      >>> rows.shape, rows[np.array([2, 0])][:, 0].tolist(), len(rows[1:])
      ((3, 3), [1.0, 0.0], 2)

    Args:
      parts: at least one, of one shape behind the first axis.
      dtype: the type that rows are converted to as they are read; None for that of the parts.

    Raises:
      ValueError: for parts of different shapes or, without `dtype`, of different types.
    """

    def __init__(self, parts: Sequence[RowArray], dtype: Any = None):
        kinds = {(part.shape[1:], None if dtype else np.dtype(part.dtype)) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"rows of {len(kinds)} shapes or types do not make one array")
        self._parts = tuple(parts)
        self._bounds = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.dtype = np.dtype(dtype or parts[0].dtype)
        self.shape: tuple[int, ...] = (int(self._bounds[-1]), *parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of all rows if they were read."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """A copy of the rows of a slice, or of an array of indices or of truth values."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return self._read(np.where(index < 0, index + len(self), index))

    def _read(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        if not len(index):
            return out
        if index.min() < 0 or index.max() >= len(self):
            raise IndexError(f"there are {len(self)} rows")
        part_of = np.searchsorted(self._bounds, index, side="right") - 1
        for number in np.unique(part_of):
            part, first = self._parts[number], self._bounds[number]
            chosen = np.flatnonzero(part_of == number)
            local = index[chosen] - first
            # A run of rows is one long read; fancy indices would copy row by row.
            run = local[-1] - local[0] == len(local) - 1 and (np.diff(local) == 1).all()
            rows = part[int(local[0]) : int(local[-1]) + 1] if run else part[local]
            out[chosen if len(chosen) < len(out) else slice(None)] = rows
        return out


def blocks(count: int, size: int) -> list[slice]:
    """Slices of at most `size` rows that cover `count` rows in order.

    Example:
      >>> blocks(5, 2)
      [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
