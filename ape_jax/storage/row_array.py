"""Arrays that are read by rows, wherever rows come from: memory, mapped files, a computation.

What works on a `RowArray` reads blocks of rows and never all rows at once.
"""

from __future__ import annotations

from typing import Any, Protocol, overload, runtime_checkable

import numpy as np


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


def blocks(count: int, size: int) -> list[slice]:
    """Slices of at most `size` rows that cover `count` rows in order.

    Example:
      >>> blocks(5, 2)
      [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
