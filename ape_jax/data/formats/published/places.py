"""Folders and text files of published data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ape_jax.data.rows import MAX_RECORD_BYTES, Ask, Broken
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


def lines(path: str) -> Iterator[tuple[int, str] | Broken]:
    """The lines of a text file that are not blank, with their numbers from 1.

    Args:
      path: a text file, UTF-8 with or without a byte order mark.

    Raises:
      UserError: a line is longer than `MAX_RECORD_BYTES`.
    """
    with open(path, "rb") as f:
        number = 0
        while line := f.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                raise UserError(
                    f"{path}:{number}: the line is longer than {MAX_RECORD_BYTES} bytes; write one "
                    "caption a line"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as e:
                reason = f"the line is not UTF-8 text (byte {e.start}); save the file as UTF-8"
                yield Broken(str(number), "not UTF-8", reason)
                continue
            if text.strip():
                yield number, text


def first_line(path: str) -> str:
    """The first line of a file that is not blank, at most 64 KiB; "" where there is none."""
    try:
        with open(path, "rb") as f:
            head = f.read(2**16).decode("utf-8-sig", "ignore").lstrip("\r\n \t")
    except OSError:
        return ""
    return head.splitlines()[0] if head else ""


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
