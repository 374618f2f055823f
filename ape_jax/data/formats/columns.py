"""The columns that a table of pairs must have."""

from __future__ import annotations

from collections.abc import Sequence

from ape_jax.data.records import shorten
from ape_jax.errors import UserError

IMAGE_NAMES = (
    *("image", "images", "img", "picture", "photo", "image_path", "img_path", "image_file"),
    *("file_name", "filename", "filepath", "file_path", "path", "file", "jpg", "png"),
)
"""Usual names of the column of images, the best first."""
CAPTION_NAMES = (
    *("captions", "caption", "text", "texts", "sentence", "sentences", "title", "txt"),
    *("alt_text", "alt", "description", "descriptions"),
)
"""Usual names of the column of captions, the best first."""


def find_column(found: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is meant by one of some names, whatever its case; None where there is none.

    Example:
      >>> find_column(["ID", "File_Name", "text"], IMAGE_NAMES)
      'File_Name'
    """
    by_name = {str(column).strip().lower(): column for column in reversed(found)}
    return next((by_name[name] for name in names if name in by_name), None)


def check_columns(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Checks for `image` and one of the wanted columns.

    Args:
      found: names of the columns.
      wanted: names of which one is needed.
      where: the file, and the line of its header, for messages.

    Raises:
      UserError: a column is missing, or there twice.
    """
    doubled = [name for name in ("image", *wanted, "id") if list(found).count(name) > 1]
    if doubled:
        raise UserError(f"{where}: the column {doubled[0]!r} is there twice; remove one")
    if "image" in found and any(name in found for name in wanted):
        return
    listed = ", ".join(repr(name) for name in found[:12]) or "none"
    needed = " or ".join(repr(name) for name in wanted)
    raise UserError(
        f"{where}: found the columns {shorten(listed)[1:-1]}; name them 'image' and {needed}"
    )
