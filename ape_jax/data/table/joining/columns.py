"""Rows and columns of record batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ape_jax.data.table.joining.groups import Keys

if TYPE_CHECKING:
    import pyarrow as pa


def take(table: pa.Table, rows: np.ndarray) -> dict[str, pa.Array]:
    """Some rows of a table, an array a column; rows that follow each other are not copied."""
    import pyarrow as pa

    if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all():
        taken = table.slice(int(rows[0]), len(rows))
    else:
        taken = table.take(pa.array(rows))
    arrays = {}
    for name in table.column_names:
        column = taken.column(name).combine_chunks()
        arrays[name] = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return arrays


def column(batches: Sequence[pa.RecordBatch], name: str) -> np.ndarray:
    """A column of numbers."""
    return np.concatenate([np.asarray(batch.column(name)) for batch in batches])


def hashes(batches: Sequence[pa.RecordBatch], name: str) -> Keys:
    """A column of 16 bytes as two words."""
    parts = []
    for batch in batches:
        column = batch.column(name)
        raw = np.frombuffer(column.buffers()[1], "<u8", 2 * len(column), 16 * column.offset)
        parts.append(raw.reshape(-1, 2))
    return np.concatenate(parts)
