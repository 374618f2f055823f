"""Checks of arguments that Python programs give: taken, or one sentence that names the argument.

`errors.path_text` and `errors.whole_number` are two more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ape_jax.errors import UserError

_REAL = "iuf"  # Kinds of numpy types.


def items(value: Any, name: str, of: str) -> Iterable[Any]:
    """Checks that an argument is several things in an order, of which nothing is read here.

    Example:
      >>> list(items(("a", "b"), "encode_text", "texts"))
      ['a', 'b']

    Args:
      value: a list, a tuple, an array, a generator, or whatever else can be gone through.
      name: the function or argument, for messages.
      of: what the things are.

    Raises:
      UserError: for a lone thing, or what has no order or keys of its own.
    """
    if isinstance(value, str | bytes | bytearray) or not hasattr(value, "__iter__"):
        raise UserError(f"{name}: expected a list of {of}, found one {_kind(value)}; write [x]")
    if isinstance(value, set | frozenset):
        raise UserError(f"{name}: a set of {of} has no order; write a list")
    if isinstance(value, Mapping) or hasattr(value, "columns"):
        raise UserError(f"{name}: expected a list of {of}, found {_kind(value)}; give its values")
    if isinstance(value, np.ndarray) and value.ndim == 0:
        raise UserError(f"{name}: expected a list of {of}, found an array of one; write [x]")
    return value


def text(value: Any, name: str) -> str:
    """Checks that an argument is a text that can be encoded.

    Raises:
      UserError: for anything else, or half a character.
    """
    if not isinstance(value, str):
        raise UserError(f"{name}: expected a text, found {_kind(value)}")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise UserError(f"{name}: {value[:40]!r} holds half of a surrogate pair; correct it")
    return value


def texts(value: Any, name: str, of: str = "texts") -> list[str]:
    """Checks that an argument is at least one text; as `items` and `text`.

    Args:
      value: the argument.
      name: the function or argument, for messages.
      of: what the texts are.

    Raises:
      UserError: as `items` and `text`, or for an empty list.
    """
    found = [text(x, f"{name}: {of}, item {i}") for i, x in enumerate(items(value, name, of))]
    if not found:
        raise UserError(f"{name}: expected at least one item of {of}, found an empty list")
    return found


def truth(value: Any, name: str) -> bool:
    """Checks that an argument is True or False.

    Raises:
      UserError: for anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name}: expected True or False, found {value!r}")
    return bool(value)


def number(value: Any, name: str, least: float = -math.inf, below: float = math.inf) -> float:
    """Checks that an argument is a number in a range.

    Args:
      value: a number of Python or NumPy.
      name: the argument, for messages.
      least: the smallest that is taken.
      below: above all that are taken.

    Raises:
      UserError: for another number, or anything else.
    """
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if not is_number or isinstance(value, bool) or not least <= value < below:
        bounds = "" if least == -math.inf else f" of at least {least:g}"
        bounds += "" if below == math.inf else f" and below {below:g}"
        raise UserError(f"{name}: expected a number{bounds}, found {value!r}")
    return float(value)


def real_array(value: Any, name: str) -> np.ndarray:
    """Checks that an argument is an array of real numbers, and makes one of lists.

    Raises:
      UserError: for anything else.
    """
    try:
        array = np.asarray(value)
    except Exception:  # Rows of different lengths, or an object that numpy stumbles over.
        array = None
    found = _kind(value) if array is None else f"{_kind(value)} of {array.dtype}"
    # bfloat16 is none of numpy's own kinds.
    if array is None or (array.dtype.kind not in _REAL and array.dtype.name != "bfloat16"):
        raise UserError(f"{name}: expected an array of numbers, found {found}")
    return array


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
