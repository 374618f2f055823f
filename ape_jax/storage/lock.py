"""An exclusive lock between processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ape_jax.errors import UserError


@contextlib.contextmanager
def exclusive(
    file: Path, busy: str, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Holds a lock on a file; the kernel releases it when the process ends, however it ends.

    Args:
      file: the lock file. It is made in an existing directory and stays there: if it were removed,
        a waiting process would hold a lock on a file that nobody else can find.
      busy: a sentence for the case that another process (or thread) holds the lock.
      waiting: called with `busy` before waiting for the lock; None does not wait.

    Raises:
      UserError: `busy`, where another process holds the lock and `waiting` is None.
      OSError: the file cannot be made.
    """
    import fcntl  # Not on Windows, where the rest of the package still imports.

    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise UserError(busy) from None
            waiting(busy)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
