"""What the first process of a cluster decides for all of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from ape_jax.errors import UserError
from ape_jax.parallel import hosts


def by_first(work: Callable[[], object]) -> None:
    """Does a piece of work on the first process; the others wait for its end.

    Of several processes each must call it.

    Args:
      work: what is done; nothing of it is called on the others.

    Raises:
      UserError: what the work raised, on every process.
    """
    refused = None
    if hosts.is_first():
        try:
            work()
        except UserError as error:
            refused = error
    if jax.process_count() > 1:
        sentence = from_first("" if refused is None else str(refused))
        if sentence and refused is None:
            refused = UserError(sentence)
    if refused is not None:
        raise refused


def from_first(text: str) -> str:
    """The text of the first process, on all of them."""
    if jax.process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    mine = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(mine))))
    if not size:
        return ""
    padded = np.resize(mine, size) if len(mine) else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode("utf-8")
