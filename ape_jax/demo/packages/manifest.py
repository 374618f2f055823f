"""Manifest of an asset directory: sizes and hashes of its files, which later runs check."""

from __future__ import annotations

import json
from pathlib import Path

from ape_jax.demo.packages import fetch

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
            "sha256": fetch.sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    text = json.dumps({"version": version, "files": files}, indent=1)
    (directory / NAME).write_text(text + "\n")
    return sum(entry["size"] for entry in files.values())


def matches(directory: Path, version: str, *, full: bool = False) -> bool:
    """Checks that a directory was finished by `version` and that its files have the listed sizes.

    Args:
      full: compare hashes too.
    """
    try:
        manifest = json.loads((directory / NAME).read_text())
        return manifest["version"] == version and all(
            (directory / name).stat().st_size == entry["size"]
            and (not full or fetch.sha256(directory / name) == entry["sha256"])
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
