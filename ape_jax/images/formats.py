"""Image formats that are read, and how files of them are recognised."""

from __future__ import annotations

import os

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Pillow's names of the formats that are read; MPO is read as JPEG, its first image."""

IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".gif", ".bmp", ".tif",
    ".tiff", ".jp2", ".jpx", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Endings of their files, in lower case, the most common ones first.

An ending says which files are images; how one is decoded follows from its content.
"""

HEAD = 16
"""Number of first bytes that `is_image_content` looks at."""

# TIFF is left out, since photographs in a camera's raw format begin like it, and so are BMP and
# PPM, since two letters prove nothing.
_STARTS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
)  # fmt: skip


def is_image_name(name: str) -> bool:
    """Returns whether a file name has the ending of an image, in lower or upper case.

    Example:
      >>> is_image_name("a.b.JFIF"), is_image_name("jpg")
      (True, False)
    """
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def is_image_content(head: bytes) -> bool:
    """Returns whether the first bytes of a file are beyond doubt those of an image that is read.

    Args:
      head: the first `HEAD` bytes.

    Example:
      >>> is_image_content(b"GIF89a..."), is_image_content(b"BM"), is_image_content(b"")
      (True, False, False)
    """
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis")
    return head.startswith(_STARTS)


def is_litter(path: str) -> bool:
    """Returns whether a file or tar member was put there by macOS and not by a person.

    These are `._NAME`, which has the ending of an image and holds none, `.DS_Store`, and whatever
    is below `__MACOSX`.

    Example:
      >>> is_litter("a/._cat.png"), is_litter("__MACOSX/cat.png"), is_litter("a/_cat.png")
      (True, True, False)
    """
    *folders, name = path.replace(os.sep, "/").split("/")
    return name.startswith("._") or name in (".DS_Store", "__MACOSX") or "__MACOSX" in folders
