"""A table of pairs that was made: rows by index, memory-mapped where it is large."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from ape_jax.data.cells import printable
from ape_jax.data.remote import fetch
from ape_jax.data.table.problems import Problems
from ape_jax.data.table.sheet import BATCH_ROWS
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, ImageRef
from ape_jax.storage import files

if TYPE_CHECKING:
    import pyarrow as pa


_IMAGE = ("number", "file", "at", "path", "offset", "size")  # What a reference is made of.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Pairs, one a row, in record batches of `BATCH_ROWS` rows.

    Attributes:
      batches: of `schema.pairs`.
      problems: of `schema.problems`: rows of the source that are not among the pairs.
      source_rows: number of rows of the source, those that cannot be used included.
      files: what was read; `file` is an index of it.
      notes: what was said while it was made.
      folder: where it is kept; None for a table in memory.
      refs: images of a table that was made of `Pair`s, by row.
      readers: readers of numbered images, by the file (a spec) that they are of.
      weights: of each of the files, in a mixture with weights.
    """

    batches: Sequence[pa.RecordBatch]
    problems: Sequence[pa.RecordBatch] = ()
    source_rows: int = 0
    files: Sequence[str] = ()
    notes: Sequence[str] = ()
    folder: Path | None = None
    refs: Sequence[ImageRef] = ()
    readers: Mapping[str, Callable[[int], bytes]] = dataclasses.field(default_factory=dict)
    weights: Sequence[float] = ()

    def __len__(self) -> int:
        if not self.batches:
            return 0
        return BATCH_ROWS * (len(self.batches) - 1) + self.batches[-1].num_rows

    def found_broken(self) -> Problems:
        """The rows of the source that are not among the pairs."""
        return Problems(
            batches=self.problems, files=self.files, rows=self.source_rows, pairs=len(self)
        )

    def cell(self, name: str, row: int) -> Any:
        """One value."""
        batch, at = divmod(row, BATCH_ROWS)
        return self._columns[batch][name][at].as_py()

    @functools.cached_property
    def _columns(self) -> list[dict[str, pa.Array]]:
        """The columns of each batch, which a batch would make anew for every cell."""
        return [dict(zip(b.schema.names, b.columns, strict=True)) for b in self.batches]

    def column(self, name: str, rows: Int[np.ndarray, " k"]) -> Iterator[pa.Array]:
        """Yields a column of ascending or other rows, a block at a time.

        Blocks are of rows that follow each other in `rows` and lie in one batch, or of `BATCH_ROWS`
        rows at most.
        """
        import pyarrow as pa

        if len(rows) and len(rows) == len(self) and (rows[-1] == len(rows) - 1):
            if np.array_equal(rows, np.arange(len(rows))):
                yield from (batch.column(name) for batch in self.batches)
                return
        whole = pa.chunked_array([batch.column(name) for batch in self.batches])
        for start in range(0, len(rows), BATCH_ROWS):
            taken = whole.take(pa.array(rows[start : start + BATCH_ROWS])).combine_chunks()
            yield taken.chunk(0) if isinstance(taken, pa.ChunkedArray) else taken

    def image(self, row: int) -> ImageRef:
        """The reference to a row's image."""
        if self.refs:
            return self.refs[row]
        return self._reference(row, *(self.cell(name, row) for name in _IMAGE))

    def images(self, rows: Int[np.ndarray, " k"]) -> Iterator[ImageRef]:
        """Yields the references to the images of rows, which is faster than one by one."""
        if self.refs:
            yield from (self.refs[row] for row in rows.tolist())
            return
        columns = ((x.to_pylist() for x in self.column(name, rows)) for name in _IMAGE)
        cells = (zip(*block, strict=True) for block in zip(*columns, strict=True))
        for row, image in zip(rows.tolist(), itertools.chain.from_iterable(cells), strict=True):
            yield self._reference(row, *image)

    def _reference(
        self,
        row: int,
        number: int,
        file: int,
        at: str,
        path: bytes | None,
        offset: int,
        size: int,
    ) -> ImageRef:
        name, content = self.files[file], functools.partial(self._content, row)
        return reference(name, at, path, offset, size, content, number, self.readers.get(name))

    def _content(self, row: int) -> bytes:
        return self.cell("content", row)


def reference(
    file: str,
    at: str,
    path: bytes | None,
    offset: int,
    size: int,
    content: Callable[[], bytes],
    number: int,
    reader: Callable[[int], bytes] | None,
) -> ImageRef:
    """The reference to an image, from the cells of its row; see `schema.rows`."""
    where, nbytes = f"{file}:{at}", None if size < 0 else size
    if number >= 0 and reader is not None:
        return ImageRef(functools.partial(reader, number), where, nbytes)
    if path is None:
        return ImageRef(content, where, nbytes)
    name = path.decode("utf-8", "surrogatepass")
    if fetch.is_url(name):
        shown = f"{where} ({printable(name)})"
        return ImageRef(fetch.Remote(name, shown), shown)
    if offset >= 0:
        return ImageRef(functools.partial(_read_at, name, offset, size, where), where, nbytes)
    return ImageRef(name, f"{where} ({printable(name.removeprefix(os.path.dirname(file) + '/'))})")


def _read_at(path: str, offset: int, size: int, where: str) -> bytes:
    try:
        with files.opened(path) as f:
            f.seek(offset)
            content = f.read(size)
    except OSError as e:
        raise ImageError(f"{where}: {path} cannot be read ({e.strerror}); run again") from e
    except UserError as e:
        raise ImageError(f"{where}: {e}") from e
    if len(content) < size:
        raise ImageError(f"{where}: {path} is shorter than it was; run again")
    return content
