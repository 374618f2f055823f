"""Structs in Thrift's compact protocol, as a Parquet file has them in its footer and pages.

They are read here and not by pyarrow, which ends the process for some damaged ones instead of
raising an error.
"""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

MAX_FOOTER = 4 * 2**20
"""Bytes of a footer that are read here; above, what a file says of itself must do."""
_DEPTH = 12


class DamagedError(Exception):
    """The bytes are no such struct."""


def columns(file: BinaryIO) -> list[list[dict[int, Any]]] | None:
    """The metadata of the columns of each row group; None where the footer is large.

    Raises:
      DamagedError: the footer is damaged.
    """
    try:
        file.seek(-8, os.SEEK_END)
        size = int.from_bytes(file.read(4), "little")
        if size > MAX_FOOTER:
            return None
        file.seek(-8 - size, os.SEEK_END)
        footer, _ = struct_at(file.read(size), 0, 0)
        groups = (structs(group.get(1)) for group in structs(footer.get(4)))
        return [[c[3] for c in group if isinstance(c.get(3), dict)] for group in groups]
    except (struct.error, IndexError, RecursionError, OSError) as e:
        raise DamagedError(str(e)) from e


def name_of(column: dict[int, Any]) -> str:
    """The name of the top-level column that the metadata of a chunk belong to."""
    path = column.get(3)
    if not isinstance(path, list) or not path or not isinstance(path[0], bytes):
        raise DamagedError
    return path[0].decode(errors="replace")


def integer(values: dict[int, Any], field: int) -> int:
    """A field that must be a number."""
    value = values.get(field)
    if type(value) is not int:
        raise DamagedError
    return value


def structs(value: Any) -> list[dict[int, Any]]:
    """A field that must be a list of structs."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DamagedError
    return value


def struct_at(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by number, and where it ends."""
    if depth > _DEPTH:
        raise DamagedError
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
            raise DamagedError
        return data[at : at + size], at + size
    if kind in (9, 10):
        size, inner = data[at] >> 4, data[at] & 0xF
        at += 1
        if size == 15:
            size, at = _varint(data, at)
        if size > len(data) - at:
            raise DamagedError
        items = []
        for _ in range(size):
            item, at = _value(data, at, inner, depth + 1)
            items.append(item)
        return items, at
    if kind == 12:
        return struct_at(data, at, depth + 1)
    raise DamagedError  # Parquet has no maps.


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise DamagedError


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
