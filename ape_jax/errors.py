"""The exceptions that a user is meant to read, the words they share, and checks of arguments."""

from __future__ import annotations

import operator
import os
from typing import Any


class UserError(ValueError):
    """Something the user can put right: a config key, a file, a caption.

    The message is one sentence that names the config key or the file and line, what was found, and
    what to write instead. Commands print it alone on stderr and exit with status 1; anything else
    that escapes a command is a bug.
    """


def install(extra: str) -> str:
    """What to run for the packages of an extra; the extras are in pyproject.toml.

    >>> install("export")
    'pip install "ape_jax[export]"'

    Args:
      extra: its name.
    """
    return f'pip install "ape_jax[{extra}]"'


def path_text(value: Any, name: str) -> str:
    """Checks an argument that is a path.

    >>> path_text(b"runs/a", "load")
    'runs/a'

    Args:
      value: a path of any kind that Python has.
      name: the argument, for messages.

    Returns:
      The path as it was written.

    Raises:
      UserError: for anything else, an empty text, or a name that no file can have.
    """
    try:
        path = os.fsdecode(value)
        longest = max(len(os.fsencode(part)) for part in path.split(os.sep))
    except (TypeError, UnicodeError):
        found = repr(value) if isinstance(value, str) else type(value).__name__
        raise UserError(f"{name}: expected a path, found {found}") from None
    if not path.strip() or "\0" in path:
        raise UserError(f"{name}: expected a path, found {path[:80]!r}")
    if longest > 255 or len(path) > 4095:
        raise UserError(f"{name}: no file can have a name of {len(path)} characters; shorten it")
    return path


def whole_number(value: Any, name: str, least: int | None = 1) -> int:
    """Checks an argument that counts something.

    >>> whole_number(3, "k")
    3

    Args:
      value: an integer of Python or NumPy.
      name: the argument, for messages.
      least: the smallest that is taken; None for any.

    Raises:
      UserError: for a smaller one, or anything else: a float, a truth value, a text.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        wanted = "" if least is None else f" of at least {least}"
        raise UserError(f"{name}: expected a whole number{wanted}, found {value!r}")
    return number


class Preempted(Exception):
    """The run was asked to end (SIGTERM) and has saved its state; commands exit with status 0."""
