"""Record batches in memory while they are few, in a memory-mapped Arrow file beyond that."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ape_jax.storage import disk

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2**16
"""Rows of every batch of a table but the last, so that a row is found by division."""
_IN_MEMORY = 2**25  # Bytes; a set of some ten thousand pairs is read faster than it is looked up.


class Sheet:
    """Writes batches of one schema.

    Args:
      schema: of the batches.
      folder: where a large sheet's file is made.
      name: of the file.
    """

    def __init__(self, schema: pa.Schema, folder: Path, name: str):
        self._schema, self._folder, self.name = schema, folder, name
        self._batches: list[pa.RecordBatch] = []
        self._bytes = self.rows = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self.path: Path | None = None

    def append(self, batch: pa.RecordBatch) -> None:
        """Adds a batch.

        Raises:
          UserError: the cache folder cannot be written.
        """
        self.rows += batch.num_rows
        if self._writer is not None:
            with _write_errors(self._folder):
                self._writer.write_batch(batch)
            return
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        import pyarrow as pa

        with _write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(".partial", f".{self.name}.", self._folder)
            os.close(handle)
            self.path = Path(path)
            self._writer = pa.ipc.new_file(path, self._schema)
            for batch in self._batches:
                self._writer.write_batch(batch)
        self._batches = []

    def close(self) -> list[pa.RecordBatch]:
        """Ends the writing; the batches, memory-mapped where they are in a file."""
        if self._writer is None:
            return self._batches
        with _write_errors(self._folder):
            self._writer.close()
        assert self.path is not None
        return mapped(self.path)

    def discard(self) -> None:
        """Removes the file; what is mapped of it stays readable."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None


def mapped(path: Path) -> list[pa.RecordBatch]:
    """The batches of an Arrow file, memory-mapped: nothing is read until it is looked at.

    Raises:
      ArrowInvalid, OSError: it is damaged or missing.
    """
    import pyarrow as pa

    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(i) for i in range(reader.num_record_batches)]


def write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes batches to a file."""
    import pyarrow as pa

    with pa.ipc.new_file(str(path), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_errors(folder: Path) -> contextlib.AbstractContextManager[None]:
    return disk.write_errors(
        f"the cache folder {folder}", "set APE_JAX_CACHE to another folder, and run again"
    )
