"""Manifest of an asset directory: sizes and hashes of its files, which later runs check."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from ape_jax.demo import cache
from ape_jax.storage import files as storage
from ape_jax.storage import verified

NAME = "manifest.json"


def write(directory: Path, version: str) -> int:
    """Writes the manifest of a finished directory from its files; returns their total size.

    Args:
      directory: the finished directory.
      version: names how it was made; a directory made in another way is not complete.
    """
    files = {
        str(path.relative_to(directory)): {
            "size": path.stat().st_size,
            "sha256": storage.sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    text = json.dumps({"version": version, "files": files}, indent=1)
    (directory / NAME).write_text(text + "\n")
    return sum(entry["size"] for entry in files.values())


def matches(directory: Path, version: str, *, full: bool = False) -> bool:
    """Checks that a directory was finished by `version` and that its files are as listed.

    Where they are not, a line says which. Large files are read unless they are as they were when
    they were read last (`storage.verified`).

    Args:
      directory: of the asset.
      version: see `write`.
      full: read all files, and note nothing.
    """
    try:
        manifest = storage.read_json(directory / NAME)
        if manifest["version"] != version:
            return False
        files = manifest["files"]
        expected = {name: entry["sha256"] for name, entry in files.items()}
        sizes = {name: entry["size"] for name, entry in files.items()}
        wrong = next((n for n in files if (directory / n).stat().st_size != sizes[n]), None)
        wrong = f"{wrong} has another size" if wrong else None
        wrong = wrong or verified.damage(directory, expected, None if full else verified.NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        wrong = "the manifest is damaged"
    if wrong:
        _say_once(f"{directory}: {wrong}; it is made anew")
    return not wrong


_say_once = functools.lru_cache(maxsize=64)(cache.say)  # A directory is looked at twice.
