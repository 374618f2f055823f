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
from ape_jax.storage import files, sealed

NAME = "verified.json"
_ALWAYS = 2**20  # Bytes; smaller files are read every time.
_SETTLED = 2 * 10**9  # Nanoseconds; file systems with the coarsest times count by 2 s.

Hashes = Mapping[str, str]
"""The sha256 of files, by their paths in a folder."""

# What is compared of a file, None where there is none.
State = list[Any] | None


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of files, as they are now on the disk.

    Args:
      folder: that holds them.
      names: paths in it.

    Raises:
      OSError: one is not there, or cannot be read.
      UserError: one is no file.
    """
    return {name: files.sha256(folder / name) for name in names}


def damage(folder: Path, expected: Hashes, notes: str | None = NAME) -> str | None:
    """Says what is wrong with files that a program wrote; None where all are as it wrote them.

    A large file is read whole unless it is as it was when it was verified last; a small one always.

    Args:
      folder: that holds the files.
      expected: their hashes.
      notes: name of the file of notes in the folder; None reads everything and notes nothing.
    """
    named = {folder / name: digest for name, digest in expected.items()}
    found = states(named)
    known = [] if notes is None else [path for path, state in found.items() if state]
    known = [path for path in known if (found[path] or [0, 0])[1] > _ALWAYS]
    kept = set(known) - set(changed(folder, found, notes or NAME))
    for path, digest in named.items():
        name = path.relative_to(folder)
        if found[path] is None:
            return f"{name} is missing"
        if path in kept:
            continue
        try:
            if files.sha256(path, str(name)) != digest:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        except UserError as error:  # Its remedy is the caller's.
            return str(error).partition(";")[0]
    if notes is not None and len(kept) < len(known):
        note(folder, known, found, notes)
    return None


def states(named: Mapping[Path, str]) -> dict[Path, State]:
    """What the files are like now.

    Args:
      named: the checksum on record of each file.
    """
    return {path: _state(path, sha256) for path, sha256 in named.items()}


def changed(folder: Path, found: Mapping[Path, State], notes: str = NAME) -> list[Path]:
    """The files that are not as they were when they were verified, or never were.

    Args:
      folder: where the notes are.
      found: what the files are like now.
      notes: name of the file of notes.
    """
    try:
        noted = sealed.read(folder / notes)["files"]
    except (FileNotFoundError, UserError, KeyError):
        noted = {}  # Of no note nothing follows: everything is verified again.
    if not isinstance(noted, dict):
        noted = {}
    return [
        path
        for path, state in found.items()
        if not state or noted.get(_name(path, folder)) != state
    ]


def note(
    folder: Path, paths: Iterable[Path], found: Mapping[Path, State], notes: str = NAME
) -> None:
    """Notes that files were verified.

    Args:
      folder: where the notes are.
      paths: all files that are verified, now or before.
      found: what they were like before they were verified.
      notes: name of the file of notes.
    """
    now = time.time_ns()
    kept: dict[str, State] = {}
    for path in paths:
        state = found[path]
        if state and max(state[2], state[3]) + _SETTLED <= now and _state(path, state[0]) == state:
            kept[_name(path, folder)] = state
    with contextlib.suppress(OSError):  # A reader need not be able to write.
        sealed.write(folder / notes, {"files": kept})


def _name(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder)


def _state(path: Path, sha256: str) -> State:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # A name that no file can have is of none.
        return None
    return [sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
