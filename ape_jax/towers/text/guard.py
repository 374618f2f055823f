"""Calls of the tokenizers library, whose errors have no type of their own and may be panics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ape_jax.errors import UserError

_PANIC = "PanicException"  # Of pyo3, which cannot be imported; it is no `Exception`.


@contextlib.contextmanager
def one_sentence(sentence: Callable[[str], str]) -> Iterator[None]:
    """Turns whatever the library raises in the block into a UserError.

    Args:
      sentence: makes the message of the reason, which has one line.

    Raises:
      UserError: the library failed.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(sentence(reason)) from error
