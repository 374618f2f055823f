"""One sentence for whatever keeps a program from writing, and checks of free space."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from ape_jax.errors import UserError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def write_errors(what: str, remedy: str = "name another directory") -> Iterator[None]:
    """Turns any OSError of the block into one sentence for the user.

    Args:
      what: the key and the path that the block writes, as in "--out: /data/model".
      remedy: what the user can do; freeing space is added where the disk is full.

    Raises:
      UserError: "WHAT cannot be written (REASON); REMEDY".
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        space = "free some space or " if error.errno in _DISK_FULL else ""
        raise UserError(f"{what} cannot be written ({reason}); {space}{remedy}") from error


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
