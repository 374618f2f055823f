"""A Parquet file of own features: how much is in its columns, and its rows a few at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ape_jax.data import thrift
from ape_jax.data.cells import shorten
from ape_jax.errors import UserError
from ape_jax.storage import files
from ape_jax.terminal.progress import track

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 2**23  # Numbers read together.
_LARGE = 2**28  # Bytes up to which it does not matter how much a file grows.
_RATIO = 50  # Features hardly compress.


class Source:
    """A Parquet file whose columns have been looked at, and nothing else of it.

    Args:
      path: the file.
      key: the config key to name in messages.

    Attributes:
      rows: number of rows.
      vectors: columns of vectors.
      names: columns of ids and words.

    Raises:
      UserError: a damaged file, missing columns, no rows, or lists that would fill a disk.
    """

    def __init__(self, path: str, key: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self.key = path, key
        try:
            file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
            columns = file.schema_arrow.names
            self._file, self.rows = file, file.metadata.num_rows
            self._numbers = self._count()
        except (pa.ArrowException, thrift.DamagedError, ValueError, OSError, MemoryError) as error:
            raise self.damaged(error) from error
        texts = [name for name in ("text", "caption") if name in columns]
        if "image" not in columns or len(texts) != 1:
            raise UserError(
                f"{key}: {path!r} has the columns {shorten(', '.join(columns))}; write 'image' and "
                "one of 'text' (vectors) and 'caption' (words)"
            )
        if not self.rows:
            raise UserError(f"{key}: {path!r} holds no rows; write at least one")
        self.vectors = ["image", *(["text"] if texts[0] == "text" else [])]
        self.names = [name for name in ("id", "caption") if name in columns]
        size = os.path.getsize(path)
        if self.nbytes > max(_LARGE, _RATIO * size) or self.rows > max(_LARGE, _RATIO * size):
            raise UserError(
                f"{key}: {path!r} grows from {size:,} bytes to {self.nbytes:,} when it is "
                "unpacked, as no features do; write them as .npy files"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors in f32."""
        return 4 * sum(self._numbers.get(name, 0) for name in self.vectors)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yields these columns, so many rows at a time that they stay small."""
        import pyarrow as pa

        numbers = sum(self._numbers.get(name, 0) for name in columns)
        rows = int(np.clip(_BATCH * self.rows // max(numbers, 1), 1, 2**16))
        read = self._file.iter_batches(rows, columns=columns, use_threads=False)
        try:
            yield from track(read, f"reading {self.path}", -(-self.rows // rows), "batches")
        except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> UserError:
        """The error for what cannot be read."""
        reason = " ".join(str(error).split())[:160]
        return UserError(f"{self.key}: {self.path!r} is not a readable Parquet file ({reason})")

    def _count(self) -> dict[str, int]:
        """Numbers in each column, from the footer."""
        found: dict[str, int] = {}
        with files.opened(self.path) as file:
            groups = thrift.columns(file)
        if groups is not None:
            for column in itertools.chain.from_iterable(groups):
                name = thrift.name_of(column)
                found[name] = found.get(name, 0) + thrift.integer(column, 5)
            return found
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                name = chunk.path_in_schema.split(".")[0]
                found[name] = found.get(name, 0) + chunk.num_values
        return found
