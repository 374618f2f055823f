"""Parquet: columns `image` and `caption` (or `captions`, `label`).

`image` holds paths, bytes, or structs of `bytes` and `path` as Hugging Face's data sets do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ape_jax.data import columns
from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import Ask, FileRows, Row
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 256  # Rows that are in memory at a time: images are large.


def read_parquet(path: str, ask: Ask) -> FileRows:
    """Reads a Parquet file, a few rows at a time; messages name the row, from 0.

    Raises:
      UserError: the file is not Parquet, or its images are of another type than paths and bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as e:
        raise _unreadable(path, e) from e
    names = file.schema_arrow.names
    chosen = columns.choose(names, ask.columns, ask.wanted == "label", path)
    _check_images(file.schema_arrow.field(chosen.image), path)
    read = [name for name in (chosen.image, *chosen.captions, chosen.id) if name is not None]
    return FileRows(rows=_rows(path, file, read), columns=names)


def _rows(path: str, file: pq.ParquetFile, names: list[str]) -> Iterator[Row]:
    import pyarrow as pa

    row = 0
    try:
        for batch in file.iter_batches(_BATCH, columns=names):
            for fields in batch.to_pylist():
                yield Row(f"row {row}", fields, f":{row}")
                row += 1
    except (pa.ArrowException, OSError) as e:
        raise _unreadable(path, e) from e


def _check_images(field: pa.Field, path: str) -> None:
    import pyarrow as pa

    kind = field.type
    inside = kind.field("bytes").type if _has_bytes(kind) else kind
    text = pa.types.is_string(inside) or pa.types.is_large_string(inside)
    binary = pa.types.is_binary(inside) or pa.types.is_large_binary(inside)
    if not (binary or (text and inside is kind)):
        raise UserError(
            f"{path}: the column {field.name!r} has the type {shorten(str(kind))}; write paths, "
            "bytes, or a struct with 'bytes'"
        )


def _has_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _unreadable(path: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{path}: this is not a readable Parquet file ({reason})")


PARQUET = PairsFormat(name="parquet", spec="*.parquet", suffixes=(".parquet",), read=read_parquet)
