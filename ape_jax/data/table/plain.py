"""Rows of a source with references to their images, one after the other, without a table."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ape_jax.data import columns
from ape_jax.data.cells import Unusable
from ape_jax.data.rows import Ask, Broken, Row
from ape_jax.data.table import builder, store
from ape_jax.data.table.image_cells import ImageCells
from ape_jax.data.table.problems import Problem
from ape_jax.data.table.stored import reference
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef
from ape_jax.parallel import hosts


class PlainRow(NamedTuple):
    """A row.

    Attributes:
      where: file and row, for messages.
      image: the reference.
      fields: the other cells, by the file's names.
      columns: those that were asked for, in `fields`.
    """

    where: str
    image: ImageRef
    fields: Mapping[str, Any]
    columns: Sequence[str]


def labelled_rows(
    parts: Sequence[store.Part], key: str, asked: Mapping[str, tuple[str, ...]]
) -> Iterator[PlainRow | Problem]:
    """Yields the rows of labelled images.

    Args:
      parts: files of the source.
      key: the config key to name in messages.
      asked: names of columns that the user has chosen.

    Raises:
      UserError: a file cannot be read, or has no columns of images and labels.
    """
    said: dict[str, None] = {}

    def say(line: str) -> None:
        if line not in said:
            said[line] = None
            hosts.say(line)

    ask = Ask(key=key, wanted="label", columns=asked, say=say)
    root = store.common_folder([part.file for part in parts])
    for part in parts:
        try:
            yield from _rows(part, ask, root)
        except OSError as e:
            raise UserError(f"{key}: {part.file!r} cannot be read ({e.strerror})") from e


def _rows(part: store.Part, ask: Ask, root: str) -> Iterator[PlainRow | Problem]:
    read = part.read(ask)
    rows = iter(read.rows)
    block = builder.first_rows(rows)
    names = list(read.columns or builder.names(block))
    if not names:
        yield from (
            Problem(f"{part.file}:{b.at}", b.kind, b.reason) for b in block if isinstance(b, Broken)
        )
        return
    header = read.header if read.columns is not None else block[0].at
    where = f"{part.file}:{header}".rstrip(":")
    chosen = (
        columns.defined(names, ask.columns, True, part.file, ask.say)
        if read.named
        else columns.choose(names, ask.columns, True, where)
    )
    if not read.named and (chosen.image, *chosen.captions) != ("image", "label"):
        ask.say(f"{where}: images from {chosen.image!r}, labels from {chosen.captions[0]!r}")
    own = (os.path.dirname(part.file), os.getcwd()) if os.path.isabs(part.file) else ()
    images = ImageCells(part.file, root, read.base or own, ask.say)
    images.settle(builder.image_cells(block, chosen.image))
    for row in itertools.chain(block, rows):
        at = f"{part.file}:{row.at}"
        if not isinstance(row, Row):
            yield Problem(at, row.kind, row.reason)
            continue
        try:
            if chosen.image not in row.fields:
                found = list(row.fields)
                raise Unusable("no image", f"there is no {chosen.image!r}, found {found}")
            cell = images(row.fields[chosen.image], row.suffix)
        except Unusable as e:
            yield Problem(at, e.kind, e.reason)
            continue
        content = cell.content or b""
        ref = reference(
            part.file, row.at, cell.path, cell.offset, cell.size, lambda content=content: content,
            cell.number, part.reader,
        )  # fmt: skip
        yield PlainRow(at, ref, row.fields, chosen.captions)
