"""From the rows of files to the rows of a table: one pass, a block at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_jax.data import cells, columns
from ape_jax.data.cells import Unusable
from ape_jax.data.columns import Columns
from ape_jax.data.rows import Ask, Broken, FileRows, Row
from ape_jax.data.table import schema
from ape_jax.data.table.block import Block
from ape_jax.data.table.image_cells import ImageCells
from ape_jax.data.table.sheet import Sheet

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 2**13  # Rows that are Python objects at a time.
_FIRST = 1024  # Rows by whose names the columns are chosen, where there is no header.
_CONTENT = 2**26  # Bytes of images that wait for their block.
_OWN = Columns(image="image", captions=("captions",), id="id", negatives=("negatives",))


class Builder:
    """Collects the rows of all files of a source.

    Args:
      folder: where what does not fit into memory is put.
      root: folder that default ids are relative to.
      ask: what is asked of the readers.
      count: takes the number of rows that were read, for progress.

    Attributes:
      rows: sheet of `schema.rows`.
      problems: sheet of `schema.problems`.
      lists: number of cells that were split as lists.
      read: number of rows that were read.
    """

    def __init__(self, folder: Path, root: str, ask: Ask, count: Callable[[int], None]):
        self.rows = Sheet(schema.rows(), folder, "rows")
        self.problems = Sheet(schema.problems(), folder, "problems")
        self.lists = self.read = 0
        self._root, self._ask, self._count = root, ask, count
        self._waiting: list[pa.RecordBatch] = []

    def add(self, number: int, file: str, read: FileRows) -> None:
        """Reads a file.

        Args:
          number: of the file in the source.
          file: its path, or a spec with a prefix.
          read: its rows.

        Raises:
          UserError: the file is damaged, or has no columns of images and captions.
        """
        bases = read.base or ((os.path.dirname(file), os.getcwd()) if os.path.isabs(file) else ())
        images = ImageCells(file, self._root, bases, self._ask.say)
        chosen = _OWN if read.named and not self._ask.columns else None
        if not read.named and read.columns is not None:
            chosen = self._choose(read.columns, f"{file}:{read.header}".rstrip(":"))
        rows = iter(read.rows)
        block = first_rows(rows)
        while block:
            if chosen is None and (named := names(block)):
                chosen = (
                    columns.defined(named, self._ask.columns, False, file, self._ask.say)
                    if read.named
                    else self._choose(named, f"{file}:{block[0].at}")
                )
            if chosen is not None:
                images.settle(image_cells(block, chosen.image))
            # Where all rows so far are broken, no columns are known yet.
            made = self._block(number, block, chosen or _OWN, images)
            # Of images that are bytes fewer rows are in memory at a time.
            each = made.content // len(block) + 1
            block = list(itertools.islice(rows, max(1, min(_BLOCK, _CONTENT // each))))

    def _choose(self, found: Sequence[str], where: str) -> Columns:
        chosen = columns.choose(found, self._ask.columns, False, where)
        usual = chosen.image == "image" and set(chosen.captions) <= {"caption", "captions"}
        if chosen.left or not usual:
            self._ask.say(f"{where}: {chosen}")
        return chosen

    def _block(
        self, number: int, block: list[Row | Broken], chosen: Columns, images: ImageCells
    ) -> Block:
        made = Block(number)
        for row in block:
            if isinstance(row, Broken):
                made.problem(row.at, row.kind, row.reason)
                continue
            self._row(row, chosen, images, made)
        self._count(len(block))
        self.read += len(block)
        if made.at:
            self.rows.append(made.batch())
        if made.problems:
            self.problems.append(made.problem_batch())
        return made

    def _row(self, row: Row, chosen: Columns, images: ImageCells, made: Block) -> None:
        fields, at = row.fields, row.at
        found: list[str] = []
        usable: list[bool] = []  # Of each caption that is written.
        missing = True
        for column in chosen.captions:
            value = fields.get(column)
            # What nearly all cells are; the rest in `cells`.
            if type(value) is str and value.isascii() and value[:1] not in "[( nN<":
                text = value.strip()
                if text:
                    found.append(text)
                    usable.append(True)
                    missing = False
                    continue
            if value is None and (len(chosen.captions) > 1 or column not in fields):
                continue
            missing = False
            for caption in cells.captions(value, column):
                if caption is None:
                    self.lists += 1
                    continue
                usable.append(isinstance(caption, str))
                if isinstance(caption, Unusable):
                    made.problem(at, caption.kind, caption.reason)
                else:
                    found.append(caption)
        if missing:
            made.problem(at, "empty caption", _no_caption(fields, chosen))
        if not found:
            return
        try:
            if chosen.image not in fields:
                listed = cells.shorten(list(fields)) if fields else "no fields"
                reason = f"there is no {chosen.image!r}, found {listed}; write the image's path"
                raise Unusable("no image", reason)
            cell = fields[chosen.image]
            image = images.plain(cell) if type(cell) is str else None
            if image is None:
                image = images(cell, row.suffix)
            key = None if chosen.id is None else cells.identifier(fields.get(chosen.id), chosen.id)
            spoken = _languages(fields, chosen.language, usable)
            domain = None if chosen.domain is None else _domain(fields, chosen.domain)
        except Unusable as e:
            made.problem(at, e.kind, e.reason)
            return
        made.add(at, image, key, found, self._negatives(row, chosen, made), spoken, domain)

    def _negatives(self, row: Row, chosen: Columns, made: Block) -> list[str]:
        """The negative captions of a row; a null or empty cell holds none."""
        found: list[str] = []
        for column in chosen.negatives:
            value = row.fields.get(column)
            if value is None:
                continue
            for text in cells.captions(value, column):
                if isinstance(text, str):
                    found.append(text)
                elif text is None:
                    self.lists += 1
                elif text.kind != "empty caption":
                    made.problem(row.at, text.kind, f"in {column!r}, {text.reason}")
        return found

    def discard(self) -> None:
        """Removes what was put on disk."""
        self.rows.discard()
        self.problems.discard()


def first_rows(rows: Iterator[Row | Broken]) -> list[Row | Broken]:
    """The first rows, fewer where they hold much."""
    block: list[Row | Broken] = []
    size = 0
    while len(block) < _FIRST and size < _CONTENT:
        row = next(rows, None)
        if row is None:
            break
        block.append(row)
        if isinstance(row, Row):
            size += sum(_size(value) for value in row.fields.values())
    return block


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return len(value) if isinstance(value, bytes | bytearray) else 0


def names(block: Sequence[Row | Broken]) -> list[str]:
    """The names of all fields, in order of first appearance."""
    rows = (row.fields for row in block if isinstance(row, Row))
    return list(dict.fromkeys(itertools.chain.from_iterable(rows)))


def image_cells(block: Sequence[Row | Broken], column: str) -> Iterable[Any]:
    """The image cells of rows, the path of a mapping."""
    rows = (row.fields.get(column) for row in block if isinstance(row, Row))
    return (value.get("path") if isinstance(value, Mapping) else value for value in rows)


def _languages(fields: Mapping[str, Any], column: str | None, usable: Sequence[bool]) -> list[str]:
    """The languages of the usable captions of a row: one for all that are written, or one of each.

    Args:
      fields: of the row.
      column: that of languages; None where they are not asked for.
      usable: whether each caption that is written can be used.
    """
    if column is None:
        return []
    value = fields.get(column)
    cell = [] if value is None else [x for x in cells.captions(value, column) if x is not None]
    if len(cell) == 1:
        cell *= len(usable)
    if not any(isinstance(name, str) for name in cell):
        found = "null or empty"
    elif len(cell) != len(usable):
        found = f"{len(cell)} names for {len(usable)} captions"
    else:
        spoken = [name for name, is_used in zip(cell, usable, strict=True) if is_used]
        names = [name for name in spoken if isinstance(name, str)]
        if len(names) == len(spoken):
            return names
        found = "null or empty for one of the captions"
    reason = f"{column!r} is {found}; write the language of the captions, or one of each"
    raise Unusable("no language", reason)


def _domain(fields: Mapping[str, Any], column: str) -> str:
    """The style or maker of a row's image."""
    value = fields.get(column)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    domain = (cells.identifier(value, column) or "").strip()
    if not domain:
        reason = f"{column!r} is null or empty; write the image's domain"
        raise Unusable("no domain", reason)
    return domain


def _no_caption(fields: Mapping[str, Any], chosen: Columns) -> str:
    if null := [name for name in chosen.captions if name in fields]:
        return f"{null[0]!r} is null; write a caption or remove the row"
    return (
        f"found only the fields {', '.join(map(repr, fields))}; write 'captions' (a list of texts) "
        "or 'caption' (a text)"
    )
