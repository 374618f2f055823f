"""Pairs: images, as references that are not decoded, and their captions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np
from jaxtyping import Float64, Int

from ape_jax.data.table import identity
from ape_jax.data.table.negatives import with_negatives
from ape_jax.data.table.problems import Problem, Problems
from ape_jax.data.table.sheet import BATCH_ROWS
from ape_jax.data.table.stored import Table
from ape_jax.data.table.texts import Captions, captions_of
from ape_jax.images.decode import ImageRef
from ape_jax.terminal.progress import track

if TYPE_CHECKING:
    import pyarrow as pa


_LISTS = ("captions", "negatives", "languages")  # Of a pair, each a list of texts.


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One image and all its captions.

    Attributes:
      image: where the image is.
      captions: at least one.
      id: explicit, or the image's path as seen from the pairs file.
      negatives: texts that do not describe the image, to be told from its captions.
      languages: of the captions, one of each; () where they are not known.
    """

    image: ImageRef
    captions: tuple[str, ...]
    id: str
    negatives: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


class Pairs(Sequence[Pair]):
    """A sequence of `Pair`s: rows of a table that is read when they are asked for.

    Example:
      pairs = open_pairs("pairs.jsonl")
      pairs[0].captions, pairs[0].image.name, len(pairs.take(np.arange(10)))

    Args:
      table: the images and captions.
      spec: what they were opened from.
      rows: the rows of the table that are used, in this order; None for all.
      problems: rows of the source that cannot be used.

    Attributes:
      spec: what it was opened from.
      table: the table.
      rows: i64 [n], the rows of the table.
      problems: rows of the source that are not among them.
    """

    def __init__(
        self,
        table: Table,
        spec: str = "pairs",
        rows: Int[np.ndarray, " n"] | None = None,
        problems: Problems | None = None,
    ):
        self.table, self.spec = table, spec
        self.problems = table.found_broken() if problems is None else problems
        self._rows = None if rows is None else np.asarray(rows, np.int64)

    @classmethod
    def of(cls, pairs: Iterable[Pair], spec: str = "pairs") -> Pairs:
        """A small set, held in memory."""
        return cls(table_of(pairs), spec)

    @property
    def rows(self) -> Int[np.ndarray, " n"]:
        """The rows of the table, i64 [n]."""
        return np.arange(len(self.table)) if self._rows is None else self._rows

    def take(self, rows: Int[np.ndarray, " k"] | Sequence[int], spec: str | None = None) -> Pairs:
        """Some of the pairs, by index, in that order; nothing is copied."""
        name = self.spec if spec is None else spec
        return Pairs(self.table, name, self.rows[np.asarray(rows, np.int64)], self.problems)

    def without(self, problems: Mapping[int, Problem]) -> Pairs:
        """The pairs whose image can be used; the others are among the problems.

        Args:
          problems: what is wrong with the image of a pair, by index.
        """
        if not problems:
            return self
        kept = np.ones(len(self), bool)
        kept[list(problems)] = False
        more = [problems[i] for i in sorted(problems)]
        found = self.problems.with_images(more)
        return Pairs(self.table, self.spec, self.rows[kept], found)

    def __len__(self) -> int:
        return len(self.table) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, i: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> Pair | tuple[Pair, ...]:
        if isinstance(i, slice):
            return tuple(self[k] for k in range(*i.indices(len(self))))
        at = i.__index__()
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError(f"there are {len(self)} pairs, found index {i}")
        row = at if self._rows is None else int(self._rows[at])
        captions, *others = (tuple(self.table.cell(name, row) or ()) for name in _LISTS)
        return Pair(self.image_ref(at), captions, self._id(row), *others)

    def image_ref(self, i: int) -> ImageRef:
        """The reference to one image."""
        return self.table.image(i if self._rows is None else int(self._rows[i]))

    def __iter__(self) -> Iterator[Pair]:
        columns = (self.table.column(name, self.rows) for name in _LISTS)
        lists = ((tuple(x or ()) for b in blocks for x in b.to_pylist()) for blocks in columns)
        for image, name, captions, *others in zip(self.images(), self.ids(), *lists, strict=True):
            yield Pair(image, captions, name, *others)

    def images(self) -> Iterator[ImageRef]:
        """Yields the references to all images."""
        return self.table.images(self.rows)

    def ids(self) -> Iterator[str]:
        """Yields the ids of all pairs."""
        for ids in self.table.column("id", self.rows):
            yield from map(_text, ids.to_pylist())

    def captions(self) -> Iterator[pa.ListArray]:
        """Yields the lists of captions, many pairs at a time."""
        return self.table.column("captions", self.rows)

    def caption_table(self, *, negatives: bool = False) -> Captions:
        """Every caption of every image, identical texts once.

        Args:
          negatives: whether the negative captions of the images are among the texts, too.
        """
        found = captions_of(self.table, self._rows)
        return with_negatives(found, self.table, self.rows) if negatives else found

    def __repr__(self) -> str:
        return f"Pairs({self.spec!r}, images={len(self)}, captions={self.num_captions})"

    @functools.cached_property
    def weights(self) -> Float64[np.ndarray, " n"] | None:
        """How often each pair comes in training, f64 [n]; None for equally often."""
        of_file = np.asarray(self.table.weights, np.float64)
        if not len(of_file) or (of_file == of_file[0]).all():
            return None
        files = [np.asarray(column) for column in self.table.column("file", self.rows)]
        return of_file[np.concatenate(files)] if files else None

    @functools.cached_property
    def num_captions(self) -> int:
        """Number of captions of all images."""
        return sum(int(x.offsets[-1].as_py() - x.offsets[0].as_py()) for x in self.captions())

    @functools.cached_property
    def num_negatives(self) -> int:
        """Number of negative captions of all images."""
        blocks = self.table.column("negatives", self.rows)
        return sum(len(x.flatten()) for x in blocks)

    def _id(self, row: int) -> str:
        return _text(self.table.cell("id", row))

    @functools.cached_property
    def image_hashes(self) -> list[bytes]:
        """The sha256 of each image's bytes; in a larger set, as for `digest`, of its id."""
        images = identity.by_content(self.table, self.rows)
        if images is None:
            ids = (name.encode("utf-8", "surrogatepass") for name in self.ids())
            return [hashlib.sha256(name).digest() for name in ids]
        return [
            identity.image_hash(x) for x in track(images, "hashing images", len(self), "images")
        ]

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of ids, captions and images, in order; the same on every machine.

        Images count by their bytes up to 256 MiB and 20,000 images in all. A larger set counts
        each by its size only, beside its id: an image replaced by one of the same size in bytes
        goes unnoticed there. The digest of a table in the cache folder is kept beside it, and found
        again as long as sizes and times of a small set's images are the same.
        """
        return identity.digest(self.table, self._rows)


def table_of(pairs: Iterable[Pair]) -> Table:
    """A table in memory, whose images are the references themselves."""
    import pyarrow as pa

    from ape_jax.data.table import schema

    found = list(pairs)
    batches, texts = [], pa.list_(pa.string())
    for start in range(0, len(found), BATCH_ROWS):
        block = found[start : start + BATCH_ROWS]
        nothing = pa.nulls(len(block), pa.int64())
        columns = {
            "file": pa.nulls(len(block), pa.int32()),
            "at": pa.nulls(len(block), pa.string()),
            "path": pa.nulls(len(block), pa.binary()),
            "content": pa.nulls(len(block), pa.large_binary()),
            "offset": nothing,
            "size": nothing,
            "number": nothing,
            "id": pa.array([p.id.encode("utf-8", "surrogatepass") for p in block], pa.binary()),
            "negatives": pa.array([list(p.negatives) or None for p in block], texts),
            "languages": pa.array([list(p.languages) or None for p in block], texts),
            "domain": pa.nulls(len(block), pa.string()),
            "captions": pa.array([list(p.captions) for p in block], texts),
        }
        names = schema.pairs().names
        arrays = [columns[name] for name in names]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema.pairs()))
    refs = [pair.image for pair in found]
    return Table(batches=batches, refs=refs, source_rows=len(refs))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
