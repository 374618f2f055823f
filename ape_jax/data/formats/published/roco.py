"""ROCO, radiology images of publications, and ROCOv2.

* `captions.txt`: `ROCO_00002<TAB>caption`.
* `traindata.csv`: `id,name,caption`; images are named by one of the two.
* `train_captions.csv` of ROCOv2: `ID,Caption`.

References:
  Pelka et al., `Radiology Objects in COntext (ROCO)
  <https://doi.org/10.1007/978-3-030-01364-6_20>`_, 2018; https://github.com/razorx89/roco-dataset.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from ape_jax.data.cells import shorten
from ape_jax.data.formats import registry
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.places import (
    first_line,
    folders,
    lines,
    only_captions,
    only_whole,
)
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.formats.tables.text import start_of
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields

_LINE = re.compile(r"(?P<image>ROCO\w*_\d+)\s*\t(?P<caption>.*)")
_TABLES = (("id", "name", "caption"), ("id", "caption"))
_FOLDERS = ("train", "valid", "validation", "test", "train_images", "valid_images", "test_images")


def read_roco(path: str, ask: Ask) -> FileRows:
    """Reads `captions.txt`, a row an image.

    Args:
      path: the file; images are ID.jpg in `images/` beside it.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    return FileRows(rows=_lines(path, ask), base=folders(path, *_FOLDERS), named=True)


def read_roco_table(path: str, ask: Ask) -> FileRows:
    """Reads a table of ids and captions, a row an image.

    Args:
      path: the table; images are called by `name` or ID.jpg, whichever the first image is.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    base = folders(path, *_FOLDERS)
    rows = iter(registry.FORMATS["csv"].read(path, ask).rows)
    first = next(rows, None)
    fields = _lower(first) if isinstance(first, Row) else {}
    name = str(fields.get("name") or "").strip()
    by_name = bool(name) and any(os.path.exists(os.path.join(folder, name)) for folder in base)
    ask.say(f"{path}: images are called by {'name' if by_name else 'id, with .jpg'}")
    again = itertools.chain([] if first is None else [first], rows)
    return FileRows(rows=_table(again, by_name, ask), base=base, named=True)


def is_roco(path: str) -> bool:
    """Tests for a first line with an id of ROCO."""
    return _LINE.fullmatch(first_line(path)) is not None


def is_roco_table(path: str) -> bool:
    """Tests for the header of a table of ROCO, and for an id of ROCO below it."""
    header = _cells(first_line(path))
    if tuple(name.strip().lower() for name in header) not in _TABLES:
        return False
    second = start_of(path).strip().splitlines()[1:2]
    return bool(second) and second[0].lstrip('"').startswith("ROCO")


def _lines(path: str, ask: Ask) -> Iterator[Row | Broken]:
    for line in lines(path, ask.say):
        if isinstance(line, Broken):
            yield line
            continue
        match = _LINE.fullmatch(line[1])
        if match is None:
            reason = f"found {shorten(line[1])}; write the id, a tab and the caption"
            yield Broken(str(line[0]), "damaged row", reason)
        else:
            fields = {"image": f"{match['image']}.jpg", "captions": match["caption"]}
            yield Row(str(line[0]), fields)


def _table(rows: Iterable[Row | Broken], by_name: bool, ask: Ask) -> Iterator[Row | Broken]:
    for row in rows:
        if isinstance(row, Broken):
            yield row
            continue
        fields = _lower(row)
        name = fields.get("name" if by_name else "id") or ""
        name = name if by_name or os.path.splitext(name)[1] or not name else f"{name}.jpg"
        asked = asked_fields(row.fields, ask)
        yield Row(row.at, {**asked, "image": name, "captions": fields.get("caption")})


def _lower(row: Row) -> dict[str, str]:
    return {str(name).strip().lower(): value for name, value in row.fields.items()}


def _cells(line: str) -> Sequence[str]:
    return next(csv.reader([line]), [])


ROCO = PairsFormat(
    name="roco",
    spec="captions.txt (ROCO)",
    suffixes=packed(".txt"),
    matches=is_roco,
    read=read_roco,
)
ROCO_TABLE = PairsFormat(
    name="roco_table",
    spec="*.csv (ROCO)",
    suffixes=packed(".csv"),
    matches=is_roco_table,
    read=read_roco_table,
)
