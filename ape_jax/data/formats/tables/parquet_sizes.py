"""What a Parquet file decodes to, by its footer and the headers of its pages.

They are structs in Thrift's compact protocol. They are read here and not by pyarrow, which ends the
process for some damaged ones instead of raising an error.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Sequence
from typing import IO, Any

from ape_jax.data.formats.tables.arrow_checks import (
    BATCH_BYTES,
    BATCH_ROWS,
    check_growth,
    unreadable,
)

# Above these, what a file says of itself must do: an attack is small.
_MAX_FOOTER = 4 * 2**20
_MAX_FILE = 256 * 2**20
_HEADER = 1 << 16
_FREE_ROWS = 10_000_000
_DEPTH = 12


class _DamagedError(Exception):
    """The bytes are no such struct."""


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
        except (_DamagedError, struct.error, IndexError, RecursionError) as e:
            raise unreadable(path, "Parquet", "its footer is damaged") from e
        check_growth(path, total, "it")
    each = max(total // max(1, rows), 1)
    # The worst that a batch can hold is the largest value of the dictionary in each row.
    return max(1, min(BATCH_ROWS, BATCH_BYTES // each, 8 * BATCH_BYTES // max(1, largest)))


def _row_groups(path: str, names: Sequence[str]) -> list[list[_Chunk]]:
    with open(path, "rb") as f:
        f.seek(-8, os.SEEK_END)
        size = int.from_bytes(f.read(4), "little")
        if size > _MAX_FOOTER:
            return []
        f.seek(-8 - size, os.SEEK_END)
        footer, _ = _struct(f.read(size), 0, 0)
        return [
            [
                _chunk(f, column[3])
                for column in _list(group.get(1))
                if isinstance(column.get(3), dict) and _top(column[3]) in names
            ]
            for group in _list(footer.get(4))
        ]


def _top(column: dict[int, Any]) -> str:
    """The name of the top-level column that a chunk belongs to."""
    path = column.get(3)
    if not isinstance(path, list) or not path or not isinstance(path[0], bytes):
        raise _DamagedError
    return path[0].decode(errors="replace")


def _chunk(file: IO[bytes], column: dict[int, Any]) -> _Chunk:
    rows, claimed, packed = (_int(column, i) for i in (5, 6, 7))
    starts = [_int(column, i) for i in (9, 11) if i in column]
    at = min((start for start in starts if start >= 4), default=0)
    end, size, dictionary, values = at + packed, 0, 0, 1
    while 0 < at < end:
        file.seek(at)
        header, length = _struct(file.read(_HEADER), 0, 0)
        page, step = _int(header, 2), _int(header, 3)
        if page < 0 or step < 0:
            raise _DamagedError
        if isinstance(header.get(7), dict):
            dictionary, values = page, _int(header[7], 1)
        at, size = at + length + step, size + page
    return _Chunk(rows=rows, size=max(size, claimed), dictionary=dictionary, values=values)


def _int(values: dict[int, Any], field: int) -> int:
    value = values.get(field)
    if type(value) is not int:
        raise _DamagedError
    return value


def _list(value: Any) -> list[dict[int, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _DamagedError
    return value


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by number, and where it ends."""
    if depth > _DEPTH:
        raise _DamagedError
    fields: dict[int, Any] = {}
    number = 0
    while mark := data[at]:
        at += 1
        if mark >> 4:
            number += mark >> 4
        else:
            number, at = _signed(data, at)
        kind = mark & 0xF
        if kind in (1, 2):  # True and false are in the mark itself.
            fields[number] = kind == 1
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2, 3):
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _signed(data, at)
    if kind == 7:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 8:
        size, at = _varint(data, at)
        if size > len(data) - at:
            raise _DamagedError
        return data[at : at + size], at + size
    if kind in (9, 10):
        size, inner = data[at] >> 4, data[at] & 0xF
        at += 1
        if size == 15:
            size, at = _varint(data, at)
        if size > len(data) - at:
            raise _DamagedError
        items = []
        for _ in range(size):
            item, at = _value(data, at, inner, depth + 1)
            items.append(item)
        return items, at
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise _DamagedError  # Parquet has no maps.


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _DamagedError


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
