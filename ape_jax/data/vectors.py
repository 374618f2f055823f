"""Pairs whose images, texts or both are precomputed vectors, read by rows from where they lie."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Float, Int64

from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.precomputed import verified
from ape_jax.data.table.sheet import BATCH_ROWS
from ape_jax.data.table.stored import Table
from ape_jax.data.table.texts import Captions
from ape_jax.images.decode import ImageRef
from ape_jax.storage.row_array import blocks
from ape_jax.storage.rows.access import Rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Tokens:
    """One or more vectors for each caption: `flat[offsets[i]:offsets[i + 1]]` for caption i.

    Attributes:
      flat: f32 or bf16 [S, d], in memory or in files.
      offsets: i64 [m + 1].
    """

    flat: Float[Rows, "S d"]
    offsets: Int64[np.ndarray, " bounds"]

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Numbered(Sequence[str]):
    """Names that are made when they are asked for: `vectors 0`, `vectors 1` and so on.

    Args:
      word: before the number.
      count: how many.
    """

    def __init__(self, word: str, count: int):
        self._word, self._count = word, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, i: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [f"{self._word}{k}" for k in range(*i.indices(self._count))]
        return f"{self._word}{range(self._count)[i]}"


class Column(Sequence[str]):
    """Texts of an Arrow column, which may be mapped.

    Args:
      column: the texts.
    """

    def __init__(self, column: pa.ChunkedArray):
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return self._column[i].to_pylist()
        return self._column[range(len(self))[i]].as_py()


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorTable(Table):
    """A table of pairs whose images are vectors: its cells are made when they are asked for.

    Attributes:
      spec: what it was opened from.
      vectors: [n, V, d].
      bounds: i64 [n + 1]; image i has the captions from `bounds[i]` to `bounds[i + 1]`.
      names: n ids.
      texts: m captions.
    """

    batches: Sequence[pa.RecordBatch] = ()
    spec: str
    vectors: Float[Rows, "n V d"]
    bounds: Int64[np.ndarray, " bounds"]
    names: Sequence[str]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.vectors)

    def cell(self, name: str, row: int) -> Any:
        """The id, as bytes, or the captions of a row."""
        if name == "id":
            return self.names[row].encode("utf-8", "surrogatepass")
        if name == "captions":
            return list(self.texts[int(self.bounds[row]) : int(self.bounds[row + 1])])
        if name in ("negatives", "languages"):  # Vectors have none.
            return None
        raise KeyError(name)

    def column(self, name: str, rows: np.ndarray) -> Iterator[pa.Array]:
        """Yields the ids or the captions of rows, a block at a time."""
        import pyarrow as pa

        kind = pa.binary() if name == "id" else pa.list_(pa.string())
        for block in blocks(len(rows), BATCH_ROWS):
            yield pa.array([self.cell(name, int(row)) for row in rows[block]], kind)

    def image(self, row: int) -> ImageRef:
        """The first view of an image."""
        return ImageRef(functools.partial(self._view, row), f"{self.spec} ({self.names[row]})")

    def images(self, rows: np.ndarray) -> Iterator[ImageRef]:
        """Yields the first views of images."""
        return map(self.image, rows.tolist())

    def _view(self, row: int) -> np.ndarray:
        return self.vectors[row : row + 1][0, 0]


class VectorPairs(Pairs):
    """Pairs with precomputed vectors.

    Args:
      table: ids and captions.
      text: vectors of every caption in the order of the records, None where captions are words.
      digest: sha256 of ids, captions and vectors, where it is known.

    Attributes:
      image: f32 or bf16 [n, V, d], in memory or in files.
      text: likewise.
    """

    def __init__(self, table: VectorTable, text: Tokens | None, digest: str | None = None):
        super().__init__(table, table.spec)
        self.image, self.text, self._vectors, self._known = table.vectors, text, table, digest

    @functools.cached_property
    def num_captions(self) -> int:
        """Number of captions of all images."""
        return int(self._vectors.bounds[-1])

    @functools.cached_property
    def num_negatives(self) -> int:
        """None: vectors have no negative captions."""
        return 0

    def caption_table(self, *, negatives: bool = False) -> Captions:
        """Every caption of every image; names of vectors are all different and not compared."""
        if self.text is None:
            return super().caption_table(negatives=negatives)
        table = self._vectors
        return Captions(table.texts, np.arange(self.num_captions), table.bounds)

    def with_captions(self, pairs: Iterable[Pair]) -> VectorPairs:
        """The same images with other words."""
        captions = [pair.captions for pair in pairs]
        bounds = np.cumsum([0, *map(len, captions)])
        texts = [text for some in captions for text in some]
        return VectorPairs(dataclasses.replace(self._vectors, bounds=bounds, texts=texts), None)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of ids, captions and vectors, in order."""
        return self._known or self.read_through(self.spec)

    def read_through(self, where: str) -> str:
        """Reads all vectors once: their digest.

        Args:
          where: the config key and the files, for messages.

        Raises:
          UserError: naming the first row that is not finite.
        """
        arrays: dict[str, Rows] = {"image": self.image}
        if self.text is not None:
            arrays |= {"text": self.text.flat, "offsets": self.text.offsets}
        return verified.digest(hashlib.sha256(b"ape_jax vectors 1"), self._named(), arrays, where)

    def _named(self) -> Iterator[bytes]:
        for pair in self:
            for part in (pair.id, *pair.captions):
                yield len(part.encode()).to_bytes(8, "little") + part.encode()
