"""Reads precomputed features from Parquet: list columns become flat arrays."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_jax.data.cells import Unusable, identifier, record_captions, shorten
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Columns:
    """Vectors as they were read, for n images and m captions.

    Attributes:
      image: [n, d] or [n, V, d].
      text: words, or vectors [S, d] and in it the offsets [m + 1] of the captions.
      image_index: [m], the image of each caption.
      ids: n names.
    """

    image: np.ndarray
    text: list[str] | tuple[np.ndarray, np.ndarray]
    image_index: np.ndarray
    ids: list[str]


def read_parquet_columns(path: str, *, key: str) -> Columns:
    """Reads `image` (lists of numbers), `text` (likewise) or `caption` (words), and `id`.

    Rows with the same `id` are captions of one image and must give the same vector for it.

    Raises:
      UserError: a missing or damaged file, missing columns, lists of different widths.
    """
    table = _read(path, key)
    image, per_image = _vectors(table, "image", path, key)
    views = set(per_image.tolist())
    if len(views) != 1:
        raise UserError(f"{key}: {path!r}: every 'image' must have as many views, found {views}")
    count = table.num_rows
    image = image.reshape(count, *([views.pop()] if _nested(table, "image") else []), -1)
    first, image_index, ids = _join(table, image, path, key)
    order = np.argsort(image_index, kind="stable")
    if "text" not in table.column_names:
        words = table.column("caption").to_pylist()
        captions = [_caption(words[i], f"{path}:row {i}") for i in order.tolist()]
        return Columns(image[first], captions, image_index[order], ids)
    flat, lengths = _vectors(table, "text", path, key)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if not np.array_equal(order, np.arange(count)):
        flat = np.concatenate([flat[starts[i] : starts[i + 1]] for i in order.tolist()])
    offsets = np.concatenate([[0], np.cumsum(lengths[order])])
    return Columns(image[first], (flat, offsets), image_index[order], ids)


def _read(path: str, key: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not os.path.isfile(path):
        raise UserError(f"{key}: there is no file {path!r}; correct the path")
    try:
        names = pq.read_schema(path).names
        texts = [name for name in ("text", "caption") if name in names]
        if "image" not in names or len(texts) != 1:
            raise UserError(
                f"{key}: {path!r} has the columns {shorten(', '.join(names))}; write 'image' and "
                "one of 'text' (vectors) and 'caption' (words)"
            )
        table = pq.read_table(path, columns=["image", texts[0], *(["id"] * ("id" in names))])
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{key}: {path!r} is not a readable Parquet file ({reason})") from error
    if not table.num_rows:
        raise UserError(f"{key}: {path!r} holds no rows; write at least one")
    return table


def _nested(table: pa.Table, name: str) -> bool:
    import pyarrow as pa

    kind = table.schema.field(name).type
    return _is_list(kind) and _is_list(kind.value_type) and not pa.types.is_null(kind.value_type)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _vectors(table: pa.Table, name: str, path: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """`(flat [S, d], rows of it for each row of the table)` of a column of (lists of) vectors."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name).combine_chunks()
    kind = column.type
    if not _is_list(kind):
        raise UserError(f"{key}: {path!r}: the column {name!r} is {kind}; write lists of numbers")
    per_row = np.ones(len(column), np.int64)
    if _is_list(kind.value_type):
        per_row = _lengths(column, name, path, key, pc)
        column = pc.call_function("list_flatten", [column])
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    widths = _lengths(column, name, path, key, pc)
    values = pc.call_function("list_flatten", [column])
    if not pa.types.is_floating(values.type) or values.null_count:
        raise UserError(
            f"{key}: {path!r}: the column {name!r} holds {values.type} with {values.null_count} "
            "nulls; write floating point numbers"
        )
    if len(set(widths.tolist())) != 1 or (per_row < 1).any():
        raise UserError(
            f"{key}: {path!r}: the vectors in {name!r} are {sorted(set(widths.tolist()))[:5]} wide "
            f"and rows hold at least {per_row.min()}; write one or more vectors of one width in "
            "each row"
        )
    flat = values.to_numpy(zero_copy_only=False).reshape(-1, int(widths[0]))
    return flat, per_row


def _lengths(column: pa.Array, name: str, path: str, key: str, pc: Any) -> np.ndarray:
    if column.null_count:
        raise UserError(f"{key}: {path!r}: the column {name!r} holds nulls; leave those rows out")
    return pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)


def _join(
    table: pa.Table, image: np.ndarray, path: str, key: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """`(first row of each image, image of each row, ids)`; rows without an id stand alone."""
    given = table.column("id").to_pylist() if "id" in table.column_names else [None] * len(image)
    number: dict[Any, int] = {}
    first: list[int] = []
    image_index, ids = np.zeros(len(image), np.int64), []
    for row, value in enumerate(given):
        try:
            name = identifier(value)
        except Unusable as e:
            raise UserError(f"{path}:row {row}: {e.reason}") from e
        identity = ("row", row) if name is None else name
        if identity not in number:
            number[identity] = len(first)
            first.append(row)
            ids.append(f"row {row}" if name is None else name)
        image_index[row] = number[identity]
        if not np.array_equal(image[row], image[first[image_index[row]]]):
            raise UserError(
                f"{key}: {path}:row {row}: the id {name!r} is also that of row "
                f"{first[image_index[row]]}, which has another vector; give each image its own id"
            )
    return np.asarray(first), image_index, ids


def _caption(value: Any, where: str) -> str:
    return record_captions(value, where)[0]
