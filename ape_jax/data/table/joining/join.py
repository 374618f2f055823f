"""Joins the captions of one image: operations on the whole table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ape_jax.data.table import schema
from ape_jax.data.table.joining.columns import take
from ape_jax.data.table.joining.groups import Groups
from ape_jax.data.table.joining.ids import Names, default_names, ids_of
from ape_jax.data.table.sheet import BATCH_ROWS

if TYPE_CHECKING:
    import pyarrow as pa


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
        heads = take(table, found.first[start:stop])
        heads["name"] = default_names(heads, root)
        texts = take(table.select(["captions", "negatives", "languages"]), rows)
        group = found.group[rows] - start
        captions, languages = _captions(texts, group, stop - start)
        negatives = texts["negatives"]
        if negatives.null_count == len(negatives):  # As in nearly all sources.
            negatives = pa.nulls(stop - start, negatives.type)
        else:
            negatives = _lists(negatives, group)
        names = ids_of(table, ids, heads, slice(start, stop))
        columns = {**heads, "captions": captions, "negatives": negatives, "id": names}
        columns["languages"] = languages
        yield pa.RecordBatch.from_arrays(
            [columns[name] for name in schema.pairs().names], schema=schema.pairs()
        )


def _captions(
    columns: dict[str, pa.Array], group: np.ndarray, count: int
) -> tuple[pa.Array, pa.Array]:
    """Captions by group and, where they are known, their languages; in each a caption once."""
    import pyarrow as pa

    captions, languages = columns["captions"], columns["languages"]
    if languages.null_count == len(languages):  # As in nearly all sources.
        return _lists(captions, group), pa.nulls(count, languages.type)
    found = _lists(captions, group, beside=languages)
    return found, _lists(languages, group, beside=captions)


def _lists(lists: pa.ListArray, group: np.ndarray, beside: pa.ListArray | None = None) -> pa.Array:
    """Lists of texts by group, without duplicates, from the lists of rows in order of groups.

    Args:
      lists: of each row.
      group: of each row, from 0 on.
      beside: other texts of each row, as many: equal texts with others beside them both stay.
    """
    import pyarrow as pa

    counts = np.diff(np.asarray(lists.offsets, np.int64))
    flat, owner = lists.flatten(), np.repeat(group, counts)
    keys = [owner, _codes(flat), *([] if beside is None else [_codes(beside.flatten())])]
    _, kept = np.unique(_joint(keys), return_index=True)
    kept.sort()
    lengths = np.bincount(owner[kept], minlength=int(group[-1]) + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    texts = flat if len(kept) == len(flat) else flat.take(pa.array(kept))
    return pa.ListArray.from_arrays(pa.array(offsets), texts)


def _codes(texts: pa.Array) -> np.ndarray:
    """A number for each text, equal for equal texts."""
    import pyarrow.compute as pc

    return np.asarray(pc.call_function("dictionary_encode", [texts]).indices).astype(np.int64)


def _joint(keys: Sequence[np.ndarray]) -> np.ndarray:
    """A number for each combination of keys."""
    joint = keys[0]
    for key in keys[1:]:
        _, joint = np.unique(joint * (int(key.max(initial=0)) + 1) + key, return_inverse=True)
    return joint
