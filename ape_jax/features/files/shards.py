"""One shard of a cache: a file of rows, and what is on record of it.

The file holds the elements of all rows, little-endian and end to end, without those that are empty.
Rows of different lengths (captions' tokens) are followed by the bytes of each, u32 [records].
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ape_jax.storage import atomic, files, sealed

_LENGTH = np.dtype("<u4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Record of a finished shard.

    Attributes:
      records: how many.
      payload: bytes in all records together.
      empty: the records without a byte: images that could not be read.
      size: of the file in bytes.
      sha256: of the file.
    """

    records: int
    payload: int
    empty: tuple[int, ...]
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """JSON object for `from_json`."""
        return {**dataclasses.asdict(self), "empty": list(self.empty)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shard:
        """Reads the object that `to_json` made."""
        return cls(**{**value, "empty": tuple(value["empty"])})


def write(path: Path, rows: Sequence[np.ndarray | bytes | None], *, ragged: bool) -> Shard:
    """Writes rows end to end; None is an empty record.

    The bytes of the file follow from the rows alone.

    Args:
      path: the file.
      rows: arrays, or their bytes.
      ragged: whether rows differ in length.

    Raises:
      OSError: the disk is full or the folder cannot be written.
      ValueError: rows differ in length that may not.
    """
    lengths = np.array([0 if row is None else _size(row) for row in rows], np.int64)
    if not ragged and len(set(lengths[lengths > 0].tolist())) > 1:
        raise ValueError(f"rows of {sorted(set(lengths.tolist()))} bytes are no array")
    payload, digest = int(lengths.sum()), hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for row in rows:
            if row is not None:
                yield row if isinstance(row, bytes) else row.tobytes()
        if ragged:
            yield lengths.astype(_LENGTH).tobytes()

    def fill(partial: Path) -> None:
        with partial.open("wb") as file:
            for piece in pieces():
                file.write(piece)
                digest.update(piece)
        # Once more from the file: what goes on record from here on is true.
        if files.sha256(partial) != digest.hexdigest():
            raise OSError(None, "the bytes read back are not those written")

    atomic.write(path, fill)
    return Shard(
        records=len(rows),
        payload=payload,
        empty=tuple(i for i, row in enumerate(rows) if row is None),
        size=payload + (lengths.size * _LENGTH.itemsize if ragged else 0),
        sha256=digest.hexdigest(),
    )


def lengths(path: Path, shard: Shard) -> Int64[np.ndarray, "n"]:
    """Bytes of each record of a shard of ragged rows.

    Raises:
      UserError: where the file cannot be read, or is no such shard.
    """
    try:
        found = np.fromfile(path, _LENGTH, shard.records, offset=shard.payload).astype(np.int64)
    except OSError as error:
        raise sealed.damaged(path, f"cannot be read ({error.strerror})") from None
    if len(found) != shard.records or found.sum() != shard.payload:
        raise sealed.damaged(path, "is damaged: it does not hold the lengths of its rows")
    return found


def verify(path: Path, shard: Shard) -> None:
    """Reads every byte of a shard.

    Raises:
      UserError: where the file is missing or any byte is not the one that was written.
    """
    try:
        size = path.stat().st_size
        digest = files.sha256(path) if size == shard.size else ""
    except FileNotFoundError:
        raise sealed.damaged(path, "is missing") from None
    except OSError as error:
        raise sealed.damaged(path, f"cannot be read ({error.strerror})") from None
    if size != shard.size:
        raise sealed.damaged(path, f"has {size} bytes instead of {shard.size}")
    if digest != shard.sha256:
        raise sealed.damaged(path, "is damaged: its bytes are not those that were written")


def _size(row: np.ndarray | bytes) -> int:
    return len(row) if isinstance(row, bytes) else row.nbytes


def overhead(shards: int) -> int:
    """Bytes that so many files need beside their records, at most 1 % of which come on top."""
    return shards * 3 * 2**16
