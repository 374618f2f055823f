"""Bytes of a file of text, decompressed within bounds; what is another kind of file is refused."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import Ask, FileRows
from ape_jax.errors import UserError
from ape_jax.storage import packed as compressed

CHUNK_BYTES = 1 << 20
# Tables of text shrink by ten to a hundred; what grows by more, and to over this, is an attack.
MAX_GROWTH = 1000
FREE_BYTES = 1 << 30

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
"""Endings of compressed files; they are recognised by their first bytes."""


def packed(*suffixes: str) -> tuple[str, ...]:
    """Suffixes of files of text, with those of their compressed forms.

    Example:
      >>> packed(".csv")
      ('.csv', '.csv.gz', '.csv.zst', '.csv.bz2', '.csv.xz')
    """
    return tuple(suffix + ending for suffix in suffixes for ending in ("", *COMPRESSED))


def unpacked(name: str) -> str:
    """A file's name without the ending of its compression."""
    ending = next((ending for ending in COMPRESSED if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV UTF-8",
    b"PAR1": "a Parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    b"\x89PNG": "a PNG image; write the file of pairs here",
    b"\xff\xd8\xff": "a JPEG image; write the file of pairs here",
    b"%PDF": "a PDF document; write the file of pairs here",
    b"\x80\x04": "a Python pickle, which is never loaded; write it as JSON lines",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"<!doctype html": "a web page and not the file that was to be downloaded; download it again",
    b"<html": "a web page and not the file that was to be downloaded; download it again",
    b"<?xml": "an XML document; write it as JSON lines",
    b"version https://git-lfs": "a Git LFS pointer and not the file itself; run git lfs pull",
}


def check_no_part(path: str, ask: Ask) -> None:
    """Refuses a part, as in `pairs.csv:train`, of a file that has none.

    Raises:
      UserError: one is asked for.
    """
    if ask.part:
        raise UserError(f"{path}: it is one table and has no part {ask.part!r}; leave it out")


def chunks(path: str, size: int = CHUNK_BYTES) -> Generator[bytes, None, None]:
    """The bytes of a file, decompressed where it is gzip, zstd, bzip2 or xz, in chunks.

    Args:
      path: the file.
      size: bytes of each chunk but the last.

    Raises:
      UserError: the file cannot be read, is damaged, grows to over a thousand times its size, or
        is of another kind, such as a spreadsheet or a web page.
    """
    total = 0
    with compressed.opened(path) as stream:
        held = os.path.getsize(path)
        while chunk := _read(stream, size, path):
            if not total:
                _check_kind(chunk, path)
            total += len(chunk)
            if total > FREE_BYTES and total > MAX_GROWTH * held:
                raise UserError(
                    f"{path}: {held} bytes decompress to over {total}; that is no table of "
                    "text: compress it again from the original"
                )
            yield chunk


def _read(stream: Any, size: int, path: str) -> bytes:
    """Reads so many bytes, fewer only at the end of the file."""
    try:
        found: bytes = stream.read(size)
        while 0 < len(found) < size and (more := stream.read(size - len(found))):
            found += more
        return found
    except compressed.DAMAGED as e:
        reason = " ".join(str(e).split())[:120]
        raise UserError(
            f"{path}: the file cannot be decompressed or read ({reason}); copy it again"
        ) from e


def _check_kind(head: bytes, path: str) -> None:
    start = head[:64].lstrip().lower()
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic) or start.startswith(magic.lower()):
            raise UserError(f"{path}: this is {kind}")


def read_spreadsheet(path: str, ask: Ask) -> FileRows:
    """Refuses a spreadsheet, of sheets, formulas and dates that are numbers; says how to save it.

    Raises:
      UserError: always.
    """
    raise UserError(
        f"{path}: spreadsheets are not read; save the sheet as CSV UTF-8 (Save As in Excel and "
        'LibreOffice), or pandas.read_excel(FILE).to_csv("pairs.csv", index=False)'
    )


SPREADSHEET = PairsFormat(
    name="spreadsheet",
    spec="*.xlsx (says how to save it)",
    suffixes=(".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"),
    read=read_spreadsheet,
)
