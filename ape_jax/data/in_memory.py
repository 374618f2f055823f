"""Pairs that a Python program holds, written as a Parquet file that everything else reads.

Images that are in memory are stored in it as PNG, or as the bytes that they came as; images on disk
by their absolute path. The file is named by its content, so that the same pairs have the same
digest, find their cached features, and resume a run.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax import arguments
from ape_jax.config.sections import mixtures
from ape_jax.data import cells
from ape_jax.data.cells import record_captions, shorten
from ape_jax.data.columns import CAPTION_NAMES, IMAGE_NAMES, NEGATIVE_NAMES, find_column
from ape_jax.data.options import OnError, Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.places import sources
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError, path_text
from ape_jax.images import encode
from ape_jax.images.decode import ImageError
from ape_jax.images.formats import is_image_name
from ape_jax.parallel import hosts
from ape_jax.storage import atomic
from ape_jax.terminal.progress import track

_ROWS = 256  # Of a row group, and of what is encoded at a time.
_TAKES = (
    "a spec such as 'pairs.jsonl', a list of (image, caption), a pandas DataFrame, a Hugging Face "
    "Dataset or an Arrow table"
)

Row = tuple[str, Any, Any, Any]
"""What to call it in messages, its image, its captions, its negative captions or `_NO_COLUMN`."""

_NO_COLUMN = object()


def as_spec(pairs: Any, folder: Path, *, key: str, on_error: OnError = "error") -> str:
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

    Returns:
      A spec with an absolute path where it names a file.

    Raises:
      UserError: for something else, an image or caption that is none, or no rows.
    """
    if not isinstance(pairs, list | tuple) or not any(map(_is_image, pairs)):
        pairs = mixtures.text_of(pairs)
    if isinstance(pairs, str | os.PathLike):
        return sources.absolute(path_text(pairs, key) if len(os.fspath(pairs)) else "")
    return str(_write(_rows(pairs, key), folder, key, on_error))


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
    on_error = "error" if reading is None else reading.on_error
    spec = as_spec(pairs, folder, key=key, on_error=on_error)
    return open_pairs(spec, key=key, reading=reading)


def _rows(pairs: Any, key: str) -> Iterator[Row]:
    if isinstance(pairs, Mapping):
        return _of_columns(dict(pairs), key)
    if hasattr(pairs, "column_names"):  # datasets.Dataset and pyarrow.Table, by their methods.
        return _of_table(pairs, key)
    if hasattr(pairs, "columns") and hasattr(pairs, "to_dict"):  # pandas.DataFrame
        return _of_columns({name: pairs[name].tolist() for name in pairs.columns}, key)
    if isinstance(pairs, bytes | set | frozenset) or not isinstance(pairs, Iterable):
        raise UserError(f"{key}: expected {_TAKES}, found {type(pairs).__name__}")
    return _of_list(pairs, key)


def _of_list(pairs: Iterable[Any], key: str) -> Iterator[Row]:
    names = None
    for i, item in enumerate(pairs):
        negatives = _NO_COLUMN
        if isinstance(item, Mapping):  # A row, as csv.DictReader and JSON lines give it.
            names = names or _find(list(item), key)
            if missing := [name for name in names[:2] if name not in item]:
                raise UserError(f"{key}[{i}]: there is no {missing[0]!r}, which other rows have")
            negatives = item.get(names[2]) if names[2] is not None else _NO_COLUMN
            item = [item[name] for name in names[:2]]
        if isinstance(item, np.ndarray):
            item = item.tolist()
        if isinstance(item, str | bytes) or not isinstance(item, Sequence) or len(item) != 2:
            raise UserError(
                f"{key}[{i}]: expected (image, caption), found {shorten(item)}; write such as "
                "('cat.png', 'a cat') or (image, ['a cat', 'ein Kater'])"
            )
        yield f"{key}[{i}]", item[0], item[1], negatives


def _of_columns(columns: Mapping[Any, Sequence[Any]], key: str) -> Iterator[Row]:
    image, caption, negative = _find(list(columns), key)
    images, captions, *negatives = (
        list(arguments.items(columns[name], f"{key}: column {name!r}", "values"))
        for name in (image, caption, negative)
        if name is not None
    )
    for name, texts in ((caption, captions), *((negative, texts) for texts in negatives)):
        if len(images) != len(texts):
            raise UserError(
                f"{key}: the columns {image!r} and {name!r} have {len(images)} and "
                f"{len(texts)} rows; give each image its caption"
            )
    others = negatives[0] if negatives else itertools.repeat(_NO_COLUMN, len(images))
    for i, (x, text, other) in enumerate(zip(images, captions, others, strict=True)):
        yield f"{key}, row {i}", x, text, other


def _of_table(table: Any, key: str) -> Iterator[Row]:
    image, caption, negative = _find(list(table.column_names), key)
    names = [name for name in (image, caption, negative) if name is not None]
    if hasattr(table, "to_batches"):  # Arrow: not all of it as Python objects at a time.
        rows = itertools.chain.from_iterable(
            batch.to_pylist() for batch in table.select(names).to_batches(_ROWS)
        )
    else:
        rows = iter(_encoded(table.select_columns(names), image))
    for i, row in enumerate(rows):
        others = _NO_COLUMN if negative is None else row[negative]
        yield f"{key}, row {i}", row[image], row[caption], others


def _encoded(dataset: Any, column: str) -> Any:
    """A Hugging Face data set whose images stay the bytes or paths that they are stored as."""
    feature = dataset.features[column]
    if type(feature).__name__ != "Image" or not hasattr(feature, "decode"):
        return dataset
    return dataset.cast_column(column, type(feature)(decode=False))


def _find(found: list[Any], key: str) -> tuple[Any, Any, Any]:
    """The columns of images, captions and, if there is one, negative captions; says which."""
    image, caption = find_column(found, IMAGE_NAMES), find_column(found, CAPTION_NAMES)
    negative = find_column([x for x in found if x not in (image, caption)], NEGATIVE_NAMES)
    if image is None or caption is None:
        listed = ", ".join(map(repr, found[:12])) or "none"
        raise UserError(f"{key}: found the columns {listed}; name them 'image' and 'caption'")
    left = [name for name in found if name not in (image, caption, negative)]
    others = "" if negative is None else f", negative captions from {negative!r}"
    rest = f"; not read: {', '.join(map(repr, left))}" if left else ""
    if rest or others or (image, caption) not in (("image", "caption"), ("image", "captions")):
        hosts.say(f"{key}: images from {image!r}, captions from {caption!r}{others}{rest}")
    return image, caption, negative


def _write(rows: Iterator[Row], folder: Path, key: str, on_error: OnError) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields: list[tuple[str, Any]] = [("image", image), ("captions", pa.list_(pa.string()))]
    first = list(itertools.islice(rows, 1))
    if first and first[0][3] is not _NO_COLUMN:
        fields.append(("negatives", pa.list_(pa.string())))
    schema, rows = pa.schema(fields), itertools.chain(first, rows)
    folder.mkdir(parents=True, exist_ok=True)
    content, count, partial = hashlib.sha256(), 0, folder / f".pairs.{os.getpid()}.parquet"
    try:
        with pq.ParquetWriter(partial, schema, compression="none") as writer:
            for chunk in _chunks(track(_prepared(rows, on_error), f"storing {key}", None, "pairs")):
                for row in chunk:
                    _add(content, row)
                writer.write_table(pa.Table.from_pylist(chunk, schema), row_group_size=_ROWS)
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
        while chunk := list(itertools.islice(rows, _ROWS)):
            stored = pool.map(lambda row: _image(row[1], row[0], on_error), chunk)
            for (where, _, text, others), image in zip(chunk, stored, strict=True):
                row = {"image": image, "captions": _captions(_texts(text), where, on_error)}
                if others is not _NO_COLUMN:
                    row["negatives"] = _negatives(_texts(others), where)
                yield row


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
    """The captions of a row; one that is empty is "" where it may be left out."""
    if on_error == "error":
        return list(record_captions(text, where))
    found: dict[str, None] = {}
    for caption in cells.captions(text):
        if isinstance(caption, cells.Unusable) and caption.kind != "empty caption":
            raise UserError(f"{where}: {caption.reason}")
        if caption is not None:
            found[caption if isinstance(caption, str) else ""] = None
    return list(found)


def _negatives(texts: Any, where: str) -> list[str]:
    """The negative captions of a row; a null or empty cell holds none."""
    found: dict[str, None] = {}
    for text in () if texts is None else cells.captions(texts, "negatives"):
        if isinstance(text, str):
            found[text] = None
        elif text is not None and text.kind != "empty caption":
            raise UserError(f"{where}: negatives: {text.reason}")
    return list(found)


def _texts(text: Any) -> Any:
    """Captions as they are checked: arrays, as tables of lists give them, are lists."""
    return text.tolist() if hasattr(text, "tolist") else text


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(itertools.islice(rows, _ROWS)):
        yield chunk


def _add(content: Any, row: Mapping[str, Any]) -> None:
    image = row["image"]
    parts = [image["bytes"] or b"", (image["path"] or "").encode("utf-8", "surrogatepass")]
    for part in (*parts, *(text.encode() for text in row["captions"])):
        content.update(len(part).to_bytes(8, "little"))
        content.update(part)
    content.update(len(row["captions"]).to_bytes(8, "little"))
    for text in row.get("negatives", ()):
        content.update(b"negative" + len(text.encode()).to_bytes(8, "little") + text.encode())
