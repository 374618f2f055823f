"""One shard of a cache: an ArrayRecord file, and what is on record of it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.storage import atomic, sealed

# Each record by itself, so that single ones can be read; features hardly compress.
_OPTIONS = "group_size:1,uncompressed"
_READ_TOGETHER = 2**22  # Bytes of records in memory besides the features.


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


def write(path: Path, rows: Sequence[np.ndarray | None]) -> Shard:
    """Writes one record a row, raw little-endian bytes; None is an empty record.

    The bytes of the file follow from the rows alone.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    from array_record.python import array_record_module

    def fill(partial: Path) -> None:
        partial.touch()  # Which says what is wrong with a folder; the writer does not.
        try:
            writer = array_record_module.ArrayRecordWriter(str(partial), _OPTIONS)
            try:
                for row in rows:
                    writer.write(b"" if row is None else row.tobytes())
            finally:
                writer.close()
        except RuntimeError as error:  # It hides what the system said.
            raise OSError(str(error).split(";")[0]) from error
        # Once more from the file: what goes on record from here on is true.
        back = array_record_module.ArrayRecordReader(str(partial))
        expected = (b"" if row is None else row.tobytes() for row in rows)
        if any(a != b for a, b in zip(expected, back.read_all(), strict=True)):
            raise OSError(None, "the bytes read back are not those written")
        back.close()

    atomic.write(path, fill)
    return Shard(
        records=len(rows),
        payload=sum(row.nbytes for row in rows if row is not None),
        empty=tuple(i for i, row in enumerate(rows) if row is None),
        size=path.stat().st_size,
        sha256=_digest(path),
    )


def verify(path: Path, shard: Shard) -> None:
    """Reads every byte of a shard.

    Raises:
      UserError: where the file is missing or any byte is not the one that was written.
    """
    try:
        size = path.stat().st_size
        digest = _digest(path) if size == shard.size else ""
    except FileNotFoundError:
        raise sealed.damaged(path, "is missing") from None
    except OSError as error:
        raise sealed.damaged(path, f"cannot be read ({error.strerror})") from None
    if size != shard.size:
        raise sealed.damaged(path, f"has {size} bytes instead of {shard.size}")
    if digest != shard.sha256:
        raise sealed.damaged(path, "is damaged: its bytes are not those that were written")


def read(path: Path, shard: Shard) -> Iterator[bytes]:
    """The records of a shard that was verified.

    Raises:
      UserError: where it cannot be read after all.
    """
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        step = max(1, _READ_TOGETHER * shard.records // max(shard.payload, 1))
        for start in range(0, shard.records, step):
            yield from reader.read(start, min(start + step, shard.records))
        reader.close()
    except (OSError, RuntimeError, IndexError, ValueError) as error:
        raise sealed.damaged(path, f"cannot be read ({str(error).split(';')[0]})") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def overhead(shards: int) -> int:
    """Bytes that so many files need beside their records, at most 1 % of which come on top."""
    return shards * 3 * 2**16
