"""What a Parquet file decodes to, by its footer and the headers of its pages.

They are read by `thrift` and not by pyarrow, which ends the process for some damaged ones.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Sequence
from typing import IO, Any

from ape_jax.data import thrift
from ape_jax.data.formats.tables.arrow_checks import (
    BATCH_BYTES,
    BATCH_ROWS,
    check_growth,
    unreadable,
)
from ape_jax.storage import files

# Above these, what a file says of itself must do: an attack is small.
_MAX_FILE = 256 * 2**20
_HEADER = 1 << 16
_FREE_ROWS = 10_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Chunk:
    """One column of a row group.

    Attributes:
      rows: number of values.
      size: decoded bytes of its pages, without repeating the values of the dictionary.
      dictionary: decoded bytes of the dictionary.
      values: number of values in it.
    """

    rows: int
    size: int
    dictionary: int = 0
    values: int = 1

    @property
    def decoded(self) -> int:
        """Estimated size: a dictionary repeats values of its mean size for next to nothing."""
        return max(self.size, self.rows * (self.dictionary // max(1, self.values)))


def batch_rows(path: str, names: Sequence[str], groups: Sequence[tuple[int, int]]) -> int:
    """Checks the sizes of a Parquet file, and says how many rows are to be read at a time.

    Args:
      path: the file.
      names: the columns that are read.
      groups: rows and bytes of each row group, as the file claims them.

    Raises:
      UserError: it grows to over a thousand times its size, or its footer is damaged.
    """
    size, rows = os.path.getsize(path), sum(rows for rows, _ in groups)
    if any(min(group) < 0 for group in groups) or rows > max(_FREE_ROWS, 1000 * size):
        raise unreadable(path, "Parquet", f"it claims {rows} rows in {size} bytes")
    for number, (_, claimed) in enumerate(groups):
        check_growth(path, claimed, f"row group {number}")
    total = sum(claimed for _, claimed in groups)
    check_growth(path, total, "it")
    largest = 2**20  # Of a dictionary, as all writers have it.
    if size <= _MAX_FILE:
        total = largest = 0
        try:
            for number, chunks in enumerate(_row_groups(path, names)):
                decoded = sum(chunk.decoded for chunk in chunks)
                check_growth(path, decoded, f"row group {number}")
                total += decoded
                largest = max(largest, *(chunk.dictionary for chunk in chunks), 0)
        except (thrift.DamagedError, struct.error, IndexError, RecursionError) as e:
            raise unreadable(path, "Parquet", "its footer is damaged") from e
        check_growth(path, total, "it")
    each = max(total // max(1, rows), 1)
    # The worst that a batch can hold is the largest value of the dictionary in each row.
    return max(1, min(BATCH_ROWS, BATCH_BYTES // each, 8 * BATCH_BYTES // max(1, largest)))


def _row_groups(path: str, names: Sequence[str]) -> list[list[_Chunk]]:
    with files.opened(path) as f:
        groups = thrift.columns(f) or ()
        return [
            [_chunk(f, column) for column in group if thrift.name_of(column) in names]
            for group in groups
        ]


def _chunk(file: IO[bytes], column: dict[int, Any]) -> _Chunk:
    rows, claimed, packed = (thrift.integer(column, i) for i in (5, 6, 7))
    starts = [thrift.integer(column, i) for i in (9, 11) if i in column]
    at = min((start for start in starts if start >= 4), default=0)
    end, size, dictionary, values = at + packed, 0, 0, 1
    while 0 < at < end:
        file.seek(at)
        header, length = thrift.struct_at(file.read(_HEADER), 0, 0)
        page, step = thrift.integer(header, 2), thrift.integer(header, 3)
        if page < 0 or step < 0:
            raise thrift.DamagedError
        if isinstance(header.get(7), dict):
            dictionary, values = page, thrift.integer(header[7], 1)
        at, size = at + length + step, size + page
    return _Chunk(rows=rows, size=max(size, claimed), dictionary=dictionary, values=values)
