"""Directories that are built once and used by every later process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ape_jax.storage import atomic, lock


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
    with lock.exclusive(locks / f"{target.name}.lock", busy, say):
        if is_complete(target):  # Another process has built it meanwhile.
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in atomic.remove_leftovers(target):
            say(f"removed {name}, left by a process that was killed")
        with atomic.directory(target, replace=True) as partial:
            build(partial)
    return target
