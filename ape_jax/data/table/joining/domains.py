"""Domains of images: every row of an image has the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ape_jax.data.table import schema
from ape_jax.data.table.joining.columns import take
from ape_jax.data.table.joining.groups import Groups
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def check(batches: Sequence[pa.RecordBatch], found: Groups, files: Sequence[str]) -> None:
    """Raises UserError for an image of two domains: it could be on neither side of a split.

    Args:
      batches: of `schema.rows`.
      found: the rows of each image.
      files: the files of the source, by number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.Table.from_batches(batches, schema.rows())
    if table["domain"].null_count == len(table):  # As in nearly all sources.
        return
    domains = take(table.select(["domain"]), np.arange(len(table)))["domain"]
    codes = pc.call_function("dictionary_encode", [domains]).indices
    number = np.asarray(codes.fill_null(-1))
    other = np.flatnonzero(number != number[found.first][found.group])
    if not len(other):
        return
    rows = [int(found.first[found.group[other[0]]]), int(other[0])]
    named = [
        f"{table['domain'][row].as_py()!r} in {files[table['file'][row].as_py()]}:"
        f"{table['at'][row].as_py()}"
        for row in rows
    ]
    raise UserError(
        f"config.data.domain: one image has two domains, {named[0]} and {named[1]}; an image that "
        "is held out must be of one: write the same in all of its rows"
    )
