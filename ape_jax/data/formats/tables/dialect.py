"""How a CSV or TSV file is written: separator, quotes, header; found in its first lines."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from ape_jax.data.rows import Wanted
from ape_jax.images.formats import is_image_name

_SEPARATORS = {",": "','", "\t": "tabs", ";": "';'", "|": "'|'"}
_SAMPLE_ROWS = 100

Known = Callable[[str], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    r"""How a file is written.

    Attributes:
      separator: of cells.
      quoted: whether a quote at the start of a cell opens it, and two stand for one; None is
        decided where the first quote stands.
      escape: a backslash where `\"` stands for a quote, else None.
      spaces: whether a space follows each separator and is no part of the cell.
      skipped: number of lines in front of the header or the first row.
    """

    separator: str
    quoted: bool | None = True
    escape: str | None = None
    spaces: bool = False
    skipped: int = 0

    def parse(self, lines: Sequence[str]) -> Any:
        """Reads lines as they are written in this dialect."""
        return csv.reader(
            lines,
            delimiter=self.separator,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            escapechar=self.escape if self.quoted else None,
            skipinitialspace=self.spaces,
            strict=True,
        )


def split_lines(text: str) -> list[str]:
    r"""Lines with their ends, which are `\n`, `\r\n` or `\r`, and no others."""
    return io.StringIO(text, newline="").readlines()


def find_dialect(lines: Sequence[str], *, tabs: bool, known: Known) -> Dialect:
    """Finds the separator and whether spaces follow it.

    A line `sep=;` in front, as Excel writes it, settles the separator. Otherwise it is the one
    that divides the most of the first rows into the number of cells of the first one.

    Args:
      lines: the first ones of the file, with their ends.
      tabs: whether the name of the file says that cells are separated by tabs.
      known: tells the usual names of columns.
    """
    told = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE | re.DOTALL) if lines else None
    rest = lines[1:] if told else lines
    default = "\t" if tabs else ","
    separator = told[1] if told else default
    if not told:
        scores = {s: _score(rest, s, known) for s in _SEPARATORS}
        best = max(scores, key=lambda s: (*scores[s], s == default))
        separator = best if any(scores[best]) else default
    first = _cells(rest[:1], separator)
    spaces = separator != "\t" and len(first) > 1 and all(c.startswith(" ") for c in first[1:])
    # Files with tabs or bars are mostly written without quotes, so that a quote is a character.
    quoted = None if separator in "\t|" else True
    return Dialect(separator=separator, quoted=quoted, spaces=spaces, skipped=1 if told else 0)


def _score(lines: Sequence[str], separator: str, known: Known) -> tuple[bool, float]:
    """How well a separator fits: it makes a header or an image of a cell, and rows of one width."""
    rows = [r for r in _rows(lines[:_SAMPLE_ROWS], separator) if r]
    if not rows or len(rows[0]) < 2:
        return False, 0.0
    clear = any(known(cell.strip()) or is_image_cell(cell) for cell in rows[0])
    return clear, sum(len(row) == len(rows[0]) for row in rows) / len(rows)


def _rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    found: list[list[str]] = []
    reader = csv.reader(lines, delimiter=separator)
    while True:
        try:
            found.append(next(reader))
        except (csv.Error, StopIteration):
            return found


def _cells(lines: Sequence[str], separator: str) -> list[str]:
    return next(iter(_rows(lines, separator)), [])


def is_image_cell(cell: str) -> bool:
    """Tests whether a cell looks like the path or address of an image file."""
    cell = cell.strip().split("?")[0]
    return 2 < len(cell) < 1000 and "\n" not in cell and is_image_name(cell)


def is_quoted(text: str, separator: str) -> bool:
    """Decides whether quotes in a text of tab- or bar-separated lines are quoting.

    They are where every cell with a quote in it is in quotes and doubles the inner ones, as pandas
    and spreadsheets write them, and something shows that it had to be: a doubled quote, a separator
    or line end in a cell, or a first line with all cells in quotes. Otherwise a quote is a
    character of a caption.

    Args:
      text: lines of the file, from the header or from the first quote on.
      separator: of cells.
    """
    s = re.escape(separator)
    cell = re.compile(rf'"([^"]*+(?:""[^"]*+)*+)"(?=[{s}\r\n]|\Z)|((?!")[^{s}\r\n]*)')
    width = max(line.count(separator) for line in text.split("\n", 20)[:20])
    at, first, shown = 0, len(text.split("\n", 1)[0].rstrip()), False
    first_quoted = True
    while at < len(text):
        found = cell.match(text, at)
        if not found:
            # The text may be cut within its last cell.
            return shown and '"' not in text[at + 1 :].replace('""', "")
        quoted, plain = found.groups()
        if plain and '"' in plain:
            return False
        if quoted is not None and ('""' in quoted or separator in quoted or "\n" in quoted):
            if any(line.count(separator) >= width for line in quoted.split("\n")[1:]):
                return False
            shown = True
        if at < first:
            first_quoted = first_quoted and quoted is not None
        at = found.end() + 1
    return shown or first_quoted


def is_escaped(text: str) -> bool:
    r"""Tests whether `\"` stands for a quote, as Spark and MySQL write CSV."""
    escaped = re.search(r'\\"[^,;\t|\r\n]', text)
    doubled = re.search(r'[^,;\t|\r\n]""', text)
    return bool(escaped) and not doubled and not re.search(r'\\[^"\\]', text)


def name_columns(rows: Sequence[Sequence[str]], wanted: Wanted) -> tuple[list[str], str] | None:
    """Names the columns of a file without a header by their content.

    Args:
      rows: the first ones.
      wanted: what is looked for beside the image.

    Returns:
      A name for each column: `image`, then `caption` (several: `captions`) or `label`, or its
      number from 1 for the others; and a phrase that says so. None where no cell of the first row
      looks like an image, or where nothing else can be taken.
    """
    width = len(rows[0])
    columns = list(itertools.zip_longest(*(r[:width] for r in rows), fillvalue=""))
    image = max(range(width), key=lambda i: sum(map(is_image_cell, columns[i])))
    others = [i for i in range(width) if i != image]
    if not is_image_cell(rows[0][image]) or not others:
        return None
    chosen = others
    if wanted == "captions" and len(others) > 1:
        words = {i: statistics.fmean(len(c.split()) for c in columns[i]) for i in others}
        chosen = [i for i in others if words[i] >= 2] or [max(others, key=lambda i: words[i])]
    elif wanted == "label":
        chosen = others[:1]
    names = [str(i + 1) for i in range(width)]
    names[image] = "image"
    name = wanted if wanted == "label" else "caption" if len(chosen) == 1 else "captions"
    for i in chosen:
        names[i] = name
    left = [str(i + 1) for i in others if i not in chosen]
    taken = " and ".join(str(i + 1) for i in chosen)
    said = f"column {image + 1} is taken as the image, {taken} as the {name}"
    return names, said + (f"; {' and '.join(left)} are left out" if left else "")
