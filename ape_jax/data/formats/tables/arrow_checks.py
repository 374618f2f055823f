"""Checks of Parquet and Arrow files: what they claim to hold, and the errors of their readers."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ape_jax.data.formats.tables.opened import FREE_BYTES, MAX_GROWTH
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 32 * 2**20
BATCH_ROWS = 4096


@contextlib.contextmanager
def readable(path: str, kind: str, at: str = "") -> Iterator[None]:
    """Turns what pyarrow raises for a damaged file into one sentence.

    Args:
      path: the file.
      kind: of the file, for messages.
      at: where in it, for messages.

    Raises:
      UserError: whatever pyarrow cannot read.
    """
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except (
        pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError
    ) as e:  # fmt: skip
        raise unreadable(path, kind, str(e) or type(e).__name__, at) from e


def unreadable(path: str, kind: str, reason: str, at: str = "") -> UserError:
    """The sentence about a file that cannot be read."""
    reason = " ".join(reason.split())[:200]
    where = f"{path}:{at}" if at else path
    return UserError(f"{where}: this is not a readable {kind} file ({reason}); write it again")


def check_growth(path: str, claimed: int, what: str) -> None:
    """Refuses what would grow to over a thousand times the size of its file.

    Args:
      path: the file.
      claimed: bytes that it decodes to.
      what: the part of the file that claims them, for messages.

    Raises:
      UserError: it grows by more.
    """
    size = os.path.getsize(path)
    if claimed < 0 or (claimed > FREE_BYTES and claimed > MAX_GROWTH * size):
        raise UserError(
            f"{path}: {what} decodes to {claimed} bytes, out of a file of {size}; that is no table "
            "of pairs, so that it is not read: write it again"
        )


def check_ipc(buffer: pa.Buffer, path: str) -> None:
    """Checks how large the record batches of an Arrow file are when they are decompressed.

    Raises:
      UserError: they grow to over a thousand times its size, or lie outside of the file.
    """
    check_growth(path, sum(_ipc_sizes(memoryview(buffer))), "it")


def _ipc_sizes(data: memoryview) -> Iterator[int]:
    """Decoded sizes of the compressed buffers in the messages of a stream or file."""
    at = 8 if bytes(data[:6]) == b"ARROW1" else 0
    while at + 8 <= len(data):
        mark, size = struct.unpack_from("<Ii", data, at)
        if mark != 0xFFFFFFFF or size <= 0:
            return
        try:
            body, buffers = _message(data[at + 8 : at + 8 + size])
        except (struct.error, IndexError):  # Damaged: whoever reads it says so.
            return
        at += 8 + size
        for offset, length in buffers:
            if 8 <= length <= len(data) and 0 <= offset <= len(data) - at - 8:
                yield max(0, struct.unpack_from("<q", data, at + offset)[0])
        if body < 0:
            return
        at += body


def _message(data: memoryview) -> tuple[int, list[tuple[int, int]]]:
    """Length of the body of a message, and where the buffers lie in it that are compressed.

    A message is a FlatBuffers table; see Message.fbs and its fields in Arrow's format.
    """
    root = struct.unpack_from("<I", data)[0]
    kind, header, length = (_field(data, root, i) for i in (1, 2, 3))
    body = struct.unpack_from("<q", data, length)[0] if length else 0
    if not kind or not header or data[kind] not in (2, 3):
        return body, []
    batch = header + struct.unpack_from("<I", data, header)[0]
    if data[kind] == 2:  # A dictionary is a batch in a table of its own.
        inner = _field(data, batch, 1)
        batch = inner + struct.unpack_from("<I", data, inner)[0]
    vector, compression = _field(data, batch, 2), _field(data, batch, 3)
    if not vector or not compression:
        return body, []
    at = vector + struct.unpack_from("<I", data, vector)[0]
    count = struct.unpack_from("<I", data, at)[0]
    return body, [
        struct.unpack_from("<qq", data, at + 4 + 16 * i) for i in range(min(count, len(data)))
    ]  # pyright: ignore[reportReturnType]


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a table lies, 0 where it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or 4 + 2 * number + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0
