"""JSON: an object a line, or a document that holds a list of objects or columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.tables.json_documents import document_rows, record_row
from ape_jax.data.formats.tables.json_text import DECODER, phrase
from ape_jax.data.formats.tables.opened import check_no_part, packed
from ape_jax.data.formats.tables.text import TOO_LONG, Block, damage, head_text, text_blocks
from ape_jax.data.rows import Ask, Broken, FileRows, Row

_KIND = "damaged row"
_WRITE = 'write {"image": "cat.png", "captions": ["a cat"]}'


def read_json(path: str, ask: Ask) -> FileRows:
    """Reads objects that stand one a line, or a document.

    A document is a list of objects, an object in which one key holds such a list, columns as
    pandas' `to_json` writes them, images with their captions (`{"a.png": ["a cat"]}`), or one
    record; records may also follow each other without a list around them. Lists are read as a
    stream, so that only one record at a time is in memory.

    Args:
      path: the file, which may be compressed.
      ask: what is asked; `part` chooses one list of a document that holds several.

    Raises:
      UserError: the file cannot be read, or holds JSON in which there are no rows.
    """
    head = head_text(path, legacy=False)
    if head.strip() and not _is_lines(head):
        return FileRows(rows=document_rows(path, ask))
    check_no_part(path, ask)
    return FileRows(rows=_line_rows(path, ask))


def _is_lines(text: str) -> bool:
    """Tests whether each line is an object of its own.

    A first line may be damaged, so that the next ones are looked at where it is no list's or
    object's beginning.
    """
    lines = [line for line in itertools.islice(_lines(text), 200) if line.strip()]
    if not lines or lines[0].lstrip().startswith("["):
        return False
    whole = [_is_object(line) for line in lines[:6]]
    return len(lines) > 1 and (whole[0] or any(w for w in whole[1:]))


def _is_object(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        _, end = DECODER.raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return not line[end:].strip()


def _lines(text: str) -> list[str]:
    return text.split("\n" if "\n" in text else "\r")


def _line_rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    for block in text_blocks(path, ask.say, legacy=False):
        if block.too_long:
            yield Broken(str(block.line), _KIND, TOO_LONG)
        else:
            yield from _block_rows(block)


def _block_rows(block: Block) -> Iterator[Row | Broken]:
    decode, first, damaged = DECODER.raw_decode, block.line, block.damaged
    for number, line in enumerate(_lines(block.text), first):
        line = line.strip()
        if not line:
            continue
        if damaged and (reason := damage(line)):
            yield Broken(str(number), _KIND, reason)
            continue
        try:
            value, end = decode(line)
        except (ValueError, RecursionError) as e:
            yield Broken(str(number), _KIND, f"the line is not JSON ({phrase(e)}); {_WRITE}")
            continue
        if end != len(line) and line[end:].strip() not in ("", ","):
            yield Broken(str(number), _KIND, f"something stands behind the object; {_WRITE}")
        elif type(value) is dict:
            yield Row(str(number), value)
        else:
            yield record_row(str(number), value)


def _json(name: str, *suffixes: str) -> PairsFormat:
    return PairsFormat(
        name=name,
        spec=", ".join(f"*{s}" for s in suffixes[:2]),
        suffixes=packed(*suffixes),
        read=read_json,
    )


JSONL = _json("jsonl", ".jsonl", ".ndjson", ".jsonlines")
JSON = _json("json", ".json")
