"""Small JSON files of a cache: written whole or not at all, and any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError

_SEAL = "sha256 of the rest"


def damaged(path: Path, why: str) -> UserError:
    """The error for a file of a cache that is not what was written."""
    return UserError(
        f"cache: {path} {why}; delete the directory {path.parent} and run again, which encodes it "
        "anew"
    )


def not_writable(folder: Path, error: Exception) -> UserError:
    """The error for a cache that cannot be written or not to the end."""
    reason = getattr(error, "strerror", None) or str(error).split(";")[0] or type(error).__name__
    return UserError(
        f"cache.dir: {folder} cannot be written ({reason}); what was finished is kept: free some "
        "space or name another directory ('none' for memory only) and run again"
    )


def place(path: Path, write: Callable[[Path], None]) -> None:
    """Makes a file under a temporary name and renames it when it is on the disk.

    Args:
      path: the final name; a file of that name is replaced.
      write: writes the file that it is given.

    Raises:
      OSError: whatever `write` raises too; nothing is left then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        _sync(partial, os.O_RDONLY)
        partial.replace(path)
        _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # The name, too.
    finally:
        partial.unlink(missing_ok=True)


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object and its checksum."""
    text = _dump({**value, _SEAL: _digest(value)})
    place(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote.

    Raises:
      FileNotFoundError: where there is no such file.
      UserError: where a single byte is not as it was written.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from None
    try:
        value = json.loads(content)
        seal = value.pop(_SEAL)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged(path, "is damaged") from None
    if seal != _digest(value) or _dump({**value, _SEAL: seal}).encode() != content:
        raise damaged(path, "is damaged or was edited")
    return value


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(value).encode()).hexdigest()


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
