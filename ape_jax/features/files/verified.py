"""Notes of which files were verified, so that not every start has to read all of their bytes.

A file is taken as verified as long as its checksum on record, its size, its times and its inode are
those of the note. It is made only of files that had been left alone for a while: a change within
the same tick of the clock would not be seen.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.storage import sealed

NAME = "verified.json"
_SETTLED = 2 * 10**9  # Nanoseconds; file systems with the coarsest times count by 2 s.

# What is compared of a file, None where there is none.
State = list[Any] | None


def states(files: Mapping[Path, str]) -> dict[Path, State]:
    """What the files are like now.

    Args:
      files: the checksum on record of each file.
    """
    return {path: _state(path, sha256) for path, sha256 in files.items()}


def changed(folder: Path, found: Mapping[Path, State]) -> list[Path]:
    """The files that are not as they were when they were verified, or never were.

    Args:
      folder: where the notes are.
      found: what the files are like now.
    """
    try:
        noted = sealed.read(folder / NAME)["files"]
    except (FileNotFoundError, UserError, KeyError):
        noted = {}  # Of no note nothing follows: everything is verified again.
    if not isinstance(noted, dict):
        noted = {}
    return [path for path, state in found.items() if not state or noted.get(path.name) != state]


def note(folder: Path, files: Iterable[Path], found: Mapping[Path, State]) -> None:
    """Notes that files were verified.

    Args:
      folder: where the notes are.
      files: all files that are verified, now or before.
      found: what they were like before they were verified.
    """
    now = time.time_ns()
    kept: dict[str, State] = {}
    for path in files:
        state = found[path]
        if state and max(state[2], state[3]) + _SETTLED <= now and _state(path, state[0]) == state:
            kept[path.name] = state
    with contextlib.suppress(OSError):  # A reader need not be able to write.
        sealed.write(folder / NAME, {"files": kept})


def _state(path: Path, sha256: str) -> State:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
