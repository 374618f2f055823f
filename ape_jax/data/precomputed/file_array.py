"""An array as it lies in files: its shape and type are known, its rows are read later."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from ape_jax.errors import UserError
from ape_jax.storage.rows.access import Rows
from ape_jax.storage.rows.mapped import MappedRows, Part

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_AS_STORED = (BFLOAT16, np.dtype("<f4"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileArray:
    """An array [n, ...] in files, or in memory where it is small.

    Attributes:
      shape: shape.
      dtype: type in the files.
      parts: files with rows of the first axis, in order.
      values: the array itself, where it is in memory; there are no `parts` then.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: tuple[Part, ...] = ()
    values: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in the files."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_floating(self) -> bool:
        """Whether elements are floating point numbers."""
        return self.dtype == BFLOAT16 or np.issubdtype(self.dtype, np.floating)

    def rows(self, shape: Sequence[int]) -> Rows:
        """The elements in order as rows of another shape, f32 or bf16; other types are converted.

        Args:
          shape: of one row, which parts of the first axis can be cut into.
        """
        dtype = self.dtype if self.dtype in _AS_STORED else np.dtype(np.float32)
        if self.values is not None:
            with np.errstate(over="ignore"):  # An f64 beyond f32 is found as infinite.
                return self.values.astype(dtype, copy=False).reshape(-1, *shape)
        each = math.prod(self.shape[1:]) // math.prod(shape)
        parts = [dataclasses.replace(part, rows=part.rows * each) for part in self.parts]
        return MappedRows(parts, shape, self.dtype, dtype)

    def whole(self) -> Shaped[np.ndarray, "..."]:
        """All elements in memory, in their own type; for small arrays."""
        if self.values is not None:
            return self.values
        return MappedRows(self.parts, self.shape[1:], self.dtype).read()


def in_memory(values: np.ndarray) -> FileArray:
    """An array that is in memory."""
    return FileArray(shape=values.shape, dtype=values.dtype, values=values)


def joined(arrays: Sequence[FileArray], name: str) -> FileArray:
    """One array of several, end to end along the first axis.

    Args:
      arrays: at least one.
      name: what to call them in messages.

    Raises:
      UserError: for different types, or shapes behind the first axis.
    """
    kinds = sorted({f"{list(x.shape[1:])} of {x.dtype.name}" for x in arrays})
    if len(kinds) > 1 or not all(x.shape for x in arrays):
        raise UserError(f"{name}: rows are {' and '.join(kinds[:3])}; write one shape and type")
    if len(arrays) == 1:
        return arrays[0]
    shape = (sum(x.shape[0] for x in arrays), *arrays[0].shape[1:])
    if any(x.values is not None for x in arrays):
        return in_memory(np.concatenate([x.whole() for x in arrays]))
    parts = tuple(part for x in arrays for part in x.parts)
    return FileArray(shape=shape, dtype=arrays[0].dtype, parts=parts)
