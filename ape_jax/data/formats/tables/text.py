"""Text of a file in blocks of whole lines; the encoding is found, and said unless it is UTF-8."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

from ape_jax.data.formats.tables.opened import CHUNK_BYTES, chunks
from ape_jax.data.rows import MAX_RECORD_BYTES
from ape_jax.errors import UserError

Say = Callable[[str], None]

_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Bytes that are not of the encoding become these characters (PEP 383).
_STRAY = re.compile("[\udc80-\udcff]")
_STRAYS = re.compile("[\udc80-\udcff]{3,}")
_WIDE = re.compile("[^\x00-\x7f]")
_DAMAGED = re.compile("[\x00\ud800-\udfff]")


class Block(NamedTuple):
    """Whole lines of a file.

    Attributes:
      line: number of the first one, from 1.
      text: the lines with their ends.
      damaged: some hold bytes that are not text, or zero bytes (`damage` tells which).
      too_long: stands for one line above the bound, whose text is left out.
    """

    line: int
    text: str
    damaged: bool = False
    too_long: bool = False


TOO_LONG = f"the line is longer than {MAX_RECORD_BYTES} bytes; write one record a line"


def damage(text: str) -> str:
    """What is wrong with the characters of a line, as a phrase with the remedy; "" for nothing."""
    if not (found := _DAMAGED.search(text)):
        return ""
    if found[0] == "\0":
        return "the line holds a zero byte; the file is damaged, write it again"
    return f"the line is not UTF-8 text (byte {ord(found[0]) & 0xFF:#04x}); save it as UTF-8"


def unicode_of(head: bytes) -> str:
    """The encoding of a text by its byte order mark, or by zero bytes at every other place."""
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            return name
    start = head[:4096]
    even, odd = start[::2].count(0), start[1::2].count(0)
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > len(start) // 20 and not others:
            return name
    return "utf-8"


def utf8_chunks(path: str, say: Say, size: int = CHUNK_BYTES) -> Generator[bytes, None, None]:
    """The bytes of a file of text as UTF-8 without a byte order mark.

    UTF-16 and UTF-32 are rewritten; anything else is handed on as it is.
    """
    found = chunks(path, size)
    with contextlib.closing(found):
        head = next(found, b"")
        encoding = unicode_of(head)
        if encoding == "utf-8":
            yield head.removeprefix(codecs.BOM_UTF8)
            yield from found
            return
        say(f"{path}: the text is {encoding[:6].upper()}")
        decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        for number, chunk in enumerate(itertools.chain([head], found)):
            text = _decoded(decoder, chunk, path)
            yield (text if number else text.removeprefix("\ufeff")).encode(errors="surrogatepass")
        _decoded(decoder, b"", path, final=True)


def start_of(path: str, size: int = 2**16) -> str:
    """The text at the beginning of a file, without what is none; "" where it cannot be read.

    It serves a look at files of any kind: what is wrong with one is said when it is read.
    """
    try:
        with contextlib.closing(utf8_chunks(path, lambda line: None, size)) as found:
            return next(found, b"").decode(errors="ignore")
    except (UserError, OSError):
        return ""


def head_text(path: str, *, legacy: bool) -> str:
    """The whole lines in the first mebibyte of a file; see `text_blocks`."""
    with contextlib.closing(utf8_chunks(path, lambda line: None)) as found:
        head, after = next(found, b""), next(found, b"")
    if after and (cut := max(head.rfind(b"\n"), head.rfind(b"\r")) + 1):
        head = head[:cut]
    try:
        return head.decode()
    except UnicodeDecodeError as e:
        line = 1 + head.count(b"\n", 0, e.start)
        old = legacy and _legacy_encoding(path, head, e.start, line, lambda line: None) == "cp1252"
        return head.decode("cp1252" if old else "utf-8", errors="replace")


def _decoded(
    decoder: codecs.IncrementalDecoder, chunk: bytes, path: str, final: bool = False
) -> str:
    try:
        return decoder.decode(chunk, final)
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: the text is damaged ({e.reason}); save it as UTF-8") from e


def text_blocks(path: str, say: Say, *, legacy: bool) -> Iterator[Block]:
    """The lines of a file, in blocks of about a mebibyte.

    Example:
      >>> import os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "a.txt")
      >>> _ = open(path, "wb").write("Ä".encode("utf-16"))
      >>> list(text_blocks(path, lambda line: None, legacy=False))
      [Block(line=1, text='Ä', damaged=False, too_long=False)]

    Args:
      path: the file, which may be compressed.
      say: takes a line for the user about an encoding that was found.
      legacy: a file that is not UTF-8 may be Windows-1252.

    Raises:
      UserError: the file cannot be read, or is in an encoding that nothing tells.
    """
    line, encoding = 1, "utf-8" if legacy else "utf-8 only"
    for raw in _whole_lines(utf8_chunks(path, say)):
        if raw is None:
            yield Block(line, "", too_long=True)
            line += 1
            continue
        block, damaged = raw, b"\0" in raw
        try:
            text = block.decode("cp1252" if encoding == "cp1252" else "utf-8")
        except UnicodeDecodeError as e:
            if encoding == "utf-8":
                at = line + block.count(b"\n", 0, e.start)
                encoding = _legacy_encoding(path, block, e.start, at, say)
            damaged = True
            text = block.decode(
                "cp1252" if encoding == "cp1252" else "utf-8", errors="surrogateescape"
            )
        yield Block(line, text, damaged)
        line += text.count("\n") or text.count("\r")


def _whole_lines(found: Iterable[bytes]) -> Iterator[bytes | None]:
    """Cuts chunks behind line ends; a line above the bound becomes None."""
    parts: list[bytes] = []
    size, end, dropped = 0, b"", False
    for chunk in found:
        # Files of old Macs end their lines by \r alone.
        end = end or (b"\r" if b"\r" in chunk and b"\n" not in chunk else b"\n")
        cut = chunk.rfind(end) + 1
        if not cut:
            parts, size = ([], 0) if dropped else ([*parts, chunk], size + len(chunk))
            if size > MAX_RECORD_BYTES:
                parts, size, dropped = [], 0, True
            continue
        first = chunk.find(end) + 1 if dropped else 0
        if dropped:
            yield None
            dropped = False
        if block := b"".join([*parts, chunk[first:cut]]):
            yield block
        parts, size = [chunk[cut:]], len(chunk) - cut
    if dropped:
        yield None
    elif rest := b"".join(parts):
        yield rest


def _legacy_encoding(path: str, block: bytes, start: int, line: int, say: Say) -> str:
    """Decides, by all of a file, how its bytes that are not UTF-8 are meant.

    Returns:
      "cp1252", or "utf-8 only" where most of what is not ASCII is UTF-8.

    Raises:
      UserError: it is neither: words of other scripts are long runs of bytes above ASCII.
    """
    wide = stray = run = 0
    for raw in _whole_lines(utf8_chunks(path, lambda line: None)):
        text = (raw or b"").decode("utf-8", errors="surrogateescape")
        if not text.isascii():
            strays = len(_STRAY.findall(text))
            wide, stray = wide + len(_WIDE.findall(text)) - strays, stray + strays
            run += sum(map(len, _STRAYS.findall(text)))
    if stray <= 4 * wide:
        return "utf-8 only"
    if run > stray / 2:
        raise UserError(
            f"{path}:{line}: the text is not UTF-8, nor in another encoding that can be told; "
            "save it as UTF-8"
        )
    near = re.split(rb"[\s,;\t]", block[max(0, start - 20) : start])[-1]
    sample = near + re.split(rb"[\s,;\t]", block[start : start + 20])[0]
    word = sample.decode("cp1252", errors="replace")
    say(
        f"{path}:{line}: the text is not UTF-8; it is read as Windows-1252, as in {word!r}; "
        "save it as UTF-8 if that is wrong"
    )
    return "cp1252"
