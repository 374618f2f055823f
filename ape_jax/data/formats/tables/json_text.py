"""JSON values of a text, one after the other, without holding more than one of them."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from ape_jax.data.rows import MAX_RECORD_BYTES

# Where a text is cut, the error stands so near to its end: within a number, a name or an escape.
_NEAR_END = 16
_NEXT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=[^\s\]])")  # To the next item of a list.
_MARK = re.compile(r"[^ \t\r\n]")


class Doubled(dict[str, Any]):
    """An object in which a key is there twice, so that one of its values is lost."""

    key: str = ""


class DamagedJson(Exception):
    """A value cannot be read; the message is a phrase, `line` its line."""

    def __init__(self, reason: str, line: int):
        super().__init__(reason)
        self.line = line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled, seen = Doubled(found), set()
    for key, _ in pairs:
        if key in seen:
            doubled.key = key
        seen.add(key)
    return doubled


DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Decodes JSON; NaN and Infinity are numbers, as Python and pandas write them."""


def phrase(error: Exception) -> str:
    """What is wrong with a JSON text, for people."""
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deep"
    return " ".join(str(error).split())[:160]


_OPENING = ("{", '"')  # Of most values, in front of which there is no space to be skipped.
_NAMES = ("true", "false", "null", "NaN", "Infinity", "-Infinity")


def _is_begun(error: json.JSONDecodeError) -> bool:
    """Tests whether what cannot be read is the beginning of something."""
    rest = error.doc[error.pos :].rstrip()
    return error.msg.startswith(("Unterminated", "Invalid \\")) or any(
        name.startswith(rest) for name in _NAMES
    )


class JsonText:
    """Reads values and the marks between them from chunks of a UTF-8 text.

    Attributes:
      size: number of characters read so far.
    """

    def __init__(self, chunks: Iterator[bytes]):
        self.size = 0
        self._line, self._counted = 1, 0  # The line of the place up to which lines are counted.
        self._chunks = chunks
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0

    @property
    def line(self) -> int:
        """Number of the line that has been reached, from 1."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _more(self) -> bool:
        """Reads a chunk behind what is not used up yet; False at the end of the text."""
        at_line = self.line
        chunk = next(self._chunks, b"")
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as e:
            line = at_line + self._text.count("\n", self._at) + e.object.count(b"\n", 0, e.start)
            raise DamagedJson("the text is not UTF-8; save it as UTF-8", line) from e
        self.size += len(text)
        self._text, self._at, self._counted = self._text[self._at :] + text, 0, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no space, "" at the end of the text."""
        while True:
            found = _MARK.search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if found or not self._more():
                return found[0] if found else ""

    def take(self, marks: str) -> str:
        """Reads the next character, which must be one of some.

        Raises:
          DamagedJson: it is another, or the text ends.
        """
        found = self.peek()
        if not found:
            raise DamagedJson("the file ends before the JSON does; copy it again", self.line)
        if found not in marks:
            wanted = " or ".join(map(repr, marks))
            raise DamagedJson(f"found {found!r} where {wanted} should be", self.line)
        self._at += 1
        return found

    def value(self) -> Any:
        """Reads the next value.

        Raises:
          DamagedJson: it is no JSON, is nested too deep, or is longer than a record may be.
        """
        if self._text[self._at : self._at + 1] not in _OPENING:
            self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                length = end - self._at
                # A number may go on behind the text that is read so far.
                if end < len(self._text) or not self._more():
                    self._at += length
                    return value
            except json.JSONDecodeError as e:
                cut = e.msg.startswith("Unterminated") or e.pos >= len(self._text) - _NEAR_END
                line = self.line + self._text.count("\n", self._at, e.pos)
                if not cut or not self._more():
                    begun = cut and _is_begun(e)
                    reason = f"the file ends before the JSON does ({e.msg}); copy it again"
                    wrong = reason if begun else f"this is not JSON ({e.msg})"
                    raise DamagedJson(wrong, line) from e
            except (ValueError, RecursionError) as e:
                raise DamagedJson(f"this is not JSON to be read ({phrase(e)})", self.line) from e
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                raise DamagedJson(
                    f"one value is longer than {MAX_RECORD_BYTES} bytes; write a list of objects, "
                    "or one object a line",
                    self.line,
                )

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if following := _NEXT.match(self._text, self._at):  # Nearly always.
                self._at = following.end()
            elif self.take(",]") == "]":
                return

    def keys(self) -> Iterator[str]:
        """The keys of the object that begins here; the value behind each is to be read by then."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise DamagedJson(f"found the key {key!r}; write text in quotes", self.line)
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def next_object(self) -> bool:
        """Goes on to the next line that begins with an object; False where there is none."""
        while True:
            at = self._text.find("\n{", self._at)
            if at >= 0:
                self._at = at + 1
                return True
            self._at = max(self._at, len(self._text) - 1)
            if not self._more():
                return False
