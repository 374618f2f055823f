"""CSV and TSV: a row a record, with a header or without; separators and encodings are found."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from ape_jax.data.columns import CAPTION_NAMES, IMAGE_NAMES, LABEL_NAMES, NEGATIVE_NAMES
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.tables import dialect as dialects
from ape_jax.data.formats.tables.opened import check_no_part, packed, unpacked
from ape_jax.data.formats.tables.text import TOO_LONG, damage, head_text, text_blocks
from ape_jax.data.rows import MAX_RECORD_BYTES, Ask, Broken, FileRows, Row
from ape_jax.errors import UserError

_KIND = "damaged row"
_NAMES = frozenset({*IMAGE_NAMES, *CAPTION_NAMES, *LABEL_NAMES, *NEGATIVE_NAMES, "id"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """What the rows of a file are read by.

    Attributes:
      dialect: how cells are written.
      columns: names of the columns.
      first: number of the line of the first row.
      image: index of the column of images, where cells of the first rows look like some.
      several: indices of the columns that are captions, where a file without a header has several.
    """

    dialect: dialects.Dialect
    columns: list[str]
    first: int
    image: int | None
    several: tuple[int, ...] = ()


def read_csv(path: str, ask: Ask) -> FileRows:
    """Reads a file of rows.

    Cells are separated by commas, in a `.tsv` file by tabs, or by what divides the first lines
    better; quoted cells may hold separators and line ends. In a file with tabs a quote is a
    character, unless all cells with one are quoted as pandas does.

    Args:
      path: the file, which may be compressed.
      ask: what is asked.

    Raises:
      UserError: the file cannot be read, or is no table of text.
    """
    check_no_part(path, ask)
    csv.field_size_limit(MAX_RECORD_BYTES)
    head = head_text(path, legacy=True)
    if not head.strip():
        return FileRows(rows=(), columns=(), header="1")
    layout = _layout(head, path, ask)
    columns = dict.fromkeys(layout.columns) if layout.several else layout.columns
    header = str(layout.first - 1) if layout.first > 1 else ""
    return FileRows(rows=_rows(path, ask, layout), columns=tuple(columns), header=header)


def _layout(text: str, path: str, ask: Ask) -> _Layout:
    chosen = {name for names in ask.columns.values() for name in names}

    def known(name: str) -> bool:
        # A numbered column, such as caption_2, is as usual as the one without a number.
        plain = re.sub(r"[ _-]+", "_", name.strip().lower())
        return name in chosen or plain in _NAMES or re.sub(r"[_.]?\d+$", "", plain) in _NAMES

    lines = dialects.split_lines(text)
    blank = next(i for i, line in enumerate(lines) if line.strip())
    name = unpacked(path.lower())
    tabs = name.endswith((".tsv", ".tab"))
    dialect = dialects.find_dialect(lines[blank:], tabs=tabs, known=known)
    if dialect.separator != ("\t" if tabs else ","):
        ask.say(f"{path}: cells are separated by {dialect.separator!r}")
    start = blank + dialect.skipped
    header_dialect = dialect
    if dialect.quoted is None and lines[start:] and '"' in lines[start]:
        quoted = dialects.is_quoted("".join(lines[start:]), dialect.separator)
        header_dialect = dataclasses.replace(dialect, quoted=quoted)
    rows = _sample(lines[start:], header_dialect)
    if not rows:
        return _Layout(dialect=dialect, columns=[], first=start + 1, image=None)
    names = [name.strip() for name in rows[0][1]]
    if reason := damage("".join(names)):
        raise UserError(f"{path}:{start + 1}: {reason}")
    image = _image_column([row for _, row in rows], len(names))
    if not any(map(known, names)) and image is not None and dialects.is_image_cell(names[image]):
        return _without_header([row for _, row in rows], dialect, start, path, ask)
    columns = _unique(names, known)
    return _Layout(dialect=dialect, columns=columns, first=start + 1 + rows[0][0], image=image)


def _sample(lines: Sequence[str], dialect: dialects.Dialect) -> list[tuple[int, list[str]]]:
    """The first rows that can be read, each with the number of lines up to its end."""
    reader, found = dialect.parse(lines), []
    try:
        for row in reader:
            found += [(reader.line_num, row)] if row else []
            if len(found) == 100:
                break
    except csv.Error:
        if not found and lines:  # The quotes of the header itself are wrong.
            found = [(1, lines[0].strip().split(dialect.separator))]
    return found


def _image_column(rows: Sequence[Sequence[str]], width: int) -> int | None:
    """Index of the column in which most cells look like an image's path."""
    found = [sum(len(r) > i and dialects.is_image_cell(r[i]) for r in rows) for i in range(width)]
    best = max(range(width), key=found.__getitem__, default=0)
    return best if found and found[best] else None


def _without_header(
    rows: Sequence[Sequence[str]], dialect: dialects.Dialect, start: int, path: str, ask: Ask
) -> _Layout:
    width = len(rows[0])
    image = _image_column(rows, width)
    named = None if ask.columns else dialects.name_columns(rows, ask.wanted)
    if named is None:
        ask.say(f"{path}: there is no header; columns are named by their numbers from 1")
        columns = [str(i + 1) for i in range(width)]
        return _Layout(dialect=dialect, columns=columns, first=start + 1, image=image)
    columns, said = named
    ask.say(f"{path}: there is no header; {said}")
    several = tuple(i for i, name in enumerate(columns) if name == "captions")
    return _Layout(dialect=dialect, columns=columns, first=start + 1, image=image, several=several)


def _unique(names: Sequence[str], known: Callable[[str], bool]) -> list[str]:
    """Names of columns; one that is there twice and means nothing gets a number."""
    found: list[str] = []
    for name in names:
        if name in found and not known(name):
            name = next(n for i in itertools.count(2) if (n := f"{name}_{i}") not in names)
        found.append(name)
    return found


def _rows(path: str, ask: Ask, layout: _Layout) -> Iterator[Row | Broken]:
    dialect, carried = layout.dialect, _Carried()
    blocks = text_blocks(path, ask.say, legacy=True)
    block = next(blocks, None)
    while block is not None:
        after = next(blocks, None)
        if block.too_long:
            yield Broken(str(block.line), _KIND, TOO_LONG)
        elif '"' in block.text:
            dialect = _with_quotes(dialect, block.text, path, ask)
        lines = dialects.split_lines(block.text)
        drop = max(0, layout.first - block.line)
        carried = _Carried(
            line=carried.line if carried.lines else block.line + drop,
            lines=[*carried.lines, *lines[drop:]],
            damaged=carried.damaged or block.damaged,
        )
        # A cell may go on in the next block, but not behind a line that was left out.
        more = after is not None and not after.too_long
        carried = yield from _records(carried, dialect, layout, more)
        block = after


def _with_quotes(dialect: dialects.Dialect, text: str, path: str, ask: Ask) -> dialects.Dialect:
    """Decides at the first quote what quotes are."""
    if dialect.quoted is None:
        quoted = dialects.is_quoted(text, dialect.separator)
        ask.say(
            f"{path}: cells are in quotes where they hold some, which are doubled"
            if quoted
            else f"{path}: quotes are characters of the text, and cells are not quoted"
        )
        dialect = dataclasses.replace(dialect, quoted=quoted)
    if dialect.quoted and not dialect.escape and dialects.is_escaped(text):
        ask.say(f"{path}: a backslash in front of a quote makes it a part of the text")
        dialect = dataclasses.replace(dialect, escape="\\")
    return dialect


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Carried:
    """Lines of a record that may go on in the next block."""

    line: int = 1
    lines: list[str] = dataclasses.field(default_factory=list)
    damaged: bool = False


def _records(
    given: _Carried, dialect: dialects.Dialect, layout: _Layout, more: bool
) -> Iterator[Row | Broken]:
    """Yields the rows of some lines; returns the lines of one that goes on behind them."""
    lines, start = given.lines, 0
    columns, width = layout.columns, len(layout.columns)
    while start < len(lines):
        done = start
        reader = dialect.parse(lines[start:] if start else lines)
        try:
            for row in reader:
                end = start + reader.line_num
                at = str(given.line + done)
                if end - done > 1 and (hit := _swallowed(lines[done + 1 : end], dialect, layout)):
                    yield Broken(at, _KIND, _open_quote(given.line + done + hit))
                    break
                done = end
                if given.damaged and (reason := damage("\n".join(row))):
                    yield Broken(at, _KIND, reason)
                elif len(row) == width and not layout.several:
                    if row[0] or any(row):
                        yield Row(at, dict(zip(columns, row, strict=True)))
                elif any(row):
                    yield _other_row(at, row, layout)
            else:
                return _Carried()
        except csv.Error as e:
            unfinished = str(e) == "unexpected end of data"
            if unfinished and more and sum(map(len, lines[done:])) < MAX_RECORD_BYTES:
                return dataclasses.replace(given, line=given.line + done, lines=lines[done:])
            reason = "a quote is not closed" if unfinished else str(e)
            yield Broken(
                str(given.line + done),
                _KIND,
                f"{reason}; put a cell that holds quotes in quotes and double those inside",
            )
        start = done + 1
    return _Carried()


def _other_row(at: str, row: list[str], layout: _Layout) -> Row | Broken:
    """Makes a row of cells that are not one a column; further cells may be empty."""
    columns, width = layout.columns, len(layout.columns)
    if len(row) < width or any(row[width:]):
        reason = f"found {len(row)} cells where the first line has {width}"
        return Broken(at, _KIND, f"{reason}; quote cells that hold the separator")
    fields: dict[str, object] = dict(zip(columns, row, strict=False))
    if layout.several:
        fields["captions"] = [row[i] for i in layout.several]
    return Row(at, fields)


def _open_quote(line: int) -> str:
    return (
        f"a quote opens a cell that goes on over line {line}, which looks like a row; close the "
        "quote, or put the cell in quotes and double those inside"
    )


def _swallowed(lines: Sequence[str], dialect: dialects.Dialect, layout: _Layout) -> int:
    """The first of some lines inside a cell, from 1, that looks like a row of its own, or 0."""
    width = len(layout.columns)
    plain = dataclasses.replace(dialect, quoted=False)
    for i, line in enumerate(lines[:100], 1):
        cells = next(iter(plain.parse([line])), [])
        if len(cells) < max(2, width):
            continue
        if layout.image is None:
            # No image tells a row from prose, but cells of prose begin with a space.
            if not any(cell.startswith(" ") for cell in cells):
                return i
        elif dialects.is_image_cell(cells[layout.image].strip('"')):
            return i
    return 0


CSV = PairsFormat(
    name="csv",
    spec="*.csv, *.tsv",
    suffixes=packed(".csv", ".tsv", ".tab"),
    read=read_csv,
)
