"""MedICaT, figures of medical papers: JSON lines of `pdf_hash`, `fig_uri` and `s2_caption`.

The image is `figures/PDF_HASH_FIG_URI`.

Reference: Subramanian et al., `MedICaT: A Dataset of Medical Images, Captions, and Textual
References <https://arxiv.org/abs/2010.06000>`_, 2020; https://github.com/allenai/medicat.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ape_jax.data.cells import shorten
from ape_jax.data.formats import registry
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.places import first_line, folders, only_captions, only_whole
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields

_CAPTIONS = ("s2_caption", "s2orc_caption")


def read_medicat(path: str, ask: Ask) -> FileRows:
    """Reads figures and their captions, a row a figure.

    Args:
      path: the file of JSON lines; images lie in `figures/` beside it.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted, or a line is not JSON.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    ask.say(f"{path}: captions from 's2_caption', or 's2orc_caption' where it is empty")
    return FileRows(rows=_rows(path, ask), base=folders(path, "figures"), named=True)


def is_medicat(path: str) -> bool:
    """Tests for a first line with the hash of a paper and the name of a figure."""
    try:
        first = json.loads(first_line(path) or "0")
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"pdf_hash", "fig_uri"} <= set(first)


def _rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    for row in registry.FORMATS["jsonl"].read(path, ask).rows:
        if isinstance(row, Broken):
            yield row
            continue
        parts = [row.fields.get(name) for name in ("pdf_hash", "fig_uri")]
        if not all(isinstance(part, str) and part for part in parts):
            reason = f"found {shorten(parts)}; write 'pdf_hash' and 'fig_uri'"
            yield Broken(row.at, "no image", reason)
            continue
        fields = {"image": "_".join(map(str, parts)), "captions": _caption(row)}
        yield Row(row.at, {**asked_fields(row.fields, ask), **fields})


def _caption(row: Row) -> Any:
    found = [row.fields.get(name) for name in _CAPTIONS]
    return next((caption for caption in found if caption), found[0])


MEDICAT = PairsFormat(
    name="medicat",
    spec="*.jsonl (MedICaT)",
    suffixes=packed(".jsonl"),
    matches=is_medicat,
    read=read_medicat,
)
