"""A pairs format from outside the package, in one file: `IMAGE | CAPTION`, one a line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.registry import FORMATS
from ape_jax.data.records import Record, file_record
from ape_jax.errors import UserError


def read(path: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Reads one file.

    Raises:
      UserError: a line has no bar.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            image, bar, caption = line.partition(" | ")
            where = f"{path}:{number}"
            if not bar:
                raise UserError(f"{where}: there is no ' | '; write IMAGE | CAPTION")
            yield file_record(image, {"caption": caption}, where=where, base=os.path.dirname(path))


TOY = PairsFormat(name="toy", spec="*.toy", suffixes=(".toy",), read=read)


def register() -> None:
    """Makes the format known; a config file calls this, or the module does when it is imported."""
    FORMATS.register(TOY)
