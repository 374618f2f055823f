"""DreamLIP's captions of CC3M, CC12M and YFCC15M, which SAIL trains on: one image, seven captions.

The columns are `Image Path` (an address, until the images are downloaded), `raw_caption` and
`shortIB_captions longIB_captions shortSV_captions longSV_captions shortLLA_captions
longLLA_captions`, which three captioners wrote.

References:
  Zheng et al., `DreamLIP <https://arxiv.org/abs/2403.17007>`_, 2024.
  Zhang et al., `SAIL <https://arxiv.org/abs/2412.04616>`_, 2024.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from ape_jax.data.formats import registry
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published import addresses
from ape_jax.data.formats.published.places import (
    first_line,
    folders,
    listed,
    only_captions,
    only_whole,
)
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields
from ape_jax.errors import UserError

_WRITTEN = re.compile(r"(short|long)[A-Za-z]+_captions?")
_RAW = "raw_caption"
_IMAGES = ("image path", "image_path", "image", "path", "url")


def read_dreamlip(path: str, ask: Ask) -> FileRows:
    """Reads a table with a column a captioner; the raw caption is taken, or what is asked for.

    Args:
      path: the table.
      ask: what is asked; `columns` may name other captions, and several.

    Raises:
      UserError: labels or a split are wanted, images are addresses, or a column is not there.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    header = _header(path)
    image = next(iter(ask.columns.get("image", ())), None) or _image(header)
    captions = ask.columns.get("captions", ()) or (_RAW,)
    if missing := [name for name in (image, *captions) if name not in header]:
        raise UserError(
            f"{path}: there is no column {missing[0]!r}, which data.columns names; found "
            f"{listed(header)}"
        )
    rows = iter(registry.FORMATS["csv"].read(path, ask).rows)
    first = next(rows, None)
    if isinstance(first, Row) and addresses.is_address(str(first.fields.get(image))):
        others = [name for name in header if name not in (image, _RAW)]
        form = "csv.gz" if path.lower().endswith(".gz") else "csv"
        addresses.refuse(path, form, image, _RAW, others=others)
    left = [name for name in header if name not in (image, *captions)]
    ask.say(
        f"{path}: images from {image!r}, captions from {listed(captions)}; not read: "
        f"{listed(left)} (data.columns={{'captions': [...]}} chooses)"
    )
    again = itertools.chain([] if first is None else [first], rows)
    return FileRows(rows=_rows(again, image, captions, ask), base=folders(path), named=True)


def is_dreamlip(path: str) -> bool:
    """Tests for a header with captions of captioners beside the raw one."""
    header = _header(path)
    return (
        _RAW in header and any(_WRITTEN.fullmatch(name) for name in header) and bool(_image(header))
    )


def _rows(
    rows: Iterable[Row | Broken], image: str, captions: Sequence[str], ask: Ask
) -> Iterator[Row | Broken]:
    for row in rows:
        if isinstance(row, Broken):
            yield row
            continue
        found = [row.fields.get(name) for name in captions]
        fields = {
            **asked_fields(row.fields, ask),
            "image": row.fields.get(image),
            "captions": found[0] if len(found) == 1 else found,
        }
        yield Row(row.at, fields)


def _header(path: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([first_line(path)]), [])]


def _image(header: Sequence[str]) -> str:
    return next((name for name in header if name.lower() in _IMAGES), "")


DREAMLIP = PairsFormat(
    name="dreamlip",
    spec="*.csv of several captioners (DreamLIP, SAIL)",
    suffixes=packed(".csv"),
    matches=is_dreamlip,
    read=read_dreamlip,
)
