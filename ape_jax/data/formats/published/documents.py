"""JSON documents read an element at a time, so that one of gigabytes needs a window of memory.

Annotations are one document of one line, such as COCO's of 90 MB or ShareGPT4V's of 1.5 GB: a list,
or an object of lists. Each element of a list must fit into `MAX_RECORD_BYTES`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ape_jax.data.rows import MAX_RECORD_BYTES
from ape_jax.errors import UserError

_WINDOW = 2**20
_HEAD = 2**16  # What a look reads.
_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=[^\s\]])")  # To the next element of a list.
_DECODER = json.JSONDecoder()
_DEEP = "lists in lists without end"


class Element(NamedTuple):
    """One element of a list of a document, or a value of its object that is no list.

    Attributes:
      key: of the list in the document's object; "" where the document is the list.
      number: in the list, from 0; -1 for a value that is no list.
      value: what stands there.
    """

    key: str
    number: int
    value: Any

    @property
    def at(self) -> str:
        """Where it stands, for messages: `annotations[3]`."""
        return self.key if self.number < 0 else f"{self.key}[{self.number}]"


def elements(path: str) -> Iterator[Element]:
    """Reads the elements of all lists of a document, in the order of the file.

    Example:
      >>> import tempfile
      >>> file = tempfile.NamedTemporaryFile("w", suffix=".json")
      >>> print('{"year": 2017, "images": [{"id": 1}, {"id": 2}]}', file=file, flush=True)
      >>> [(element.at, element.value) for element in elements(file.name)]
      [('year', 2017), ('images[0]', {'id': 1}), ('images[1]', {'id': 2})]

    Args:
      path: a JSON file, UTF-8 with or without a byte order mark.

    Raises:
      UserError: the file is no JSON document, cut, not UTF-8, nested too deep, or one element is
        longer than `MAX_RECORD_BYTES`.
    """
    with open(path, encoding="utf-8-sig") as f:
        yield from _Window(path, f.read).document()


def look(path: str) -> dict[str, Any]:
    """The first element of each list, and the other values, in the first 64 KiB of a document.

    Returns:
      By the key in the document's object; `{"": first}` for a list. Empty where it is no JSON.
    """
    try:
        with open(path, "rb") as f:
            head = f.read(_HEAD).decode("utf-8-sig", "ignore")
    except OSError:
        return {}
    found: dict[str, Any] = {}
    try:
        for element in _Window(path, io.StringIO(head).read).document():
            found.setdefault(element.key, element.value)
    except UserError:
        pass  # The head ends somewhere, and what is wrong is said when the file is read.
    return found


class _Window:
    """The part of a document that is in memory, and the place in it that is read next."""

    def __init__(self, path: str, read: Callable[[int], str]):
        self._path, self._read = path, read
        self._text, self._at, self._ended = "", 0, False

    def document(self) -> Iterator[Element]:
        first = self._peek()
        if first == "[":
            yield from self._list("")
        elif first == "{":
            yield from self._object()
        else:
            found = repr(first) if first else "nothing"
            raise UserError(
                f"{self._path}: JSON begins with [ or {{, found {found}; correct the file"
            )
        if self._peek():
            raise UserError(
                f"{self._path}: there is more text behind the end of the JSON document; one object "
                "a line is a .jsonl file"
            )

    def _object(self) -> Iterator[Element]:
        self._at += 1
        while self._peek() != "}":
            key = self._value("a key")
            if not isinstance(key, str):
                raise self._broken("a key", "keys are text in quotes")
            self._take(":", key)
            if self._peek() == "[":
                yield from self._list(key)
            else:
                self._peek()
                yield Element(key, -1, self._value(key))
            if self._peek() != "}":
                self._take(",", key)
        self._at += 1

    def _list(self, key: str) -> Iterator[Element]:
        self._at += 1
        number = 0
        while self._peek() != "]":
            yield Element(key, number, self._value(key, number))
            number += 1
            while following := _NEXT.match(self._text, self._at):  # Nearly always.
                self._at = following.end()
                yield Element(key, number, self._value(key, number))
                number += 1
            if self._peek() != "]":
                self._take(",", f"{key}[{number}]")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # pyright: ignore
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, character: str, at: str) -> None:
        found = self._peek()
        if found != character:
            wrong = f"expected {character!r}, found {found!r}" if found else "it ends there"
            raise self._broken(at, wrong)
        self._at += 1

    def _value(self, key: str, number: int = -1) -> Any:
        while True:
            problem: json.JSONDecodeError | None = None
            cut = False
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                # A number at the end of the window may go on behind it.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            except json.JSONDecodeError as e:
                problem = e
                cut = e.pos >= len(self._text) - 1 or e.msg.startswith("Unterminated")
            except (RecursionError, ValueError) as e:
                wrong = _DEEP if isinstance(e, RecursionError) else str(e)
                raise self._broken(Element(key, number, None).at, wrong) from e
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                wrong = f"it is longer than {MAX_RECORD_BYTES} bytes or no JSON"
                raise self._broken(Element(key, number, None).at, wrong)
            if not self._more() and problem is not None:
                wrong = "it ends there" if cut else problem.msg
                raise self._broken(Element(key, number, None).at, wrong) from problem

    def _more(self) -> bool:
        """Reads on, and drops what was read; False at the end of the file."""
        try:
            added = self._read(_WINDOW)
        except UnicodeDecodeError as e:
            raise UserError(f"{self._path}: the file is not UTF-8 text; save it as UTF-8") from e
        self._ended = not added
        self._text, self._at = self._text[self._at :] + added, 0
        return bool(added)

    def _broken(self, at: str, wrong: str) -> UserError:
        remedy = "download the file again" if wrong == "it ends there" else "correct the file"
        return UserError(f"{self._path}: {at}: not a JSON document ({wrong}); {remedy}")
