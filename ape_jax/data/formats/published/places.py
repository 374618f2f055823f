"""Folders and text files of published data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from ape_jax.data.formats.tables.text import TOO_LONG, damage, start_of, text_blocks
from ape_jax.data.rows import Ask, Broken
from ape_jax.errors import UserError


def folders(path: str, *names: str) -> tuple[str, ...]:
    """Folders in which the images of an annotations file may lie, the likeliest first.

    Annotations lie beside the folder of images, or in a folder of their own beside it.

    Example:
      >>> folders("coco/annotations/a.json", "train2017")[:3]
      ('coco/annotations', 'coco/annotations/train2017', 'coco/annotations/images')

    Args:
      path: the annotations file.
      names: usual names of the folder of images, beside `images`.
    """
    own = os.path.dirname(path)
    found: list[str] = []
    for top in (own, os.path.normpath(os.path.join(own, os.pardir))):
        inside = [top, *(os.path.join(top, name) for name in (*names, "images"))]
        found += [*inside, *(os.path.join(top, "images", name) for name in names)]
    return tuple(dict.fromkeys(found))


def lines(path: str, say: Callable[[str], None]) -> Iterator[tuple[int, str] | Broken]:
    """The lines of a text file that are not blank, with their numbers from 1.

    Args:
      path: a text file, in any encoding of Unicode, which may be compressed.
      say: takes a line for the user about an encoding that was found.

    Raises:
      UserError: the file cannot be read or decompressed.
    """
    for block in text_blocks(path, say, legacy=False):
        if block.too_long:
            yield Broken(str(block.line), "damaged row", TOO_LONG)
            continue
        ends = "\n" if "\n" in block.text else "\r"
        for number, line in enumerate(block.text.split(ends), block.line):
            if block.damaged and (reason := damage(line)):
                kind = "damaged row" if "\0" in line else "not UTF-8"
                yield Broken(str(number), kind, reason)
            elif line.strip():
                yield number, line.strip("\r\n")


def first_line(path: str) -> str:
    """The first line of a file that is not blank, at most 64 KiB; "" where there is none."""
    return next(iter(start_of(path).lstrip("\r\n \t").splitlines()), "")


def only_captions(ask: Ask, path: str) -> None:
    """Raises UserError where labels are wanted of a data set that has captions."""
    if ask.wanted == "label":
        raise UserError(
            f"{ask.key}: {path!r} holds captions and no labels; give labelled images, such as a "
            "folder of a folder a class"
        )


def only_whole(ask: Ask, path: str) -> None:
    """Raises UserError for a part of a file that has none."""
    if ask.part:
        raise UserError(
            f"{ask.key}: {path!r} has no splits, found {ask.part!r} behind its name; leave it out"
        )


def counted(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Sequence[str]) -> str:
    """`'a', 'b' and 3 more`."""
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + rest
