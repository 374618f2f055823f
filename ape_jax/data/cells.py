"""Captions, ids and labels out of the cells of a row, the same for every format.

A cell is what a reader found: text, bytes, a number, None, a list or a mapping. A text that is a
list in JSON or Python notation, as spreadsheets and pandas write it, is a list; the words that
pandas writes for a missing value are no captions.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ape_jax.data.columns import CAPTION_NAMES
from ape_jax.data.rows import Verbatim
from ape_jax.errors import UserError

NULLS = frozenset({"nan", "NaN", "None", "null", "NULL", "<NA>", "NaT"})
"""Words that stand for a missing value."""

_MISSING = ("NAType", "NaTType")  # Of pandas, which nobody needs to have.
_INSIDE = (*CAPTION_NAMES, "raw", "value")  # Of a caption that is a mapping.
_LIST = re.compile(r"\s*[\[(].*[\])]\s*", re.DOTALL)
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_BETWEEN = re.compile(r"[\s,]*")


class Unusable(ValueError):
    """Reason why a cell cannot be used: the kind it is counted as, and a phrase with the remedy."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def split_list(text: str) -> list[str | None] | None:
    """The items of a text that is a list of texts in JSON or Python notation; None for any other.

    Nothing is evaluated: strings are found by their quotes.

    Example:
      >>> split_list('["a cat", "a tabby"]'), split_list("['a cat', None]"), split_list("[sic] a")
      (['a cat', 'a tabby'], ['a cat', None], None)
    """
    if not _LIST.fullmatch(text):
        return None
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return _python_list(text.strip()[1:-1])
    if isinstance(read, list) and all(x is None or isinstance(x, str) for x in read):
        return read
    return None


def _python_list(inside: str) -> list[str | None] | None:
    items: list[str | None] = []
    at = 0
    while at < len(inside):
        at = _skip(inside, at)
        if at == len(inside):
            break
        if quoted := _QUOTED.match(inside, at):
            try:
                items.append(str(ast.literal_eval(quoted[0])))  # One string literal, nothing else.
            except (ValueError, SyntaxError):
                return None
            at = quoted.end()
        elif inside.startswith(("None", "nan"), at):
            items.append(None)
            at += 4 if inside.startswith("None", at) else 3
        else:
            return None
        if at < len(inside) and inside[at] not in ", \n\t":
            return None
    return items or None


def _skip(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return at if match is None else match.end()


def is_null(value: Any) -> bool:
    """Tests for a missing value: None, not a number, pandas' NA, or a word that stands for one."""
    if isinstance(value, str):
        return value in NULLS
    if value is None or type(value).__name__ in _MISSING:
        return True
    return isinstance(value, float) and math.isnan(value)


def captions(value: Any, column: str = "captions") -> Iterator[str | Unusable | None]:
    """The captions in a cell, stripped; what is wrong with one in its place; None for a split list.

    Args:
      value: text, bytes, a list of these, mappings that hold a caption, or `Verbatim`.
      column: its name, for messages.

    Yields:
      Each caption, or why it cannot be used; None first where a text was split as a list.
    """
    if isinstance(value, Verbatim):
        yield value.text
        return
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, str):
        found = split_list(value) if value[:1] in "[( " else None
        if found is not None:
            yield None
            value = found
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | Unusable):
        if not value:
            yield Unusable("empty caption", f"{column!r} is []; write a text or a list of texts")
        for item in value:
            yield _caption(item)
        return
    if is_null(value):
        found = "null" if value is None else value
        yield Unusable("empty caption", f"{column!r} is {found}; write a caption or remove the row")
        return
    yield _caption(value)


def _caption(value: Any) -> str | Unusable:
    if isinstance(value, Mapping):
        inside = next((value[name] for name in _INSIDE if name in value), None)
        value = value if inside is None else inside
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, Unusable):
        return value
    if is_null(value):
        return Unusable("empty caption", f"a caption is {value}; write one or remove the row")
    if not isinstance(value, str):
        return Unusable(
            "no text as caption", f"a caption is {shorten(value)}; write text in quotes"
        )
    text = value.strip()
    if not text:
        return Unusable("empty caption", "a caption is empty; write one or remove the row")
    return text if is_unicode(text) else _not_unicode("caption", text)


def _decoded(value: bytes) -> str | Unusable:
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        return Unusable(
            "not UTF-8", f"the caption is not UTF-8 text (byte {e.start}); save it as UTF-8"
        )


def is_unicode(text: str) -> bool:
    """Tests that a text can be encoded: JSON can spell half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_unicode(what: str, text: str) -> Unusable:
    return Unusable("not Unicode", f"{what} {text!r} is not valid Unicode; correct it")


def identifier(value: Any, column: str = "id") -> str | None:
    """An explicit id as text, None where there is none.

    Raises:
      Unusable: it is neither text nor an integer.
    """
    if is_null(value) or value == "":
        return None
    if isinstance(value, bytes):
        value = _decoded(value)
        if isinstance(value, Unusable):
            raise Unusable(value.kind, value.reason.replace("caption", column))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Unusable("damaged row", f"{column!r} is {shorten(value)}; write text or an integer")
    if not is_unicode(value):
        raise _not_unicode(column, value)
    return value


def record_captions(value: Any, where: str, column: str = "caption") -> tuple[str, ...]:
    """All captions of one cell, exact duplicates dropped.

    Args:
      value: as for `captions`.
      where: file and row, for messages.
      column: its name, likewise.

    Raises:
      UserError: any of them cannot be used.
    """
    found: dict[str, None] = {}
    for caption in captions(value, column):
        if isinstance(caption, Unusable):
            raise UserError(f"{where}: {caption.reason}")
        if caption is not None:
            found[caption] = None
    return tuple(found)


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


def printable(name: str) -> str:
    """Makes a name fit for a one-line message: quoted if it holds control characters."""
    return name if name.isprintable() else repr(name)


def shorten(value: Any) -> str:
    """Makes a value fit for a one-line message: its repr, shortened to 80 characters."""
    text = " ".join(repr(value).split())
    return f"{text[:77]}..." if len(text) > 80 else text
