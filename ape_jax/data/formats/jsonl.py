"""JSON lines: `{"image": "cat.png", "captions": ["a cat", ...], "id": optional}`, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import MAX_RECORD_BYTES, Ask, Broken, FileRows, Row

_ADVICE = 'write {"image": "cat.png", "captions": ["a cat"]}'


def read_jsonl(path: str, ask: Ask) -> FileRows:
    """Reads one file; blank lines and a byte order mark are allowed.

    Rows that are not UTF-8, not JSON, not an object or longer than 10 MiB are broken.
    """
    return FileRows(rows=_rows(path))


def _rows(path: str) -> Iterator[Row | Broken]:
    with open(path, "rb") as f:
        number = 0
        # Bounded reads: a file without line ends must not be read whole before it is refused.
        while line := f.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                reason = f"the line is longer than {MAX_RECORD_BYTES} bytes; write an object a line"
                yield Broken(str(number), "damaged row", reason)
                while line and not line.endswith(b"\n"):
                    line = f.readline(MAX_RECORD_BYTES)
            elif line.strip():
                yield _row(str(number), line)


def _row(at: str, line: bytes) -> Row | Broken:
    try:
        fields: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        reason = f"the line is not UTF-8 text (byte {e.start}); save it as UTF-8"
        return Broken(at, "not UTF-8", reason)
    except (ValueError, RecursionError) as e:
        reason = f"the line is not JSON ({' '.join(str(e).split())}); {_ADVICE}"
        return Broken(at, "damaged row", reason)
    if isinstance(fields, dict):
        return Row(at, fields)
    reason = f"found {shorten(fields)} instead of a JSON object; {_ADVICE}"
    return Broken(at, "damaged row", reason)


JSONL = PairsFormat(name="jsonl", spec="*.jsonl", suffixes=(".jsonl",), read=read_jsonl)
