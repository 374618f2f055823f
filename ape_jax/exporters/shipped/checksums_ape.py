"""Compares the files of this directory with its SHA256SUMS, before anything of them is used."""

from __future__ import annotations

import hashlib
import os
from typing import Any

_NAME = "SHA256SUMS"
_found_whole: set[tuple] = set()  # Model, image processor and tokenizer are loaded one by one.


def check(directory: Any) -> None:
    """Compares all files that are listed.

    Args:
      directory: what is loaded; names on the hub, whose files have hashes there, are left alone.

    Raises:
      OSError: a file is missing, or is not as it was exported.
    """
    listed = os.path.join(str(directory), _NAME)
    if not os.path.isfile(listed):
        return
    with open(listed, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    files = []
    for line in lines:
        expected, _, name = line.partition("  ")
        path = os.path.join(str(directory), name)
        if not name or not os.path.isfile(path):
            raise OSError(f"{listed}: there is no file {name!r}")
        status = os.stat(path)
        files.append((path, expected, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    if tuple(files) in _found_whole:
        return
    for path, expected, *_ in files:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise OSError(
                f"{path} is not as it was exported; take it from where it came from once more, or "
                f"remove {_NAME} where you have changed a file on purpose"
            )
    _found_whole.add(tuple(files))
