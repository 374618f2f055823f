"""Joins the captions of one image, and gives each image its id: operations on the whole table."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from ape_jax.data.table import schema
from ape_jax.data.table.sheet import BATCH_ROWS
from ape_jax.errors import UserError
from ape_jax.terminal.progress import track

if TYPE_CHECKING:
    import pyarrow as pa

_PROBE = 4096  # Bytes from the middle of an image, by which nearly all that differ are told apart.

Keys = UInt64[np.ndarray, "r 2"]


class Groups(NamedTuple):
    """Rows with equal keys, numbered in order of first appearance.

    Attributes:
      first: the first row of each group, i64 [g], ascending.
      group: the group of each row, i64 [r].
    """

    first: Int64[np.ndarray, " g"]
    group: Int64[np.ndarray, " r"]


def groups(keys: Keys) -> Groups:
    """Groups rows by their keys.

    Example:
      >>> keys = np.array([[5, 0], [1, 0], [5, 0]], np.uint64)
      >>> [x.tolist() for x in groups(keys)]
      [[0, 1], [0, 1, 0]]
    """
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    starts = np.ones(len(keys), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[starts]  # The sort is stable: of equal rows the first comes first.
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    group = np.empty(len(keys), np.int64)
    group[order] = rank[np.cumsum(starts) - 1]
    return Groups(np.sort(first), group)


def image_keys(batches: Sequence[pa.RecordBatch]) -> Keys:
    """The keys of all rows; images inside files (tars) are told apart by their bytes.

    A picture that is stored under several names is one image. Only images of equal size, and equal
    bytes in the middle, are read whole.
    """
    keys = _hashes(batches, "key")
    offsets = _column(batches, "offset")
    inside = np.flatnonzero(offsets >= 0)
    if not len(inside):
        return keys
    sizes = _column(batches, "size")[inside]
    same = inside[_repeated(sizes[:, None].astype(np.uint64))]
    if not len(same):
        return keys
    reader = _Ranges(batches, offsets)
    probes = reader.hashes(same, _PROBE, "comparing images inside files")
    same = same[_repeated(probes)]
    if len(same):
        keys = keys.copy()
        keys[same] = reader.hashes(same, None, "comparing images of equal size")
    return keys


def joined(
    batches: Sequence[pa.RecordBatch], found: Groups, ids: Names, root: str
) -> Iterator[pa.RecordBatch]:
    """Yields the pairs: a row an image, with the captions of all its rows, exact duplicates once.

    Args:
      batches: of `schema.rows`.
      found: the rows of each image.
      ids: where the ids of images come from.
      root: folder that default ids are relative to.
    """
    import pyarrow as pa

    table = pa.Table.from_batches(batches, schema.rows())
    order = np.argsort(found.group, kind="stable")
    ends = np.cumsum(np.bincount(found.group, minlength=len(found.first)))
    for start in range(0, len(found.first), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(found.first))
        low = 0 if start == 0 else int(ends[start - 1])
        rows = order[low : int(ends[stop - 1])]
        heads = _take(table, found.first[start:stop])
        heads["name"] = _default_names(heads, root)
        captions = _captions(_take(table.select(["captions"]), rows), found.group[rows] - start)
        names = _ids(table, ids, heads, slice(start, stop))
        columns = {**heads, "captions": captions, "id": names}
        yield pa.RecordBatch.from_arrays(
            [columns[name] for name in schema.pairs().names], schema=schema.pairs()
        )


def _default_names(heads: dict[str, pa.Array], root: str) -> pa.Array:
    """The default ids: names that readers gave, else paths as seen from the root."""
    import pyarrow as pa
    import pyarrow.compute as pc

    prefix = f"{root.rstrip('/')}/".encode("utf-8", "surrogatepass")
    path = heads["path"]
    options = pc.MatchSubstringOptions(prefix)
    below = pc.call_function("starts_with", [path], options)
    cut = pc.ReplaceSliceOptions(0, len(prefix), b"")
    inside = pc.call_function("binary_replace_slice", [path], cut)
    names = pc.call_function("if_else", [below, inside, path])
    return pc.call_function("coalesce", [heads["name"], names]).cast(pa.binary())


def _take(table: pa.Table, rows: np.ndarray) -> dict[str, pa.Array]:
    import pyarrow as pa

    if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all():
        taken = table.slice(int(rows[0]), len(rows))
    else:
        taken = table.take(pa.array(rows))
    arrays = {}
    for name in table.column_names:
        column = taken.column(name).combine_chunks()
        arrays[name] = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return arrays


def _captions(columns: dict[str, pa.Array], group: np.ndarray) -> pa.Array:
    """Lists of captions by group, without duplicates, from the lists of rows in order of groups."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = columns["captions"]
    counts = np.diff(np.asarray(lists.offsets, np.int64))
    flat, owner = lists.flatten(), np.repeat(group, counts)
    codes = np.asarray(pc.call_function("dictionary_encode", [flat]).indices).astype(np.int64)
    _, kept = np.unique(owner * max(len(flat), 1) + codes, return_index=True)
    kept.sort()
    lengths = np.bincount(owner[kept], minlength=int(group[-1]) + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    texts = flat if len(kept) == len(flat) else flat.take(pa.array(kept))
    return pa.ListArray.from_arrays(pa.array(offsets), texts)


class Names(NamedTuple):
    """Where the ids of images come from.

    Attributes:
      rows: the row whose explicit id an image has, i64 [g], -1 for the default name; None where no
        image has an explicit id.
      labels: of each file, put before its ids; () where ids of all files are different.
      note: what is said about them; "" where nothing is.
    """

    rows: Int64[np.ndarray, " g"] | None
    labels: Sequence[str] = ()
    note: str = ""


def explicit_ids(
    batches: Sequence[pa.RecordBatch], found: Groups, files: Sequence[str], root: str
) -> Names:
    """The ids that rows give their images.

    An id never splits an image: where the rows of an image have several ids, they are the captions'
    and images have their default names. Equal ids in different files are different images.

    Raises:
      UserError: two images of one file have the same id.
    """
    import pyarrow as pa

    table = pa.Table.from_batches(batches, schema.rows()).select(["id", "file", "at"])
    column = table.column("id")
    if column.null_count == len(column):
        return Names(None)
    hashes = np.zeros((len(column), 2), np.uint64)
    given = np.zeros(len(column), bool)
    at = 0
    for chunk in column.chunks:
        for value in chunk.to_pylist():
            if value is not None:
                given[at] = True
                digest = hashlib.blake2b(value.encode(), digest_size=16).digest()
                hashes[at] = np.frombuffer(digest, "<u8")
            at += 1
    rows = np.flatnonzero(given)
    of_id = groups(hashes[rows])
    image = found.group[rows]
    several = _several(image, of_id.group)
    if several.any():
        count, images = len(of_id.first), len(np.unique(image))
        note = (
            f"the ids differ among the captions of one image ({count} ids, {images} images): "
            "captions are joined by the image, which is named by its path"
        )
        return Names(None, (), note)
    shared = _several(of_id.group, image)
    if not shared.any():
        return Names(_first_rows(rows, image, len(found.first)))
    file = np.asarray(table.column("file"))[rows]
    scoped = of_id.group * (int(file.max()) + 1) + file
    if (clash := _several(scoped, image)).any():
        raise _clash(table, rows, scoped, image, int(np.flatnonzero(clash)[0]), files)
    note = "equal ids in different files are different images; the file's name is put before them"
    labels = [os.path.relpath(file, root) for file in files]
    return Names(_first_rows(rows, image, len(found.first)), labels, note)


def _first_rows(rows: np.ndarray, image: np.ndarray, count: int) -> Int64[np.ndarray, " g"]:
    """The first of the rows of each image, -1 where it has none."""
    out = np.full(count, -1)
    images, at = np.unique(image, return_index=True)
    out[images] = rows[at]
    return out


def _ids(table: pa.Table, names: Names, heads: dict[str, pa.Array], block: slice) -> pa.Array:
    """The ids of a block of images."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if names.rows is None:
        return heads["name"]
    rows = names.rows[block]
    taken = _take(table.select(["id", "file"]), np.maximum(rows, 0))
    given = taken["id"]
    if names.labels:
        labels = pa.array(names.labels).take(taken["file"])
        given = pc.call_function("binary_join_element_wise", [labels, given, pa.scalar(":")])
    chosen = [pa.array(rows >= 0), given.cast(pa.binary()), heads["name"]]
    return pc.call_function("if_else", chosen)


def _several(of: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Marks the entries whose `of` occurs with several `values`."""
    order = np.lexsort((values, of))
    of_sorted, sorted_values = of[order], values[order]
    changed = (of_sorted[1:] == of_sorted[:-1]) & (sorted_values[1:] != sorted_values[:-1])
    bad = np.unique(of_sorted[1:][changed])
    return np.isin(of, bad) if len(bad) else np.zeros(len(of), bool)


def _clash(
    table: pa.Table, rows: np.ndarray, scoped: np.ndarray, image: np.ndarray, i: int,
    files: Sequence[str],
) -> UserError:  # fmt: skip
    other = int(np.flatnonzero((scoped == scoped[i]) & (image != image[i]))[0])
    first, second = sorted((int(rows[i]), int(rows[other])))

    def where(row: int) -> str:
        return f"{files[table.column('file')[row].as_py()]}:{table.column('at')[row].as_py()}"

    value = table.column("id")[first].as_py()
    return UserError(
        f"{where(second)}: the id {value!r} is also that of another image at {where(first)}; give "
        "each image its own id"
    )


def _repeated(keys: Keys | UInt64[np.ndarray, "r 1"]) -> np.ndarray:
    """Marks the rows whose key occurs more than once."""
    padded = keys if keys.shape[1] == 2 else np.concatenate([keys, np.zeros_like(keys)], axis=1)
    group = groups(padded).group
    return np.bincount(group)[group] > 1


def _column(batches: Sequence[pa.RecordBatch], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(batch.column(name)) for batch in batches])


def _hashes(batches: Sequence[pa.RecordBatch], name: str) -> Keys:
    """A column of 16 bytes as two words."""
    parts = []
    for batch in batches:
        column = batch.column(name)
        raw = np.frombuffer(column.buffers()[1], "<u8", 2 * len(column), 16 * column.offset)
        parts.append(raw.reshape(-1, 2))
    return np.concatenate(parts)


class _Ranges:
    """Reads ranges of files, as rows name them."""

    def __init__(self, batches: Sequence[pa.RecordBatch], offsets: np.ndarray):
        import pyarrow as pa

        self._paths = pa.chunked_array([batch.column("path") for batch in batches])
        self._offsets, self._sizes = offsets, _column(batches, "size")

    def hashes(self, rows: np.ndarray, most: int | None, what: str) -> Keys:
        """Hashes of the images of these rows, or of so many bytes in the middle of each.

        Raises:
          UserError: a file cannot be read.
        """
        out = np.zeros((len(rows), 2), np.uint64)
        path: bytes | None = None
        file: BinaryIO = io.BytesIO()
        tracked: Callable[..., Iterator[int]] = track
        for k, row in enumerate(tracked(rows.tolist(), what, len(rows), "images")):
            name = self._paths[row].as_py()
            if name != path:
                file.close()
                path, file = name, _open(name)
            offset, size = int(self._offsets[row]), int(self._sizes[row])
            if most is not None and size > most:
                offset, size = offset + (size - most) // 2, most
            file.seek(offset)
            digest = hashlib.blake2b(file.read(size), digest_size=16).digest()
            out[k] = np.frombuffer(digest, "<u8")
        file.close()
        return out


def _open(path: bytes) -> BinaryIO:
    try:
        return open(path.decode("utf-8", "surrogatepass"), "rb")
    except OSError as e:
        name = path.decode("utf-8", "replace")
        raise UserError(f"{name} cannot be read ({e.strerror}); run again") from e
