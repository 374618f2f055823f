"""CSV, TSV and Parquet: a header or schema with `image` and `caption` (or `captions`, `label`)."""

from __future__ import annotations

import csv
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ape_jax.data.records import MAX_RECORD_BYTES, Record, file_record, shorten
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

# Images inside a Parquet file are compressed by row group, so random access means holding them.
MAX_PARQUET_BYTES = 8 * 2**30


def read_csv(path: str, *, wanted: Sequence[str], delimiter: str = ",") -> Iterator[Record]:
    """The records of a CSV (or, by `delimiter`, TSV) file with a header, UTF-8, BOM allowed.

    Args:
      path: The file; image paths in it are relative to its directory.
      wanted: Beside `image`, one of these columns must be there.
      delimiter: What separates cells. Quoted cells may hold it, and line ends.

    Raises:
      UserError: Not UTF-8, no such columns, a row of another length; names file and line.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    with open(path, encoding="utf-8-sig", newline="") as f:
        rows = _rows(path, csv.reader(f, delimiter=delimiter, strict=True))
        line, header = next(rows, (1, []))
        header = [name.strip() for name in header]
        _check_columns(header, wanted, f"{path}:{line}")
        for line, row in rows:
            where = f"{path}:{line}"
            if len(row) != len(header):
                raise UserError(
                    f"{where}: found {len(row)} cells where the header has {len(header)}; "
                    "quote cells that hold the separator."
                )
            fields = {k: v for k, v in zip(header, row, strict=True) if k in (*wanted, "id")}
            image = row[header.index("image")]
            yield file_record(image, fields, where=where, base=os.path.dirname(path))


def _rows(path: str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            raise UserError(f"{path}:{line}: {e}; correct the quotes or the cell.") from e
        except UnicodeDecodeError as e:
            # The decoder reads ahead: the byte is somewhere after this line.
            raise UserError(
                f"{path}:{line}: the file is not UTF-8 text from about this line on "
                f"({e.reason}); save it as UTF-8."
            ) from e
        if row:
            yield line, row


def read_parquet(path: str, *, wanted: Sequence[str]) -> Iterator[Record]:
    """The records of a Parquet file; `image` holds paths, bytes, or `{"bytes", "path"}` as HF's.

    Rows with the same image bytes are the same image. Images are kept in memory as encoded.

    Raises:
      UserError: Not Parquet, no such columns, a column of another type, more than
        `MAX_PARQUET_BYTES` of images; names the file (and row, from 0).
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
        _check_columns(file.schema_arrow.names, wanted, path)
        meta = file.metadata
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        if size > MAX_PARQUET_BYTES:
            raise UserError(
                f"{path}: {size} bytes are more than the {MAX_PARQUET_BYTES} that are held in "
                "memory; write the images as files or WebDataset tars."
            )
        kind = file.schema_arrow.field("image").type
        inside = kind.field("bytes").type if _has_bytes(kind) else kind
        text = pa.types.is_string(inside) or pa.types.is_large_string(inside)
        binary = pa.types.is_binary(inside) or pa.types.is_large_binary(inside)
        if not (binary or (text and inside is kind)):
            raise UserError(
                f"{path}: the column 'image' has the type {shorten(str(kind))}; write paths, "
                "bytes, or a struct with 'bytes'."
            )
        names = [n for n in ("image", *wanted, "id") if n in file.schema_arrow.names]
        return file.read(columns=names)
    except (pa.ArrowException, OSError) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"{path}: this is not a readable Parquet file ({reason}).") from e


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


def _check_columns(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    doubled = [name for name in ("image", *wanted, "id") if list(found).count(name) > 1]
    if doubled:
        raise UserError(f"{where}: the column {doubled[0]!r} is there twice; remove one.")
    if "image" in found and any(name in found for name in wanted):
        return
    listed = ", ".join(repr(name) for name in found[:12]) or "none"
    needed = " or ".join(repr(name) for name in wanted)
    raise UserError(
        f"{where}: found the columns {shorten(listed)[1:-1]}; name them 'image' and {needed}."
    )
