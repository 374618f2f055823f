"""Checksummed JSON: small files written atomically, in which any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.storage import atomic

_SEAL = "sha256 of the rest"


def damaged(path: Path, why: str) -> UserError:
    """The error for a file of a cache whose bytes are not those that were written."""
    return UserError(
        f"cache: {path} {why}; delete the directory {path.parent} and run again, which encodes it "
        "anew"
    )


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with its checksum, atomically.

    Raises:
      OSError: the file cannot be written.
    """
    text = _dump({**value, _SEAL: _digest(value)})
    atomic.write_text(path, text)


def read(path: Path) -> dict[str, Any]:
    """Reads a JSON object that `write` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: a byte is not as it was written.
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
