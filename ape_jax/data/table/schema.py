"""Columns of the table of pairs, and images out of its rows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@functools.cache
def rows() -> pa.Schema:
    """Of raw rows, before captions of one image are joined.

    `file` and `at` say where a row is from. An image is one of: a whole file or url (`path`, with
    `offset` -1), a range of a file (`path`, `offset`, `size`), encoded bytes (`content`), or what
    the format reads by `number`. `key` are 16 bytes, equal for equal images; `id` is explicit or
    null, `name` the default id. `negatives` are negative captions, null where there are none;
    `languages` has the language of each caption, `domain` the style or maker of the image; both are
    null where they are not asked for.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("file", pa.int32()),
            ("at", pa.string()),
            ("path", pa.binary()),
            ("offset", pa.int64()),
            ("size", pa.int64()),
            ("content", pa.large_binary()),
            ("number", pa.int64()),
            ("key", pa.binary(16)),
            ("id", pa.string()),
            ("name", pa.binary()),
            ("negatives", pa.list_(pa.string())),
            ("languages", pa.list_(pa.string())),
            ("domain", pa.string()),
            ("captions", pa.list_(pa.string())),
        ]
    )


@functools.cache
def pairs() -> pa.Schema:
    """Of pairs: a row an image, as `rows` but with one `id` and all captions."""
    import pyarrow as pa

    kept = [field for field in rows() if field.name not in ("key", "id", "name")]
    return pa.schema([*kept[:-1], pa.field("id", pa.binary()), kept[-1]])


@functools.cache
def problems() -> pa.Schema:
    """Of rows that cannot be used: where, the kind, and a phrase with the remedy.

    `row` is the index of the pair that is left out, -1 where there is none to leave out.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("file", pa.int32()),
            ("at", pa.string()),
            ("kind", pa.string()),
            ("reason", pa.string()),
        ]
    )
