"""Parquet: columns `image` and `caption` (or `captions`, `label`).

`image` holds paths, bytes, or structs of `bytes` and `path` as Hugging Face's data sets do.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ape_jax.data.formats.columns import check_columns
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.records import Record, file_record, shorten
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

# Images inside a Parquet file are compressed by row group, so random access means holding them.
MAX_PARQUET_BYTES = 8 * 2**30


def read_parquet(path: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Reads a Parquet file; rows with the same image bytes are the same image.

    Images are kept in memory as they are encoded.

    Args:
      path: the file; image paths in it are relative to its directory.
      wanted: beside `image`, one of these columns must be there.
      key: not used: messages name file and row (from 0).

    Raises:
      UserError: the file is not Parquet, has no such columns or columns of other types, or holds
        more than `MAX_PARQUET_BYTES` of images.
    """
    table = _read_table(path, wanted)
    fields = [n for n in (*wanted, "id") if n in table.column_names]
    row = 0
    for batch in table.to_batches():
        images = batch.column("image")
        columns = {name: batch.column(name).to_pylist() for name in fields}
        for i in range(batch.num_rows):
            where = f"{path}:row {row}"
            values = {name: column[i] for name, column in columns.items()}
            yield _parquet_record(path, row, images, i, values, where)
            row += 1


def _read_table(path: str, wanted: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        check_columns(file.schema_arrow.names, wanted, path)
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        if size > MAX_PARQUET_BYTES:
            raise UserError(
                f"{path}: {size} bytes are more than the {MAX_PARQUET_BYTES} that are held in "
                "memory; write the images as files or WebDataset tars"
            )
        kind = file.schema_arrow.field("image").type
        inside = kind.field("bytes").type if _has_bytes(kind) else kind
        text = pa.types.is_string(inside) or pa.types.is_large_string(inside)
        binary = pa.types.is_binary(inside) or pa.types.is_large_binary(inside)
        if not (binary or (text and inside is kind)):
            raise UserError(
                f"{path}: the column 'image' has the type {shorten(str(kind))}; write paths, "
                "bytes, or a struct with 'bytes'"
            )
        names = [n for n in ("image", *wanted, "id") if n in file.schema_arrow.names]
        return file.read(columns=names)
    except (pa.ArrowException, OSError) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"{path}: this is not a readable Parquet file ({reason})") from e


def _has_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _parquet_record(
    path: str, row: int, images: pa.Array, i: int, fields: dict[str, Any], where: str
) -> Record:
    image = images[i].as_py()
    if isinstance(image, dict):
        inner = image.get("bytes")
        # datasets keeps bytes None and a path where files were not embedded.
        image = image.get("path") if inner is None else inner
    if not isinstance(image, bytes):
        return file_record(image, fields, where=where, base=os.path.dirname(path))
    read = functools.partial(_cell_bytes, images, i)
    ref = ImageRef(read, where, len(image))
    identity = hashlib.blake2b(image, digest_size=16).digest()
    return Record(where, ref, f"{os.path.basename(path)}:{row}", identity, fields)


def _cell_bytes(images: pa.Array, i: int) -> bytes:
    image = images[i].as_py()
    return image["bytes"] if isinstance(image, dict) else image


PARQUET = PairsFormat(name="parquet", spec="*.parquet", suffixes=(".parquet",), read=read_parquet)
