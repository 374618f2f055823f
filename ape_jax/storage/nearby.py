"""The file that somebody meant, where the one that they wrote is not there."""

from __future__ import annotations

import difflib
import itertools
import os

_MOST_ENTRIES = 100_000


def instead_of(path: str) -> str:
    """Suggests an existing path for one that is missing: other case, ending or spelling.

    Example:
      >>> instead_of("/no/such/folder/cat.jpg")
      ''

    Args:
      path: of a file or folder that is not there.

    Returns:
      "there is 'cat.jpg'", or "" where nothing resembles it.
    """
    folder, name = os.path.split(path.rstrip("/") or path)
    while folder and not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder, name = os.path.split(folder)
    found = nearest(name, _entries(folder or "."))
    if found is None:
        return ""
    return f"there is {os.path.join(folder, found) if folder else found!r}".replace("\n", " ")


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most likely meant; None where none resembles it.

    Example:
      >>> nearest("Cat.JPG", ["cat.jpg", "car.jpg"]), nearest("cat", ["cat.jpg"])
      ('cat.jpg', 'cat.jpg')
    """
    if not name or name in known:
        return None
    lower = name.lower()
    stem = os.path.splitext(lower)[0]
    for alike in (
        lambda other: other.lower() == lower,
        lambda other: os.path.splitext(other.lower())[0] in (lower, stem),
    ):
        if found := next(filter(alike, known), None):
            return found
    if len(known) > _MOST_ENTRIES // 10:  # Spelling is compared one by one.
        return None
    return next(iter(difflib.get_close_matches(name, known, 1, 0.8)), None)


def _entries(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, _MOST_ENTRIES))
    except (OSError, ValueError):
        return []
