"""The files below a folder, in order, through links and however deep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal, NamedTuple

Problem = Literal["", "cannot be opened", "is read already"]


class Folder(NamedTuple):
    """The files of one folder.

    Attributes:
      path: of the folder.
      files: their names, sorted.
      others: number of links to nothing, pipes and the like.
      problem: why it is not read: it cannot be opened; or it is a link to what is read already, or
        to what holds the folder that was asked for. "" where it is read.
    """

    path: str
    files: tuple[str, ...] = ()
    others: int = 0
    problem: Problem = ""


def folders(root: str) -> Iterator[Folder]:
    """Yields a folder and those below it, sorted by name, each once.

    Links to folders are followed, behind all that is reached without them: where a link and a
    folder lead to the same files, the paths are those of the folder.

    Args:
      root: a folder, or a link to one.
    """
    # A link to what holds the folder itself would lead over the whole disk.
    around = os.path.join(os.path.realpath(root), "")
    links, seen = [root], set()
    for link in links:  # Grows.
        place = os.path.join(os.path.realpath(link), "")
        if link is not root and around.startswith(place):
            yield Folder(link, problem="is read already")
            continue
        waiting = [link]
        while waiting:
            path = waiting.pop()
            try:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) in seen:
                    yield Folder(path, problem="is read already")
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = _Entries(path)
            except OSError:  # Not ours to read, or a path that is longer than the system takes.
                yield Folder(path, problem="cannot be opened")
                continue
            yield Folder(path, tuple(sorted(entries.files)), entries.others)
            waiting += (os.path.join(path, name) for name in sorted(entries.below, reverse=True))
            links += (os.path.join(path, name) for name in sorted(entries.links))


def below(path: str) -> list[str]:
    """The names of the folders in a folder, sorted; none where it cannot be opened."""
    try:
        entries = _Entries(path)
    except OSError:
        return []
    return sorted((*entries.below, *entries.links))


class _Entries:
    """Names in a folder, by what they are."""

    def __init__(self, path: str):
        self.files: list[str] = []
        self.below: list[str] = []
        self.links: list[str] = []
        self.others = 0
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file():
                    self.files.append(entry.name)
                elif not entry.is_dir():
                    self.others += 1
                else:
                    (self.links if entry.is_symlink() else self.below).append(entry.name)
