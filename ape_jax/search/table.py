"""Writes an index as a Parquet file for databases of vectors and for pandas."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ape_jax.errors import UserError
from ape_jax.search.index import Index
from ape_jax.storage import atomic, disk
from ape_jax.terminal.progress import Progress

DTYPES = ("float32", "float16", "int8")
_NUMBERS = 2**22  # Of the vectors of a row group, which is in memory at a time.


def check_target(path: str, key: str = "--to") -> pathlib.Path:
    """The absolute path of a table that is to be written.

    Raises:
      UserError: it is no Parquet file by its name, exists already, or lies where nothing can be
        written.
    """
    suffix = pathlib.PurePath(path).suffix
    if suffix.lower() != ".parquet":
        found = f"the ending {suffix!r}" if suffix else f"no ending in {path!r}"
        raise UserError(f"{key}: found {found}; write a name that ends in .parquet")
    return atomic.check_new(path, key, "file")


def write(index: Index, path: pathlib.Path, dtype: str, *, key: str = "--to") -> tuple[int, int]:
    """Writes a row for each image, in the order of the index, a block of rows at a time.

    Columns are `path` (the file, or `SOURCE::ID` of an image inside another file), `id` (int64, the
    row), `vector` (a list of fixed size), `scale` for int8, and `captions` where the index has any.
    Vectors have unit length, so that cosine and inner product rank alike. With int8 the vector is
    `scale * vector`: it is divided by its largest absolute value / 127 and rounded to nearest.

    Args:
      index: the index.
      path: the file, from `check_target`.
      dtype: one of `DTYPES`.
      key: the flag to name in messages.

    Returns:
      Size of the file in bytes, and how many names are no UTF-8 and were written with escapes.

    Raises:
      UserError: the disk is full or cannot be written.
    """
    width = index.vectors.shape[1]
    needed = len(index) * width * np.dtype(dtype).itemsize
    with disk.write_errors(f"{key}: {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.require_space(path.parent, needed, f"{key}: the vectors need", "write another --to")
        atomic.write(path, lambda partial: _fill(index, partial, dtype))
        odd = sum(_text(entry.name) != entry.name for entry in index.entries)
        return path.stat().st_size, odd


def _fill(index: Index, path: pathlib.Path, dtype: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    width, with_captions = index.vectors.shape[1], any(entry.captions for entry in index.entries)
    fields = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("vector", pa.list_(pa.from_numpy_dtype(dtype), width), nullable=False),
    ]
    fields += [pa.field("scale", pa.float32(), nullable=False)] if dtype == "int8" else []
    fields += [pa.field("captions", pa.list_(pa.string()))] if with_captions else []
    record = index.record
    about = {"run": record.run, "identity": dict(record.identity), "dtype": dtype, "width": width}
    schema = pa.schema(fields, metadata={"ape_jax.index": json.dumps(about)})
    compression = {"path": "zstd", "id": "zstd", "captions.list.element": "zstd"}
    # Vectors do not become smaller. Parquet stores an integer of one byte in four, unless it is an
    # entry of a dictionary.
    small = ["vector.list.element"] if dtype == "int8" else False
    progress = Progress("writing the table", len(index), "images")
    with pq.ParquetWriter(
        path, schema, compression=compression, use_dictionary=small, write_statistics=["id"]
    ) as writer:
        for start, stop in _blocks(len(index), width):
            columns = _columns(index, start, stop, dtype, with_captions)
            arrays = [pa.array(columns[f.name], f.type) for f in fields if f.name != "vector"]
            flat = pa.array(np.ascontiguousarray(columns["vector"]).reshape(-1))
            arrays.insert(2, pa.FixedSizeListArray.from_arrays(flat, type=fields[2].type))
            batch = pa.record_batch(arrays, schema=schema)
            writer.write_batch(batch, row_group_size=stop - start)
            progress.update(stop)


def _blocks(count: int, width: int) -> Iterator[tuple[int, int]]:
    rows = min(max(_NUMBERS // width, 1), 2**16)
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def _columns(
    index: Index, start: int, stop: int, dtype: str, with_captions: bool
) -> dict[str, Sequence[Any] | np.ndarray]:
    entries = index.entries[start:stop]
    columns: dict[str, Any] = {
        "path": [_text(entry.name) for entry in entries],
        "id": np.arange(start, stop),
    }
    vectors = np.array(index.vectors[start:stop])
    if dtype == "int8":
        columns["vector"], columns["scale"] = _narrow(vectors)
    else:
        columns["vector"] = vectors.astype(dtype)
    if with_captions:
        columns["captions"] = [list(map(_text, entry.captions)) for entry in entries]
    return columns


def _narrow(
    vectors: Float[np.ndarray, "n e"],
) -> tuple[np.ndarray, Float[np.ndarray, " n"]]:
    """Vectors as int8 [n, e] and scales f32 [n], so that scale * int8 is near the vector."""
    scale = np.abs(vectors).max(axis=1) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def _text(text: str) -> str:
    """A name or caption as UTF-8: what is none (bytes of a file name) is written as `\\udc..`."""
    return text.encode("utf-8", "backslashreplace").decode()
