"""JSON documents read an element at a time, so that one of gigabytes needs a window of memory.

Annotations are one document of one line, such as COCO's of 90 MB or ShareGPT4V's of 1.5 GB: a list,
or an object of lists. Each element of a list must fit into `MAX_RECORD_BYTES`. They are found in
the encodings and compressed as tables are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ape_jax.data.formats.tables.json_text import DamagedJson, Doubled, JsonText
from ape_jax.data.formats.tables.text import start_of, utf8_chunks
from ape_jax.errors import UserError


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
        return _at(self.key, self.number)


def elements(path: str, say: Callable[[str], None]) -> Iterator[Element]:
    """Reads the elements of all lists of a document, in the order of the file.

    Example:
      >>> import tempfile
      >>> file = tempfile.NamedTemporaryFile("w", suffix=".json")
      >>> print('{"year": 2017, "images": [{"id": 1}, {"id": 2}]}', file=file, flush=True)
      >>> [(element.at, element.value) for element in elements(file.name, print)]
      [('year', 2017), ('images[0]', {'id': 1}), ('images[1]', {'id': 2})]

    Args:
      path: a JSON file, in any encoding of Unicode, which may be compressed.
      say: takes a line for the user about an encoding that was found.

    Raises:
      UserError: the file is no JSON document, cut, not UTF-8, nested too deep, one element is
        longer than `MAX_RECORD_BYTES` or has a key twice.
    """
    chunks = utf8_chunks(path, say)
    with contextlib.closing(chunks):
        yield from _Document(path, JsonText(chunks)).elements()


def look(path: str) -> dict[str, Any]:
    """The first element of each list, and the other values, in the first 64 KiB of a document.

    Returns:
      By the key in the document's object; `{"": first}` for a list. Empty where it is no JSON.
    """
    found: dict[str, Any] = {}
    # The head ends somewhere, and what is wrong is said when the file is read.
    with contextlib.suppress(UserError):
        for element in _Document(path, JsonText(iter([start_of(path).encode()]))).elements():
            found.setdefault(element.key, element.value)
    return found


class _Document:
    """The elements of a document, and where its reading has come to."""

    def __init__(self, path: str, text: JsonText):
        self._path, self._text = path, text
        self._key, self._number = "", -1

    def elements(self) -> Iterator[Element]:
        try:
            yield from self._elements()
        except DamagedJson as e:
            at = _at(self._key, self._number) or "a key"
            raise UserError(f"{self._path}: {at} (line {e.line}): {e}") from e

    def _elements(self) -> Iterator[Element]:
        first = self._text.peek()
        if first == "[":
            yield from self._list("")
        elif first == "{":
            for key in self._text.keys():
                self._key, self._number = key, -1
                if self._text.peek() == "[":
                    yield from self._list(key)
                else:
                    yield self._element(self._text.value())
        else:
            found = repr(first) if first else "nothing"
            raise UserError(
                f"{self._path}: JSON begins with [ or {{, found {found}; correct the file"
            )
        if self._text.peek():
            raise UserError(
                f"{self._path}: there is more text behind the end of the JSON document; one object "
                "a line is a .jsonl file"
            )

    def _list(self, key: str) -> Iterator[Element]:
        self._key, self._number = key, 0
        for value in self._text.items():
            yield self._element(value)
            self._number += 1

    def _element(self, value: Any) -> Element:
        found = Element(self._key, self._number, value)
        if isinstance(value, Doubled):
            raise UserError(
                f"{self._path}: {found.at}: the key {value.key!r} is there twice; remove one"
            )
        return found


def _at(key: str, number: int) -> str:
    return key if number < 0 else f"{key}[{number}]"
