"""One column of (lists of) vectors, written as a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ape_jax.data.precomputed.source import Source
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


class Lists:
    """Checks the vectors of a column and writes them.

    Args:
      source: the Parquet file, for messages.
      name: of the column.
      path: the file to write.
    """

    def __init__(self, source: Source, name: str, path: Path):
        self._where, self._name, self._path = f"{source.key}: {source.path!r}", name, path
        self._file = path.open("wb")
        self._counts: list[np.ndarray] = []
        self._shape: tuple[int, ...] | None = None  # Of an image, or of one vector of a text.
        self._dtype, self._written = np.dtype(np.float32), 0

    @property
    def counts(self) -> Int[np.ndarray, " r"]:
        """Vectors in each row that was read."""
        return np.concatenate(self._counts)

    def read(self, column: pa.Array, seen: int) -> Float[np.ndarray, "b ..."]:
        """The vectors of some rows: [b, d] or [b, V, d] of images, [S, d] of texts.

        Args:
          column: lists of numbers, or lists of these.
          seen: rows before these.

        Raises:
          UserError: for anything else, nulls, or vectors of different widths.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not is_list(column.type):
            raise UserError(
                f"{self._where}: the column {self._name!r} is {column.type}; write lists of numbers"
            )
        nested = is_list(column.type.value_type)
        counts = self._lengths(column, seen) if nested else np.ones(len(column), np.int64)
        vectors = pc.call_function("list_flatten", [column]) if nested else column
        widths = self._lengths(vectors, seen)
        values = pc.call_function("list_flatten", [vectors])
        if not pa.types.is_floating(values.type) or values.null_count:
            raise UserError(
                f"{self._where}: the column {self._name!r} holds {values.type} with "
                f"{values.null_count} nulls; write floating point numbers"
            )
        self._check(counts, widths, nested)
        self._dtype = np.dtype("<f2" if pa.types.is_float16(values.type) else "<f4")
        with np.errstate(over="ignore"):  # An f64 beyond f32 is found as infinite.
            flat = values.to_numpy(zero_copy_only=False).astype(self._dtype, copy=False)
        self._counts.append(counts)
        assert self._shape is not None
        return flat.reshape(-1, *self._shape)

    def _check(self, counts: np.ndarray, widths: np.ndarray, nested: bool) -> None:
        known = {self._shape[-1]} if self._shape else set()
        found = sorted(known | set(np.unique(widths).tolist()))
        if len(found) != 1 or not found[0] or (counts < 1).any():
            raise UserError(
                f"{self._where}: the vectors in {self._name!r} are {found[:5]} wide and rows hold "
                f"at least {counts.min(initial=1)}; write one or more vectors of one width in each "
                "row"
            )
        shape: tuple[int, ...] = (found[0],)
        if self._name == "image" and nested:
            views = sorted({int(v) for v in counts} | ({self._shape[0]} if self._shape else set()))
            if len(views) != 1:
                raise UserError(
                    f"{self._where}: every 'image' must have as many views, found {views[:5]}"
                )
            shape = (views[0], *shape)
        self._shape = shape

    def _lengths(self, column: pa.Array, seen: int) -> np.ndarray:
        import pyarrow.compute as pc

        if column.null_count:
            raise UserError(
                f"{self._where}: the column {self._name!r} holds nulls, the first behind row "
                f"{seen}; leave those rows out"
            )
        return (
            pc.call_function("list_value_length", [column])
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )

    def write(self, rows: np.ndarray) -> None:
        """Appends rows."""
        self._file.write(np.ascontiguousarray(rows).data)
        self._written += len(rows)

    def written_rows(self, index: Int[np.ndarray, " k"]) -> np.ndarray:
        """Rows that were written before."""
        self._file.flush()
        meta = self.written()
        return np.memmap(self._path, meta["dtype"], "r", shape=tuple(meta["shape"]))[index]

    def written(self) -> dict[str, Any]:
        """Shape and type of all that was written."""
        return {"shape": [self._written, *(self._shape or ())], "dtype": self._dtype.str}

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of lists."""
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
