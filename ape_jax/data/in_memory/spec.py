"""Pairs that a Python program holds, written as a Parquet file that everything else reads.

Images that are in memory are stored in it as PNG, or as the bytes that they came as; images on disk
by their absolute path. The file is named by its content, so that the same pairs have the same
digest, find their cached features, and resume a run.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ape_jax.config.sections import mixtures
from ape_jax.data import cells
from ape_jax.data.in_memory.rows import BLOCK, NO_COLUMN, Row, rows_of
from ape_jax.data.options import OnError, Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.places import sources
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError, path_text
from ape_jax.images import encode
from ape_jax.images.decode import ImageError
from ape_jax.images.formats import is_image_name
from ape_jax.storage import atomic
from ape_jax.terminal.progress import track


def as_spec(
    pairs: Any,
    folder: Path,
    *,
    key: str,
    on_error: OnError = "error",
    keep: Mapping[str, str] | None = None,
) -> str:
    """The spec of pairs: their own, or that of a Parquet file which they are written to.

    Args:
      pairs: a spec or path, a list of these, or a mapping from these to weights; or pairs in
        memory: a list of (image, caption or captions) or of rows by the names of columns, a pandas
        DataFrame, a Hugging Face `Dataset`, an Arrow table, or a dictionary of columns. An image is
        a path, a PIL image, encoded bytes, a uint8 array [H, W, 3 or 4], or a dictionary of `bytes`
        and `path`.
      folder: where the file is written; made if it is needed.
      key: the argument to name in messages.
      on_error: "skip" writes rows without a caption or an image as they are, to be left out and
        counted where the pairs are opened.
      keep: names of further columns, of languages and domains, and the config key that names each.

    Returns:
      A spec with an absolute path where it names a file.

    Raises:
      UserError: for something else, an image or caption that is none, or no rows.
    """
    if not isinstance(pairs, list | tuple) or not any(map(_is_image, pairs)):
        pairs = mixtures.text_of(pairs)
    if isinstance(pairs, str | os.PathLike):
        return sources.absolute(path_text(pairs, key) if len(os.fspath(pairs)) else "")
    keep = dict(keep or {})
    return str(_write(rows_of(pairs, key, keep), folder, key, on_error, tuple(keep)))


def _is_image(value: Any) -> bool:
    return isinstance(value, str) and is_image_name(value)


def open_any(pairs: Any, folder: Path, *, key: str, reading: Reading | None = None) -> Pairs:
    """Opens pairs of any kind that `as_spec` takes; those that are open already stay as they are.

    Args:
      pairs: see `as_spec`.
      folder: of the Parquet file, which is needed no more once the pairs are open.
      key: the argument to name in messages.
      reading: what happens to rows that cannot be used; None stops at them.
    """
    if isinstance(pairs, Pairs):
        return pairs
    reading = reading or Reading()
    keep = {
        name: f"data.{role}"
        for role in ("language", "domain")
        for name in reading.columns.get(role, ())
    }
    spec = as_spec(pairs, folder, key=key, on_error=reading.on_error, keep=keep)
    return open_pairs(spec, key=key, reading=reading)


def _write(
    rows: Iterator[Row], folder: Path, key: str, on_error: OnError, keep: tuple[str, ...]
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields: list[tuple[str, Any]] = [("image", image), ("captions", pa.list_(pa.string()))]
    first = list(itertools.islice(rows, 1))
    if first and first[0].negatives is not NO_COLUMN:
        fields.append(("negatives", pa.list_(pa.string())))
    fields += [(name, pa.list_(pa.string())) for name in keep]
    schema, rows = pa.schema(fields), itertools.chain(first, rows)
    folder.mkdir(parents=True, exist_ok=True)
    content, count, partial = hashlib.sha256(), 0, folder / f".pairs.{os.getpid()}.parquet"
    try:
        with pq.ParquetWriter(partial, schema, compression="none") as writer:
            for chunk in _chunks(track(_prepared(rows, on_error), f"storing {key}", None, "pairs")):
                for row in chunk:
                    _add(content, row)
                writer.write_table(pa.Table.from_pylist(chunk, schema), row_group_size=BLOCK)
                count += len(chunk)
        if not count:
            raise UserError(f"{key}: expected at least one pair, found none")
        path = folder / f"pairs-{content.hexdigest()[:16]}.parquet"
        atomic.sync(partial)
        partial.replace(path)
        return path
    finally:
        partial.unlink(missing_ok=True)


def _prepared(rows: Iterator[Row], on_error: OnError) -> Iterator[dict[str, Any]]:
    """Checked rows as they are stored; threads compress images, which lets go of the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(rows, BLOCK)):
            stored = pool.map(lambda row: _image(row.image, row.where, on_error), chunk)
            for row, image in zip(chunk, stored, strict=True):
                captions = _captions(_texts(row.captions), row.where, on_error)
                found: dict[str, Any] = {"image": image, "captions": captions}
                if row.negatives is not NO_COLUMN:
                    found["negatives"] = _negatives(_texts(row.negatives), row.where)
                for name, value in row.kept.items():
                    found[name] = _names(_texts(value), row.where, name)
                yield found


def _image(image: Any, where: str, on_error: OnError) -> dict[str, Any]:
    """An image as it is stored; one that is missing or empty likewise, where it may be left out."""
    try:
        return encode.stored(image, where)
    except ImageError as error:
        if on_error == "error" or error.kind not in ("missing image", "empty image"):
            raise
        if isinstance(image, str | os.PathLike):
            return {"bytes": None, "path": os.path.abspath(os.fspath(image))}
        return {"bytes": b"", "path": None}


def _captions(text: Any, where: str, on_error: OnError) -> list[str]:
    """The captions of a row as often as they come, since languages are told by their places.

    One that is empty is "" where it may be left out.
    """
    found: list[str] = []
    for caption in cells.captions(text, "caption"):
        if isinstance(caption, str):
            found.append(caption)
        elif caption is not None:
            if on_error == "error" or caption.kind != "empty caption":
                raise UserError(f"{where}: {caption.reason}")
            found.append("")
    return found


def _negatives(texts: Any, where: str) -> list[str]:
    """The negative captions of a row; a null or empty cell holds none."""
    found: dict[str, None] = {}
    for text in () if texts is None else cells.captions(texts, "negatives"):
        if isinstance(text, str):
            found[text] = None
        elif text is not None and text.kind != "empty caption":
            raise UserError(f"{where}: negatives: {text.reason}")
    return list(found)


def _names(value: Any, where: str, column: str) -> list[str | None]:
    """A language or domain, or several; null in the place of each that there is not."""
    values = value if isinstance(value, list | tuple) else [value]
    try:
        return [cells.identifier(name, column) for name in values]
    except cells.Unusable as error:
        raise UserError(f"{where}: {error.reason}") from None


def _texts(text: Any) -> Any:
    """Captions as they are checked: arrays, as tables of lists give them, are lists."""
    return text.tolist() if hasattr(text, "tolist") else text


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(itertools.islice(rows, BLOCK)):
        yield chunk


def _add(content: Any, row: Mapping[str, Any]) -> None:
    image = row["image"]
    parts = [image["bytes"] or b"", (image["path"] or "").encode("utf-8", "surrogatepass")]
    for part in (*parts, *(text.encode() for text in row["captions"])):
        content.update(len(part).to_bytes(8, "little"))
        content.update(part)
    content.update(len(row["captions"]).to_bytes(8, "little"))
    for name in sorted({*row} - {"image", "captions", "negatives"}):
        content.update(json.dumps([name, row[name]]).encode())
    for text in row.get("negatives", ()):
        content.update(b"negative" + len(text.encode()).to_bytes(8, "little") + text.encode())
