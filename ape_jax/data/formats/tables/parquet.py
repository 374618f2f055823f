"""Parquet: images are paths, bytes, or structs of `bytes` and `path` as Hugging Face's are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ape_jax.data import columns
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.tables import arrow_checks, parquet_sizes
from ape_jax.data.formats.tables.arrow_cells import batch_rows, check_image, class_names
from ape_jax.data.formats.tables.arrow_checks import readable, unreadable
from ape_jax.data.formats.tables.opened import check_no_part
from ape_jax.data.rows import Ask, Broken, FileRows, Row
from ape_jax.storage import files

if TYPE_CHECKING:
    import pyarrow.parquet as pq


def read_parquet(path: str, ask: Ask) -> FileRows:
    """Reads a Parquet file, some rows at a time; messages name the row, from 0.

    Args:
      path: the file.
      ask: what is asked.

    Raises:
      UserError: the file is not Parquet, is damaged, decodes to over a thousand times its size, or
        its images are of a type that holds none.
    """
    import pyarrow.parquet as pq

    check_no_part(path, ask)
    files.check(path)
    with readable(path, "Parquet"):
        file = pq.ParquetFile(
            path, memory_map=True, pre_buffer=False, page_checksum_verification=True
        )
        schema, meta = file.schema_arrow, file.metadata
        names = list(schema.names)
        row_groups = map(meta.row_group, range(meta.num_row_groups))
        groups = [(group.num_rows, group.total_byte_size) for group in row_groups]
    if not ask.images:
        texts = list(columns.of_texts(names, ask.columns, path))
        size = parquet_sizes.batch_rows(path, texts, groups)
        return FileRows(rows=_rows(path, file, size, "", texts, {}), columns=names)
    chosen = columns.choose(names, ask.columns, ask.wanted == "label", path)
    check_image(schema.field(chosen.image).type, chosen.image, path)
    read = chosen.read
    extra = class_names(schema, chosen.captions[0]) if ask.wanted == "label" else {}
    size = parquet_sizes.batch_rows(path, read, groups)
    rows = _rows(path, file, size, chosen.image, read, extra)
    return FileRows(rows=rows, columns=names)


def _rows(
    path: str,
    file: pq.ParquetFile,
    size: int,
    image: str,
    names: list[str],
    extra: Mapping[str, Any],
) -> Iterator[Row | Broken]:
    first = decoded = 0
    batches = file.iter_batches(size, columns=names)
    while True:
        with readable(path, "Parquet", f"row {first}"):
            batch = next(batches, None)
        if batch is None:
            break
        decoded += batch.nbytes
        arrow_checks.check_growth(path, decoded, "it")
        yield from batch_rows(
            batch, path, image=image, at="row ", suffix=":", first=first, extra=extra
        )
        first += batch.num_rows
    if first != file.metadata.num_rows:
        raise unreadable(path, "Parquet", f"{first} rows of {file.metadata.num_rows}")


PARQUET = PairsFormat(
    name="parquet", spec="*.parquet", suffixes=(".parquet", ".parq", ".pq"), read=read_parquet
)
