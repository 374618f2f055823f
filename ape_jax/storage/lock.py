"""Locks between processes, and directories that one of them builds for all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.storage import atomic


@contextlib.contextmanager
def exclusive(
    file: Path, busy: str, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Holds a lock on a file; the kernel releases it when the process ends, however it ends.

    Args:
      file: the lock file, made in an existing directory. Only who holds the lock may remove it:
        processes that waited for it then lock the one that comes after it.
      busy: a sentence for the case that another process (or thread) holds the lock.
      waiting: called with `busy` before waiting for the lock; None does not wait.

    Raises:
      UserError: `busy`, where another process holds the lock and `waiting` is None.
      OSError: the file cannot be made.
    """
    import fcntl  # Not on Windows, where the rest of the package still imports.

    while True:
        with file.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise UserError(busy) from None
                waiting(busy)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle.fileno(), file):
                yield
                return


def _is_at(handle: int, file: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def make_once(
    target: Path,
    build: Callable[[Path], None],
    is_complete: Callable[[Path], bool],
    *,
    locks: Path,
    say: Callable[[str], None],
) -> Path:
    """Builds a directory unless it is complete; the first process builds it, the others wait.

    Args:
      target: the directory; one that is incomplete or outdated is replaced.
      build: fills the empty directory that it is given.
      is_complete: a quick check of a directory in its final position.
      locks: the directory of the lock files.
      say: called with one line where this process waits or removes something.

    Returns:
      `target`.

    Raises:
      OSError: the disk is full or cannot be written; and whatever `build` raises.
    """
    if is_complete(target):
        return target
    locks.mkdir(parents=True, exist_ok=True)
    busy = f"another process is making {target.name}; waiting for it"
    with exclusive(locks / f"{target.name}.lock", busy, say):
        if is_complete(target):  # Another process has built it meanwhile.
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in atomic.remove_leftovers(target):
            say(f"removed {name}, left by a process that was killed")
        with atomic.directory(target, replace=True) as partial:
            build(partial)
    return target
