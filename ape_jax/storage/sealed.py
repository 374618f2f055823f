"""Checksummed JSON: small files written atomically, in which any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.storage import atomic, files

SEAL = "sha256 of the rest"
"""Key of the checksum."""


def damaged(path: Path, why: str) -> UserError:
    """The error for a file of a cache whose bytes are not those that were written."""
    return UserError(
        f"cache: {path} {why}; delete the directory {path.parent} and run again, which encodes it "
        "anew"
    )


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its checksum in it, for `unseal`.

    Example:
      >>> unseal(seal({"step": 3}))
      {'step': 3}
      >>> unseal({**seal({"step": 3}), "step": 2}) is None
      True
    """
    plain = json.loads(json.dumps(dict(value)))  # Tuples are lists from here on.
    return {**plain, SEAL: _digest(plain)}


def unseal(value: Any) -> dict[str, Any] | None:
    """The object that `seal` was given; None where it is damaged, or none was."""
    if not isinstance(value, dict) or SEAL not in value:
        return None
    rest = {name: inner for name, inner in value.items() if name != SEAL}
    return rest if value[SEAL] == _digest(rest) else None


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with its checksum, atomically.

    Raises:
      OSError: the file cannot be written.
    """
    text = _dump({**value, SEAL: _digest(value)})
    atomic.write_text(path, text)


def read(path: Path) -> dict[str, Any]:
    """Reads a JSON object that `write` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: a byte is not as it was written.
    """
    try:
        content = files.read_bytes(path)
    except UserError as error:
        raise damaged(path, str(error).removeprefix(f"{path} ")) from None
    try:
        value = files.parse_json(content, str(path))
        found = value.pop(SEAL)
    except (UserError, KeyError):
        raise damaged(path, "is damaged") from None
    if found != _digest(value) or _dump({**value, SEAL: found}).encode() != content:
        raise damaged(path, "is damaged or was edited")
    return value


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(value).encode()).hexdigest()
