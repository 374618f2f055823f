"""Records: an image and the other fields of one row of a file, and checks of these fields.

Each format reads its files into `Record`s and knows nothing of captions and labels; `pairs` and
`labelled` read those out of the fields with the checks below, so that a number where a caption
should be is the same sentence in every format.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef

# No caption and no record of anyone's is that long; a file that claims so is something else.
MAX_RECORD_BYTES = 10 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One row of a file.

    Attributes:
      where: `file:line` (or shard and member, split and index), for messages.
      image: where the image is.
      name: the default id; for a file its path as seen from the pairs file, so that it and all that
        is derived from it is the same on another machine.
      identity: what makes two images the same image; hashable.
      fields: everything else: `caption` or `captions`, `label`, `id`.
    """

    where: str
    image: ImageRef
    name: str
    identity: Any
    fields: Mapping[str, Any]


def file_record(path: Any, fields: Mapping[str, Any], *, where: str, base: str) -> Record:
    """Makes a record whose image is a file; `path` is relative to the directory `base`."""
    if not isinstance(path, str) or not path.strip():
        raise UserError(f"{where}: 'image' is {shorten(path)}; write the path of an image file")
    absolute = os.path.normpath(os.path.join(os.path.abspath(base), path))
    name = os.path.relpath(absolute, os.path.abspath(base))
    if name.startswith(os.pardir):
        name = absolute
    ref = ImageRef(absolute, f"{where} ({printable(path)})")
    return Record(where, ref, name.replace(os.sep, "/"), absolute, fields)


def record_id(fields: Mapping[str, Any], where: str) -> str | None:
    """The explicit id among a record's fields as text, or None."""
    value = fields.get("id")
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        value = decode_text(value, where, "id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: 'id' is {shorten(value)}; write text or an integer")
    _check_unicode(value, where, "id")
    return value


def record_captions(fields: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The captions among a record's fields, stripped, in order, exact duplicates dropped.

    Raises:
      UserError: no caption, or one that is empty or not text; names file and line.
    """
    present = [n for n in ("captions", "caption") if fields.get(n) is not None]
    if len(present) == 2:
        raise UserError(f"{where}: found both 'captions' and 'caption'; write only one")
    if not present:
        null = [n for n in ("captions", "caption") if n in fields]
        found = f"{null[0]!r} is null" if null else _found_fields(fields)
        raise UserError(
            f"{where}: {found}; write 'captions' (a list of texts) or 'caption' (a text)"
        )
    value = fields[present[0]]
    if isinstance(value, str | bytes):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise UserError(
            f"{where}: {present[0]!r} is {shorten(value)}; write a text or a list of texts"
        )
    return tuple(dict.fromkeys(_caption(c, where) for c in value))


def _caption(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        value = decode_text(value, where, "caption")
    if not isinstance(value, str):
        raise UserError(f"{where}: a caption is {shorten(value)}; write text in quotes")
    value = value.strip()
    if not value:
        raise UserError(f"{where}: a caption is empty; write one or remove the record")
    _check_unicode(value, where, "caption")
    return value


def _check_unicode(value: str, where: str, what: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as e:  # JSON can spell half of a surrogate pair; tokenizers crash.
        raise UserError(f"{where}: {what} {value!r} is not valid Unicode; correct it") from e


def decode_text(value: bytes, where: str, what: str) -> str:
    """Decodes UTF-8, with or without a byte order mark.

    Raises:
      UserError: the bytes are no UTF-8; names where they are.
    """
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(
            f"{where}: the {what} is not UTF-8 text (byte {e.start}); save it as UTF-8"
        ) from e


def _found_fields(fields: Mapping[str, Any]) -> str:
    return f"found only the fields {', '.join(['image', *map(repr, fields)])}"


def printable(name: str) -> str:
    """Makes a name fit for a one-line message: quoted if it holds control characters."""
    return name if name.isprintable() else repr(name)


def shorten(value: Any) -> str:
    """Makes a value fit for a one-line message: its repr, shortened to 80 characters."""
    text = " ".join(repr(value).split())
    return f"{text[:77]}..." if len(text) > 80 else text
