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
        texts, group = (
            take(table.select(["captions", "negatives"]), rows),
            found.group[rows] - start,
        )
        captions = _lists(texts["captions"], group)
        negatives = texts["negatives"]
        if negatives.null_count == len(negatives):  # As in nearly all sources.
            negatives = pa.nulls(stop - start, negatives.type)
        else:
            negatives = _lists(negatives, group)
        names = ids_of(table, ids, heads, slice(start, stop))
        columns = {**heads, "captions": captions, "negatives": negatives, "id": names}
        yield pa.RecordBatch.from_arrays(
            [columns[name] for name in schema.pairs().names], schema=schema.pairs()
        )


def _lists(lists: pa.ListArray, group: np.ndarray) -> pa.Array:
    """Lists of texts by group, without duplicates, from the lists of rows in order of groups."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = np.diff(np.asarray(lists.offsets, np.int64))
    flat, owner = lists.flatten(), np.repeat(group, counts)
    codes = np.asarray(pc.call_function("dictionary_encode", [flat]).indices).astype(np.int64)
    _, kept = np.unique(owner * max(len(flat), 1) + codes, return_index=True)
    kept.sort()
    lengths = np.bincount(owner[kept], minlength=int(group[-1]) + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    texts = flat if len(kept) == len(flat) else flat.take(pa.array(kept))
    return pa.ListArray.from_arrays(pa.array(offsets), texts)
