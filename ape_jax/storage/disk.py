"""The cache folder, checks of free space, and one sentence for a disk that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ape_jax.errors import UserError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def write_errors(
    what: str, remedy: str = "name another directory", *, again: str = ""
) -> Iterator[None]:
    """Turns any OSError of the block into one sentence for the user.

    Args:
      what: the key and the path that the block writes, as in "--out: /data/model".
      remedy: what the user can do; freeing space is added where the disk is full.
      again: what to do once it can be written, where that is the only remedy.

    Raises:
      UserError: "WHAT cannot be written (REASON); REMEDY".
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        full, gone = error.errno in _DISK_FULL, error.errno == errno.ENOENT
        if again:
            cure = "free some space and " if full else "" if gone else "make it writable and "
            remedy = f"{cure}{again}"
        elif full:
            remedy = f"free some space or {remedy}"
        raise UserError(f"{what} cannot be written ({reason}); {remedy}") from error


def require_space(folder: Path, size: int, what: str, remedy: str) -> None:
    """Checks that a disk has room, before anything is downloaded or computed.

    Args:
      folder: an existing directory on the disk.
      size: bytes that will be written.
      what: subject and verb of the sentence, as in "The icons need".
      remedy: what the user can do instead of freeing space.

    Raises:
      UserError: where fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{what} {size / 1e6:,.0f} MB but only {free / 1e6:,.0f} MB are free in {folder}; "
            f"free some, or {remedy}"
        )


def cache_dir() -> Path:
    """Returns the cache folder; it may not exist yet.

    `$APE_JAX_CACHE` if set, else `ape_jax` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
      UserError: where there is no home directory.
    """
    chosen = os.environ.get("APE_JAX_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "ape_jax"
    try:
        return Path.home() / ".cache" / "ape_jax"
    except RuntimeError:  # No HOME, and a user without an entry.
        raise UserError("APE_JAX_CACHE: there is no home directory; set it to a folder") from None
