"""Ids and words beside vectors: which row is of which image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_jax.data.cells import Unusable, identifier, record_captions
from ape_jax.data.precomputed.source import Source
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def write(source: Source, folder: Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Writes the ids of images, and words in the order of their images, as Arrow files.

    Args:
      source: the Parquet file.
      folder: gets the files `id` and `caption`, where there are such columns.

    Returns:
      The image of each row, [r]; the rows in the order of their images, [r], None where they are;
      the first row of each image, [n].
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, list[pa.Array]] = {name: [] for name in source.names}
    seen = 0
    for batch in source.batches(source.names) if source.names else ():
        for name in source.names:
            found[name].append(_texts(batch.column(name), name, source, seen))
        seen += batch.num_rows
    owner = np.arange(source.rows)
    if "id" in found:
        encoded = pa.chunked_array(found["id"]).dictionary_encode().combine_chunks()
        owner = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        names = pc.call_function(
            "utf8_slice_codeunits", [encoded.dictionary], pc.SliceOptions(start=1)
        )
        _save(pa.chunked_array([names]), "id", folder)
    first = np.unique(owner, return_index=True)[1]
    order = np.argsort(owner, kind="stable") if (np.diff(owner) < 0).any() else None
    if "caption" in found:
        words = pa.chunked_array(found["caption"])
        _save(words if order is None else words.take(pa.array(order)), "caption", folder)
    return owner, order, first


def read(name: str, folder: Path, *, loaded: bool) -> pa.ChunkedArray | None:
    """A column that `write` wrote, mapped or in memory; None where there is none."""
    import pyarrow as pa

    path = str(folder / f"{name}.arrow")
    if not (folder / f"{name}.arrow").exists():
        return None
    with pa.OSFile(path) if loaded else pa.memory_map(path) as file:
        return pa.ipc.open_file(file).read_all().column(name)


def _texts(column: pa.Array, name: str, source: Source, seen: int) -> pa.Array:
    """Ids with a mark before them, so that a row without one is like no other; or captions."""
    import pyarrow as pa

    texts = []
    for row, value in enumerate(column.to_pylist(), seen):
        where = f"{source.path}:row {row}"
        if name == "caption":
            texts.append(_caption(value, where))
            continue
        try:
            given = identifier(value)
        except Unusable as error:
            raise UserError(f"{where}: {error.reason}") from error
        texts.append(f"#row {row}" if given is None else f"={given}")
    return pa.array(texts, pa.large_string())


def _caption(value: Any, where: str) -> str:
    found = record_captions(value, where)
    if len(found) != 1:
        raise UserError(f"{where}: 'caption' holds {len(found)} captions; write each in its row")
    return found[0]


def _save(column: pa.ChunkedArray, name: str, folder: Path) -> None:
    import pyarrow as pa

    table = pa.table({name: column})
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2**16)
