"""A pairs format from outside the package, in one file: `IMAGE | CAPTION`, one a line."""

from __future__ import annotations

from collections.abc import Iterator

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.registry import FORMATS
from ape_jax.data.rows import Ask, Broken, FileRows, Row


def read(path: str, ask: Ask) -> FileRows:
    """Reads one file; a line without a bar is broken."""
    return FileRows(rows=_rows(path), named=True)


def _rows(path: str) -> Iterator[Row | Broken]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            image, bar, caption = line.partition(" | ")
            if bar:
                yield Row(str(number), {"image": image, "captions": caption})
            else:
                yield Broken(str(number), "damaged row", "there is no ' | '; write IMAGE | CAPTION")


TOY = PairsFormat(name="toy", spec="*.toy", suffixes=(".toy",), read=read)


def register() -> None:
    """Makes the format known; a config file calls this, or the module does when it is imported."""
    FORMATS.register(TOY)
