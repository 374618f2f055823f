"""The distinct captions of pairs, and which of them each image has.

They are found once and kept beside a table in the cache folder, memory-mapped:

    texts.arrow        the distinct captions, in order of first appearance
    text_index.npy     i64 [m], the caption among these of each caption of each image
    text_offsets.npy   i64 [n + 1], where the captions of each image begin
    texts.json         written last
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np
from jaxtyping import Int

from ape_jax.data.table import sheet
from ape_jax.data.table.joining.groups import groups
from ape_jax.data.table.sheet import BATCH_ROWS
from ape_jax.data.table.stored import Table
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import atomic, sealed, verified
from ape_jax.terminal.progress import track

if TYPE_CHECKING:
    import pyarrow as pa


class Texts(Sequence[str]):
    """Texts in Arrow arrays, as a sequence; equal to a list of the same texts.

    Args:
      arrays: the texts, a part after the other.
    """

    def __init__(self, arrays: Sequence[pa.StringArray]):
        self.arrays = list(arrays)
        self._ends = list(itertools.accumulate(map(len, self.arrays)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, i: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> str | list[str]:
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            if step != 1:
                return [self[k] for k in range(start, stop, step)]
            return list(itertools.chain.from_iterable(self._run(start, stop)))
        at = i.__index__()
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError(f"there are {len(self)} texts, found index {i}")
        part = bisect.bisect_right(self._ends, at)
        before = self._ends[part - 1] if part else 0
        return self.arrays[part][at - before].as_py()

    def _run(self, start: int, stop: int) -> Iterator[list[str]]:
        """Texts that follow each other, an array after the other."""
        part = bisect.bisect_right(self._ends, start)
        while start < stop:
            before = self._ends[part - 1] if part else 0
            end = min(stop, self._ends[part])
            yield self.arrays[part].slice(start - before, end - start).to_pylist()
            start, part = end, part + 1

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(array.to_pylist() for array in self.arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def take(self, rows: Int[np.ndarray, " k"]) -> Texts:
        """Some of the texts, in this order."""
        import pyarrow as pa

        whole = pa.chunked_array(self.arrays, pa.string())
        starts = range(0, len(rows), BATCH_ROWS)
        taken = (whole.take(pa.array(rows[i : i + BATCH_ROWS])).chunks for i in starts)
        return Texts(list(itertools.chain.from_iterable(taken)))


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Negative captions of records, as `Captions` has the captions.

    Attributes:
      text_index: i64 [k], index in `Captions.texts` of each one, record after record.
      offsets: i64 [n + 1]; record i has `text_index[offsets[i]:offsets[i + 1]]`, perhaps none.
    """

    text_index: Int[np.ndarray, "k"]
    offsets: Int[np.ndarray, " bounds"]


@dataclasses.dataclass(frozen=True)
class Spoken:
    """The language of each caption of each record.

    Attributes:
      names: of the languages.
      index: i64 [m], the language of each caption, as `Captions.text_index` lists them.
    """

    names: tuple[str, ...]
    index: Int[np.ndarray, "m"]


@dataclasses.dataclass(frozen=True)
class Captions:
    """Every caption of every record, identical texts once.

    Attributes:
      texts: the distinct captions, and those of the negatives that are no captions behind them.
      text_index: i64 [m], index in `texts` of each caption, record after record.
      offsets: i64 [n + 1]; record i has `text_index[offsets[i]:offsets[i + 1]]`.
      negatives: the negative captions of the records, None where they are not used.
      spoken: the languages of the captions, None where they do not matter.
    """

    texts: Sequence[str]
    text_index: Int[np.ndarray, "m"]
    offsets: Int[np.ndarray, " bounds"]
    negatives: Negatives | None = None
    spoken: Spoken | None = None

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, "n"]:
        """Number of captions of each record."""
        return np.diff(self.offsets)

    @property
    def image_index(self) -> Int[np.ndarray, "m"]:
        """The record of each caption."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)


def captions_of(table: Table, rows: Int[np.ndarray, " n"] | None) -> Captions:
    """The captions of a table's rows.

    Args:
      table: the pairs.
      rows: those that are used, None for all; what is found of all is kept.
    """
    folder = table.folder if rows is None else None
    kept = None if folder is None else _kept(folder)
    if kept is not None:
        return kept
    found = _found(table, np.arange(len(table)) if rows is None else rows)
    if folder is None:
        return found
    with contextlib.suppress(OSError):  # A reader need not be able to write.
        _keep(folder, found)
    return _kept(folder) or found


def _found(table: Table, rows: Int[np.ndarray, " n"]) -> Captions:

    hashes: list[bytes] = []
    counts: list[np.ndarray] = []
    flat: list[pa.StringArray] = []
    blocks = table.column("captions", rows)
    total = -(-len(rows) // BATCH_ROWS)
    new = hashlib.blake2b
    for lists in track(blocks, "looking for equal captions", total, "blocks of 65536"):
        counts.append(np.diff(np.asarray(lists.offsets, np.int64)))
        texts = lists.flatten()
        flat.append(texts)
        digests = (new(text.encode(), digest_size=16).digest() for text in texts.to_pylist())
        hashes.append(b"".join(digests))
    keys = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)
    distinct = groups(keys)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts or [np.zeros(0, np.int64)]))])
    texts = Texts(flat) if len(distinct.first) == len(keys) else Texts(flat).take(distinct.first)
    return Captions(texts, distinct.group, offsets.astype(np.int64))


def _keep(folder: Path, found: Captions) -> None:
    import pyarrow as pa

    schema = pa.schema([("text", pa.string())])
    assert isinstance(found.texts, Texts)
    batches = [pa.RecordBatch.from_arrays([x], schema=schema) for x in found.texts.arrays]
    atomic.write(folder / "texts.arrow", lambda path: sheet.write(path, schema, batches))
    arrays = {"text_index": found.text_index, "text_offsets": found.offsets}
    for name, array in arrays.items():
        atomic.write(folder / f"{name}.npy", lambda path, array=array: _save(path, array))
    names = ("texts.arrow", *(f"{name}.npy" for name in arrays))
    sealed.write(folder / "texts.json", {"sha256": verified.hashes(folder, names)})


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _kept(folder: Path) -> Captions | None:
    import pyarrow as pa

    try:
        expected = sealed.read(folder / "texts.json")["sha256"]
        if wrong := verified.damage(folder, expected, "texts.verified.json"):
            hosts.say(f"{folder}: {wrong}; the list of captions is made anew")
            return None
        arrays = (
            np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("text_index", "text_offsets")
        )
        texts = Texts([batch.column(0) for batch in sheet.mapped(folder / "texts.arrow")])
        return Captions(texts, next(arrays), next(arrays))
    except (UserError, OSError, KeyError, ValueError, pa.ArrowException):
        return None  # Made again.
