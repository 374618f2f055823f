"""JSON lines: `{"image": "cat.png", "captions": ["a cat", ...], "id": optional}`, one a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.records import MAX_RECORD_BYTES, Record, decode_text, file_record, shorten
from ape_jax.errors import UserError


def read_jsonl(path: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Reads one file; blank lines and a byte order mark are allowed.

    Args:
      path: the file; image paths in it are relative to its directory.
      wanted, key: not used: messages name file and line.

    Raises:
      UserError: a line is not UTF-8, not JSON, not an object, longer than 10 MiB, or without an
        `image`.
    """
    base = os.path.dirname(path)
    with open(path, "rb") as f:
        number = 0
        # Bounded reads: a file without line ends must not be read whole before it is refused.
        while line := f.readline(MAX_RECORD_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_RECORD_BYTES:
                raise UserError(
                    f"{where}: the line is longer than {MAX_RECORD_BYTES} bytes; "
                    "write one JSON object a line"
                )
            text = decode_text(line, where, "line").strip()
            if text:
                fields = _parse(text, where)
                image = fields.pop("image")
                yield file_record(image, fields, where=where, base=base)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UserError(
            f"{where}: the line is not JSON ({' '.join(str(e).split())}); "
            'write {"image": "cat.png", "captions": ["a cat"]}'
        ) from e
    if not isinstance(fields, dict):
        raise UserError(
            f"{where}: found {shorten(fields)} instead of a JSON object; "
            'write {"image": "cat.png", "captions": ["a cat"]}'
        )
    if "image" not in fields:
        found = shorten(sorted(fields)) if fields else "no fields"
        raise UserError(f"{where}: there is no 'image', found {found}; write the image's path")
    return fields


JSONL = PairsFormat(name="jsonl", spec="*.jsonl", suffixes=(".jsonl",), read=read_jsonl)
