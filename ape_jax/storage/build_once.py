"""The folder that demo assets live in: where it is, who may write, and all-or-nothing results.

Anything kept is built in a hidden `.NAME.PID.partial` directory beside its final place and renamed
when complete, under a lock of its own. A build that is interrupted leaves nothing; one that is
killed leaves a `.partial` directory, which the next run removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.storage.cache_folder import cache_dir

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def say(line: str) -> None:
    """Prints one line of progress on stderr."""
    print(f"ape_jax.demo: {line}", file=sys.stderr, flush=True)


def make_once(
    target: Path, build: Callable[[Path], None], is_complete: Callable[[Path], bool]
) -> Path:
    """Builds the directory `target` unless it is complete; all or nothing, one process at a time.

    Args:
      target: the final directory, somewhere in `cache_dir()`.
      build: fills the empty directory it is given.
      is_complete: a cheap check of a directory that is in its final place.

    Returns:
      `target`.

    Raises:
      UserError: the cache cannot be written, or `build` raised it.
    """
    if is_complete(target):
        return target
    with _storage_errors(), _locked(target.name):
        if is_complete(target):  # another process made it while this one waited
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        for left_over in target.parent.glob(f".{target.name}.*.partial"):
            say(f"removing {left_over.name}, left by a run that was killed")
            shutil.rmtree(left_over, ignore_errors=True)
        work = target.parent / f".{target.name}.{os.getpid()}.partial"
        work.mkdir()
        try:
            build(work)
            _put_in_place(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def require_space(size: int, what: str) -> None:
    """Raises UserError unless `size` bytes are free in the cache."""
    free = shutil.disk_usage(cache_dir()).free
    if free < size:
        raise UserError(
            f"{what} needs {size / 1e6:.0f} MB but only {free / 1e6:.0f} MB are free in "
            f"{cache_dir()}; free some, or set APE_JAX_CACHE to a directory on another disk."
        )


def _put_in_place(work: Path, target: Path) -> None:
    """Renames `work` to `target`; a directory that was there (incomplete or outdated) goes."""
    if target.exists():
        outdated = work.with_name(f".{target.name}.old.partial")
        os.replace(target, outdated)
        os.replace(work, target)
        shutil.rmtree(outdated, ignore_errors=True)
    else:
        os.replace(work, target)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Holds an exclusive lock between processes; the kernel drops it when its holder dies."""
    import fcntl  # not on Windows, where the rest of the package still imports

    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.lock", "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is making {name}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Says in one sentence what is wrong with the cache folder."""
    try:
        yield
    except OSError as error:
        remedy = "free some space, or set" if error.errno in _DISK_FULL else "set"
        raise UserError(
            f"The demo cache {cache_dir()} cannot be written ({error.strerror or error}); "
            f"{remedy} APE_JAX_CACHE to a directory that can."
        ) from error
