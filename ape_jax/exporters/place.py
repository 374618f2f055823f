"""A directory that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ape_jax.errors import UserError


def check(out: str) -> Path:
    """The absolute path of a directory to write.

    Raises:
      UserError: none is named, it exists, or nothing can be written beside it.
    """
    if not out:
        raise UserError("--out: expected a directory to write, found none")
    path = Path(out).expanduser().absolute()
    if path.exists() or path.is_symlink():
        raise UserError(f"--out: {path} exists; name a directory that does not, or remove it")
    parent = next(p for p in path.parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--out: cannot write in {parent}; name another directory")
    return path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write in; it becomes `path` if all goes well, else it is removed.

    Raises:
      UserError: where it cannot be written, or `path` has come into being meanwhile.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            raise UserError(f"--out: {path} was made by another process meanwhile; name another")
        partial.rename(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--out: {path} cannot be written: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
