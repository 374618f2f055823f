"""Cells of Arrow columns as Python values, whatever their types; images may stay in their file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ape_jax.data.formats.tables.arrow_checks import readable
from ape_jax.data.rows import Broken, Embedded, Row
from ape_jax.errors import UserError
from ape_jax.storage import files

if TYPE_CHECKING:
    import pyarrow as pa

_KIND = "damaged row"


class _Bad:
    """Stands for a cell that cannot be converted, such as text that is not UTF-8."""


_BAD = _Bad()


class Mapped:
    """A memory-mapped file, so that cells which lie in it as they are need not be copied.

    Args:
      path: the file.

    Attributes:
      buffer: all of its bytes.
    """

    def __init__(self, path: str):
        import pyarrow as pa

        self.path = path
        files.check(path)
        with pa.memory_map(path) as file:
            self.buffer: pa.Buffer = file.read_buffer()

    def embedded(self, array: pa.Array) -> list[Embedded | None] | None:
        """The ranges of the file that the cells of a binary array are; None where they are not."""
        import numpy as np
        import pyarrow as pa

        kind = array.type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) or not len(array):
            return None
        _, ends, data = array.buffers()
        if data is None or ends is None:
            return None
        start = data.address - self.buffer.address
        if start < 0 or start + data.size > self.buffer.size:
            return None
        width = np.int32 if pa.types.is_binary(kind) else np.int64
        offsets = np.frombuffer(ends, width)[array.offset : array.offset + len(array) + 1]
        starts, sizes = (offsets[:-1].astype(np.int64) + start).tolist(), np.diff(offsets).tolist()
        there = array.is_valid().to_pylist()
        return [
            Embedded(self.path, at, size) if valid else None
            for at, size, valid in zip(starts, sizes, there, strict=True)
        ]


def batch_rows(
    batch: pa.RecordBatch,
    path: str,
    *,
    image: str,
    at: str,
    suffix: str,
    first: int,
    mapped: Mapped | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Iterator[Row | Broken]:
    """Yields the rows of a record batch.

    Args:
      batch: the columns that are read.
      path: the file, for messages.
      image: the column of images.
      at: what messages name in front of the number of a row, such as `row `.
      suffix: what ids have in front of it.
      first: number of the first row.
      mapped: the file in which the batch lies; images in it are ranges of the file.
      extra: fields that all rows have.

    Raises:
      UserError: cells are damaged.
    """
    with readable(path, "Arrow or Parquet", f"{at}{first}"):
        names, columns = batch.schema.names, []
        for name, column in zip(names, batch.columns, strict=True):
            columns.append(_image_cells(column, mapped) if name == image else _cells(column))
    extra = extra or {}
    for number, cells in enumerate(zip(*columns, strict=True), first):
        if _BAD in cells:
            bad = names[cells.index(_BAD)]
            reason = f"{bad!r} cannot be read; write it as UTF-8 text"
            yield Broken(f"{at}{number}", _KIND, reason)
        else:
            fields = {**dict(zip(names, cells, strict=True)), **extra}
            yield Row(f"{at}{number}", fields, f"{suffix}{number}")


def class_names(schema: pa.Schema, name: str) -> dict[str, Any]:
    """The field `label_names`, where Hugging Face's features name the classes of a column."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = info["info"]["features"][name]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    good = isinstance(names, list) and all(isinstance(n, str) for n in names)
    return {"label_names": names} if good and names else {}


def check_image(kind: pa.DataType, name: str, where: str) -> None:
    """Checks that a column can hold images.

    Raises:
      UserError: it holds numbers, or structs without `bytes` and `path`.
    """
    inner = _inside(kind)
    while _is_list(inner):
        inner = _inside(inner.value_type)
    if _is_struct(inner) or _is_binary(inner) or _is_text(inner):
        return
    raise UserError(
        f"{where}: the column {name!r} has the type {_short(kind)}; write paths, bytes, or a "
        "struct with 'bytes'"
    )


def _short(kind: pa.DataType) -> str:
    text = " ".join(str(kind).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _inside(kind: pa.DataType) -> pa.DataType:
    """A type without its dictionary or extension."""
    import pyarrow as pa

    while isinstance(kind, pa.DictionaryType | pa.BaseExtensionType):
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind.storage_type
    return kind


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(
        t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
        or t.is_list_view(kind) or t.is_large_list_view(kind)
    )  # fmt: skip


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(
        t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind)
        or t.is_fixed_size_binary(kind)
    )  # fmt: skip


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_struct(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return t.is_struct(kind) and max(map(kind.get_field_index, ("bytes", "path"))) >= 0


def _plain(array: pa.Array) -> pa.Array:
    """A column without dictionary, extension, run ends, and types that Python has no word for."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            array = array.storage
        elif isinstance(kind, pa.DictionaryType):
            array = array.dictionary_decode()
        elif isinstance(kind, pa.RunEndEncodedType):
            array = pc.call_function("run_end_decode", [array])
        elif t.is_float16(kind):
            return array.cast(pa.float32())
        elif t.is_temporal(kind) and not t.is_interval(kind):
            return array.cast(pa.int64() if t.is_duration(kind) else pa.string())
        elif t.is_decimal(kind):
            return array.cast(pa.string())
        else:
            return array


def _cells(array: pa.Array) -> list[Any]:
    array = _plain(array)
    try:
        return array.to_pylist()
    except ValueError:  # Text that is not UTF-8, or a date beyond Python's.
        return [_cell(scalar) for scalar in array]


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except ValueError:
        return _BAD


def _image_cells(array: pa.Array, mapped: Mapped | None) -> list[Any]:
    """The images of a column; in a list of one the image itself."""
    import pyarrow as pa

    array = _plain(array)
    if pa.types.is_null(array.type):
        return [None] * len(array)
    if mapped is None:
        return _cells(array)
    if not pa.types.is_struct(array.type):
        return mapped.embedded(array) or _cells(array)
    if array.type.get_field_index("bytes") < 0:
        return _cells(array)
    # A struct's own nulls and offset are not those of its fields.
    names = [field.name for field in array.type]
    inner = dict(zip(names, array.flatten(), strict=True))
    found = mapped.embedded(_plain(inner["bytes"]))
    if found is None or "path" not in names:
        return _cells(array) if found is None else list(found)
    paths = _cells(inner["path"])
    return [e if e is not None else p for e, p in zip(found, paths, strict=True)]
