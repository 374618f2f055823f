"""Rows of pairs that a Python program holds: lists, columns, tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ape_jax import arguments
from ape_jax.data.cells import shorten
from ape_jax.data.columns import CAPTION_NAMES, IMAGE_NAMES, NEGATIVE_NAMES, find_column
from ape_jax.errors import UserError
from ape_jax.parallel import hosts

BLOCK = 256
"""Rows that are Python objects at a time."""

NO_COLUMN = object()
"""In the place of negative captions where there is no column of them."""

_TAKES = (
    "a spec such as 'pairs.jsonl', a list of (image, caption), a pandas DataFrame, a Hugging Face "
    "Dataset or an Arrow table"
)
_STORED = ("image", "captions", "negatives")  # Names of what is always written.


class Row(NamedTuple):
    """One row, as it was given.

    Attributes:
      where: what to call it in messages.
      image: its image.
      captions: its captions.
      negatives: its negative captions, or `NO_COLUMN`.
      kept: further columns, by name.
    """

    where: str
    image: Any
    captions: Any
    negatives: Any = NO_COLUMN
    kept: Mapping[str, Any] = {}


class _Columns(NamedTuple):
    """Names of the columns that are read."""

    image: Any
    captions: Any
    negatives: Any
    kept: tuple[str, ...]

    @property
    def all(self) -> list[Any]:
        """All of them, each once."""
        own = [name for name in self[:3] if name is not None]
        return [*own, *self.kept]

    def row(self, where: str, cells: Mapping[Any, Any]) -> Row:
        """A row out of its cells."""
        negatives = NO_COLUMN if self.negatives is None else cells.get(self.negatives)
        kept = {name: cells.get(name) for name in self.kept}
        return Row(where, cells[self.image], cells[self.captions], negatives, kept)


def rows_of(pairs: Any, key: str, keep: Mapping[str, str]) -> Iterator[Row]:
    """Yields the rows of pairs in memory.

    Args:
      pairs: see `spec.as_spec`.
      key: the argument to name in messages.
      keep: names of further columns, and the config key that names each.

    Raises:
      UserError: for something else, or columns that are missing or of different lengths.
    """
    if isinstance(pairs, Mapping):
        return _of_columns(dict(pairs), key, keep)
    if hasattr(pairs, "column_names"):  # datasets.Dataset and pyarrow.Table, by their methods.
        return _of_table(pairs, key, keep)
    if hasattr(pairs, "columns") and hasattr(pairs, "to_dict"):  # pandas.DataFrame
        return _of_columns({name: pairs[name].tolist() for name in pairs.columns}, key, keep)
    if isinstance(pairs, bytes | set | frozenset) or not isinstance(pairs, Iterable):
        raise UserError(f"{key}: expected {_TAKES}, found {type(pairs).__name__}")
    return _of_list(pairs, key, keep)


def _of_list(pairs: Iterable[Any], key: str, keep: Mapping[str, str]) -> Iterator[Row]:
    names = None
    for i, item in enumerate(pairs):
        where = f"{key}[{i}]"
        if isinstance(item, Mapping):  # A row, as csv.DictReader and JSON lines give it.
            names = names or _find(list(item), key, keep)
            if missing := [name for name in names[:2] if name not in item]:
                raise UserError(f"{where}: there is no {missing[0]!r}, which other rows have")
            yield names.row(where, item)
            continue
        if isinstance(item, np.ndarray):
            item = item.tolist()
        if isinstance(item, str | bytes) or not isinstance(item, Sequence) or len(item) != 2:
            raise UserError(
                f"{where}: expected (image, caption), found {shorten(item)}; write such as "
                "('cat.png', 'a cat') or (image, ['a cat', 'ein Kater'])"
            )
        if keep:
            name, by = next(iter(keep.items()))
            raise UserError(
                f"{where}: an (image, caption) has no column {name!r}, which {by} names; give a "
                "table, or rows by the names of columns"
            )
        yield Row(where, item[0], item[1])


def _of_columns(
    columns: Mapping[Any, Sequence[Any]], key: str, keep: Mapping[str, str]
) -> Iterator[Row]:
    names = _find(list(columns), key, keep)
    found = {
        name: list(arguments.items(columns[name], f"{key}: column {name!r}", "values"))
        for name in names.all
    }
    images = found[names.image]
    for name in names.all[1:]:
        if len(images) != len(found[name]):
            raise UserError(
                f"{key}: the columns {names.image!r} and {name!r} have {len(images)} and "
                f"{len(found[name])} rows; give each image its caption"
            )
    for i, cells in enumerate(zip(*found.values(), strict=True)):
        yield names.row(f"{key}, row {i}", dict(zip(found, cells, strict=True)))


def _of_table(table: Any, key: str, keep: Mapping[str, str]) -> Iterator[Row]:
    names = _find(list(table.column_names), key, keep)
    if hasattr(table, "to_batches"):  # Arrow: not all of it as Python objects at a time.
        rows = itertools.chain.from_iterable(
            batch.to_pylist() for batch in table.select(names.all).to_batches(BLOCK)
        )
    else:
        rows = iter(_encoded(table.select_columns(names.all), names.image))
    for i, row in enumerate(rows):
        yield names.row(f"{key}, row {i}", row)


def _encoded(dataset: Any, column: str) -> Any:
    """A Hugging Face data set whose images stay the bytes or paths that they are stored as."""
    feature = dataset.features[column]
    if type(feature).__name__ != "Image" or not hasattr(feature, "decode"):
        return dataset
    return dataset.cast_column(column, type(feature)(decode=False))


def _find(found: list[Any], key: str, keep: Mapping[str, str]) -> _Columns:
    """The columns of images, captions and, if there is one, negative captions; says which."""
    image, caption = find_column(found, IMAGE_NAMES), find_column(found, CAPTION_NAMES)
    negative = find_column([x for x in found if x not in (image, caption)], NEGATIVE_NAMES)
    listed = ", ".join(map(repr, found[:12])) or "none"
    if image is None or caption is None:
        raise UserError(f"{key}: found the columns {listed}; name them 'image' and 'caption'")
    for name, by in keep.items():
        if name not in found:
            raise UserError(f"{key}: there is no column {name!r}, which {by} names; found {listed}")
        if name in (*_STORED, image, caption, negative):
            raise UserError(
                f"{key}: the column {name!r}, which {by} names, is images or captions; name another"
            )
    read = (image, caption, negative, *keep)
    left = [name for name in found if name not in read]
    others = "" if negative is None else f", negative captions from {negative!r}"
    others += "".join(f", {by.partition('.')[2]} from {name!r}" for name, by in keep.items())
    rest = f"; not read: {', '.join(map(repr, left))}" if left else ""
    if rest or others or (image, caption) not in (("image", "caption"), ("image", "captions")):
        hosts.say(f"{key}: images from {image!r}, captions from {caption!r}{others}{rest}")
    return _Columns(image, caption, negative, tuple(keep))
