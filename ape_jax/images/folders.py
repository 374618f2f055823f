"""Finds the images below a folder, and says what else is there."""

from __future__ import annotations

import collections
import dataclasses
import os

from ape_jax.errors import UserError
from ape_jax.images import walk
from ape_jax.images.formats import HEAD, is_image_content, is_image_name, is_litter
from ape_jax.storage import files

_NAMED = 5  # Kinds of files that a note names; the rest is counted.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Content of a folder and of all that are below it.

    Attributes:
      paths: the images, folder by folder, sorted by name in each.
      other: number of files of each other kind, by ending ("" for none).
      litter: number of files that macOS has put there.
      closed: number of folders that cannot be opened.
      again: number of links to folders that are read already, or that hold the folder itself;
        other links are followed.
    """

    paths: tuple[str, ...]
    other: dict[str, int]
    litter: int
    closed: int
    again: int

    def notes(self) -> tuple[str, ...]:
        """Phrases that say what was left out."""
        most = sorted(self.other.items(), key=lambda kind: (-kind[1], kind[0]))
        kinds = [f"{count} {ending or 'without ending'}" for ending, count in most[:_NAMED]]
        kinds += [f"{sum(count for _, count in most[_NAMED:])} more"] if most[_NAMED:] else []
        said = {
            f"{sum(self.other.values())} files of other kinds ({', '.join(kinds)})": self.other,
            f"{self.litter} files of macOS (._* or __MACOSX)": self.litter,
            f"{self.closed} folders that cannot be opened": self.closed,
            f"{self.again} links to folders that are read already": self.again,
        }
        return tuple(note for note, count in said.items() if count)

    def said(self) -> str:
        """What was left out, in brackets."""
        return f" ({'; '.join(self.notes()) or '0 other files'})"


def images_below(folder: str) -> Found:
    """Finds images by the ending of their files, and by content where the ending is another.

    Links to folders are followed, each folder is read once: where a link and a folder lead to the
    same files, the paths are those of the folder.

    Args:
      folder: an absolute path.

    Returns:
      The images, and what was left out.
    """
    paths, other, litter = [], collections.Counter(), 0
    problems = collections.Counter()
    for found in walk.folders(folder):
        problems[found.problem] += 1
        if found.others:
            other["links to nothing, or no plain files"] += found.others
        in_litter = is_litter(os.path.relpath(found.path, folder))
        for name in found.files:
            path = os.path.join(found.path, name)
            if in_litter or is_litter(name):
                litter += 1
            elif is_image_name(name) or _is_image(path):
                paths.append(path)
            else:
                other[os.path.splitext(name)[1].lower()[:20]] += 1
    return Found(
        paths=tuple(paths),
        other=dict(other),
        litter=litter,
        closed=problems["cannot be opened"],
        again=problems["is read already"],
    )


def _is_image(path: str) -> bool:
    try:
        with files.opened(path) as file:
            return is_image_content(file.read(HEAD))
    except (OSError, UserError):
        return False
