"""`SHA256SUMS` of a directory that is given away: hashes of its files, in the form of coreutils.

Anybody can compare them with `sha256sum -c SHA256SUMS`, without any of our code.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.storage import files, verified

NAME = "SHA256SUMS"
_FREE = ("README.md", NAME)  # A card is completed by hand.
_GUARDED = "checkpoints"  # A folder whose files have hashes of their own.


def write(folder: Path) -> None:
    """Writes the hashes of all files in a finished directory.

    Raises:
      OSError: one cannot be read, or the list cannot be written.
    """
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in _FREE
    )
    kept = [name for name in names if Path(name).parts[0] != _GUARDED]
    lines = [f"{digest}  {name}\n" for name, digest in verified.hashes(folder, kept).items()]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def check(folder: Path) -> None:
    """Compares the files of a directory with its `SHA256SUMS`, where it has one.

    They are read once in a process, and again when one has changed.

    Raises:
      UserError: naming the first file that is not as it was written.
    """
    try:
        text = files.read_text(folder / NAME)
    except FileNotFoundError:
        return
    expected: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or os.path.isabs(name) or ".." in Path(name).parts:
            raise UserError(f"{folder / NAME}:{number} is damaged; {_REMEDY}")
        expected[name] = digest
    named = {folder / name: digest for name, digest in expected.items()}
    states = tuple(repr(state) for state in verified.states(named).values())
    if wrong := _damage(folder, tuple(expected.items()), states):
        raise UserError(f"{folder}: {wrong}; {_REMEDY}")


_REMEDY = (
    f"take the directory from where it came from once more, or remove {NAME} where you have "
    "changed a file on purpose"
)


@functools.lru_cache(maxsize=64)
def _damage(folder: Path, expected: tuple[tuple[str, str], ...], states: tuple[str, ...]) -> str:
    """What is wrong; kept as long as files are in these states."""
    return verified.damage(folder, dict(expected), None) or ""
