"""Arrow files: `.arrow`, `.feather`, and the folders that Hugging Face's `save_to_disk` writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ape_jax.data import columns
from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.tables import arrow_checks
from ape_jax.data.formats.tables.arrow_cells import Mapped, batch_rows, check_image, class_names
from ape_jax.data.formats.tables.arrow_checks import readable, unreadable
from ape_jax.data.formats.tables.opened import check_no_part
from ape_jax.data.rows import Ask, Broken, FileRows, Row
from ape_jax.data.table import store
from ape_jax.errors import UserError
from ape_jax.storage.files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def read_arrow(path: str, ask: Ask) -> FileRows:
    """Reads an Arrow file, or stream in a file; images that are not compressed stay where they are.

    Args:
      path: the file.
      ask: what is asked.

    Raises:
      UserError: the file is no Arrow file, is damaged, decodes to over a thousand times its size,
        or its images are of a type that holds none.
    """
    check_no_part(path, ask)
    return FileRows(rows=file_rows([path], ask, at="row ", suffix=":"), columns=_names(path))


def _opened(path: str, mapped: Mapped) -> Any:
    import pyarrow as pa

    start = mapped.buffer.slice(0, 6).to_pybytes() if mapped.buffer.size >= 6 else b""
    if start.startswith(b"FEA1"):
        raise unreadable(path, "Arrow", "it is Feather of version 1, which pandas 1 wrote")
    source = pa.BufferReader(mapped.buffer)
    return pa.ipc.open_file(source) if start == b"ARROW1" else pa.ipc.open_stream(source)


def _names(path: str) -> list[str]:
    with readable(path, "Arrow"):
        return list(_opened(path, Mapped(path)).schema.names)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if not hasattr(reader, "num_record_batches"):
        yield from reader
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def file_rows(paths: Sequence[str], ask: Ask, *, at: str, suffix: str) -> Iterator[Row | Broken]:
    """Yields the rows of Arrow files that are parts of one table.

    Args:
      paths: the files.
      ask: what is asked.
      at: what messages name in front of the number of a row.
      suffix: what ids have in front of it.

    Raises:
      UserError: as for `read_arrow`.
    """
    first = 0
    for path in paths:
        mapped = Mapped(path)
        arrow_checks.check_ipc(mapped.buffer, path)
        with readable(path, "Arrow"):
            reader = _opened(path, mapped)
            schema = reader.schema
            names = list(schema.names)
        chosen = columns.choose(names, ask.columns, ask.wanted == "label", path)
        check_image(schema.field(chosen.image).type, chosen.image, path)
        read = chosen.read
        extra = class_names(schema, chosen.captions[0]) if ask.wanted == "label" else {}
        batches = _batches(reader)
        while True:
            with readable(path, "Arrow", f"{at}{first}"):
                batch = next(batches, None)
                if batch is None:
                    break
                batch = batch.select(read)
                _validate(batch)
            for start in range(0, batch.num_rows, arrow_checks.BATCH_ROWS):
                yield from batch_rows(
                    batch.slice(start, arrow_checks.BATCH_ROWS), path, image=chosen.image, at=at,
                    suffix=suffix, first=first + start, mapped=mapped, extra=extra,
                )  # fmt: skip
            first += batch.num_rows


def _validate(batch: pa.RecordBatch) -> None:
    """Checks that no offset leads out of the file, which would end the process."""
    import pyarrow as pa

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as e:
            if "UTF8" not in str(e):  # Said for each row.
                raise


def is_saved(path: str) -> bool:
    """Tests whether a folder was written by `save_to_disk` of Hugging Face's `datasets`."""
    return any(os.path.isfile(os.path.join(path, name)) for name in (_STATE, _SPLITS))


def read_saved(path: str, ask: Ask) -> FileRows:
    """Reads a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Args:
      path: the folder.
      ask: what is asked; `part` names one split, "" reads all.

    Raises:
      UserError: a file of it is missing or damaged, or there is no such split.
    """
    splits = _splits(path, ask)
    files = {split: _files(os.path.join(path, split), ask) for split in splits}
    paths = [file for found in files.values() for file in found]
    if not paths:
        return FileRows(rows=())
    return FileRows(rows=_saved_rows(files, ask), columns=_names(paths[0]))


def _saved_rows(files: dict[str, list[str]], ask: Ask) -> Iterator[Row | Broken]:
    for split, paths in files.items():
        at = f"{split} row " if split else "row "
        yield from file_rows(paths, ask, at=at, suffix=f":{split}/" if split else ":")


def _splits(path: str, ask: Ask) -> list[str]:
    if not os.path.isfile(os.path.join(path, _SPLITS)):
        if ask.part:
            raise UserError(f"{path}: it has no splits; leave ':{ask.part}' out")
        return [""]
    found = _json(os.path.join(path, _SPLITS)).get("splits")
    listed = found if isinstance(found, list) else []
    splits = [s for s in listed if isinstance(s, str) and os.path.basename(s) == s]
    if ask.part:
        if ask.part not in splits:
            raise UserError(
                f"{path}: there is no split {ask.part!r}; write one of {shorten(splits)}"
            )
        return [ask.part]
    if len(splits) > 1:
        ask.say(f"{path}: the splits {shorten(splits)} are all read; write {path}:NAME for one")
    return splits


def _files(folder: str, ask: Ask) -> list[str]:
    state = _json(os.path.join(folder, _STATE))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"{folder}: rows are chosen by a table of indices, as datasets 1 wrote it; load it and "
            "save it again"
        )
    listed = state.get("_data_files")
    parts = listed if isinstance(listed, list) else [listed]
    found = [part.get("filename") if isinstance(part, dict) else None for part in parts]
    names = [n for n in found if isinstance(n, str) and os.path.basename(n) == n]
    if len(names) != len(found):
        raise UserError(f"{folder}: {_STATE} names no files of this folder; save it again")
    paths = [os.path.join(folder, name) for name in names]
    if missing := [p for p in paths if not os.path.isfile(p)]:
        raise UserError(f"{missing[0]}: the file is missing; copy the whole folder again")
    return paths


def _json(path: str) -> dict[str, Any]:
    try:
        return read_json(path, most=2**24)
    except FileNotFoundError as e:
        raise UserError(f"{path}: the file is missing; save the folder again") from e
    except UserError as e:
        raise UserError(f"{e}; save the folder again") from e


ARROW = PairsFormat(
    name="arrow", spec="*.arrow", suffixes=(".arrow", ".feather", ".ipc"), read=read_arrow
)
SAVED = PairsFormat(
    name="saved",
    spec="FOLDER[:SPLIT] of save_to_disk",
    suffixes=("/",),
    matches=is_saved,
    read=read_saved,
    stamp=store.stamp_below,
)
