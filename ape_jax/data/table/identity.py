"""What identifies pairs: the digest of ids, captions and images, and hashes of images."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ape_jax.data.remote.fetch import Remote
from ape_jax.data.table.stored import Table
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef, check_encoded
from ape_jax.storage import files, sealed
from ape_jax.terminal.progress import track

# Up to here a digest reads the images themselves; above, their names and sizes stand for them.
_CONTENT_BYTES = 256 * 2**20
_CONTENT_IMAGES = 20_000
_OTHERS = ("negatives", "languages")


def by_content(table: Table, rows: Int[np.ndarray, " n"]) -> list[ImageRef] | None:
    """The images, where they are few and small enough to count by their bytes; else None."""
    if len(rows) > _CONTENT_IMAGES:
        return None
    images, total = [], 0
    for image in table.images(rows):
        total += _nbytes(image)
        if total > _CONTENT_BYTES:
            return None
        images.append(image)
    return images


def digest(table: Table, rows: Int[np.ndarray, " n"] | None) -> str:
    """The sha256 of pairs; see `Pairs.digest`.

    Args:
      table: the pairs.
      rows: those that count, None for all; the digest of all is kept beside the table.
    """
    chosen = np.arange(len(table)) if rows is None else rows
    images = by_content(table, chosen)
    if rows is not None or table.folder is None:
        return _digest(table, chosen, images)
    stamp, kept = "sizes" if images is None else _stamp(images), _kept(table.folder)
    if kept.get("stamp") == stamp:
        return kept["digest"]
    value = _digest(table, chosen, images)
    with contextlib.suppress(OSError):  # A reader need not be able to write.
        sealed.write(table.folder / "digest.json", {"digest": value, "stamp": stamp})
    return value


def _digest(table: Table, rows: Int[np.ndarray, " n"], images: list[ImageRef] | None) -> str:
    kind = b"size" if images is None else b"content"
    total = hashlib.sha256(b"ape_jax pairs 1 " + kind)
    counts = sizes(table, rows) if images is None else map(image_hash, images)
    tracked = track(_named(table, rows), "hashing pairs", len(rows), "pairs")
    for counted, (name, captions, *others) in zip(counts, tracked):
        for part in (name, counted, *(caption.encode() for caption in captions)):
            total.update(len(part).to_bytes(8, "little"))
            total.update(part)
        total.update(len(captions).to_bytes(8, "little"))
        for kind, texts in zip(_OTHERS, others, strict=True):
            if not texts:  # Pairs without have the digest that they had before there were any.
                continue
            for part in (kind.encode(), *(text.encode() for text in texts)):
                total.update(len(part).to_bytes(8, "little"))
                total.update(part)
            total.update(len(texts).to_bytes(8, "little"))
    return total.hexdigest()


def sizes(table: Table, rows: Int[np.ndarray, " n"]) -> Iterator[bytes]:
    """Yields the size of each image, eight bytes; files are looked at, column by column."""
    if table.refs:
        yield from (_nbytes(image).to_bytes(8, "little") for image in table.images(rows))
        return
    at = 0
    columns = (table.column(name, rows) for name in ("size", "path"))
    for known, paths in zip(*columns, strict=True):
        for size, path in zip(known.to_pylist(), paths.to_pylist(), strict=True):
            if size < 0:
                size = _file_size(path) or _nbytes(table.image(int(rows[at])))
            yield size.to_bytes(8, "little")
            at += 1


def _file_size(path: bytes) -> int:
    try:
        return os.stat(path.decode("utf-8", "surrogatepass")).st_size
    except (OSError, ValueError):  # Said by `check_encoded`.
        return 0


def _named(table: Table, rows: Int[np.ndarray, " n"]) -> Iterator[tuple[Any, ...]]:
    """Yields the id, the captions, and what else counts of each row, None where it has none."""
    columns = (table.column(name, rows) for name in ("id", "captions", *_OTHERS))
    for block in zip(*columns, strict=True):
        yield from zip(*(column.to_pylist() for column in block), strict=True)


def _kept(folder: Path) -> dict[str, Any]:
    try:
        return sealed.read(folder / "digest.json")
    except (FileNotFoundError, UserError):  # Made again.
        return {}


def _stamp(images: Iterable[ImageRef]) -> str:
    """A hash of sizes and times of the images' files."""
    total = hashlib.sha256()
    for image in images:
        source = image.source
        if isinstance(source, str):
            with contextlib.suppress(OSError, ValueError):
                status = os.stat(source)
                line = f"{source} {status.st_size} {status.st_mtime_ns}\n"
                total.update(line.encode(errors="replace"))
    return total.hexdigest()


def _nbytes(image: ImageRef) -> int:
    if isinstance(image.source, Remote):  # Its url stands for it; nothing is fetched for a digest.
        return 0
    return image.nbytes if image.nbytes is not None else check_encoded(image.content, image.name)


def image_hash(image: ImageRef) -> bytes:
    """The sha256 of an image's bytes, of an array's shape and values, or of a url."""
    if isinstance(image.source, Remote):
        return hashlib.sha256(image.source.url.encode("utf-8", "surrogatepass")).digest()
    content = image.content
    if isinstance(content, str):
        try:
            return bytes.fromhex(files.sha256(content))
        except (OSError, UserError):  # Whoever decodes it says so, or skips it.
            return b"unreadable"
    if isinstance(content, np.ndarray):
        content = repr(content.shape).encode() + content.tobytes()
    return hashlib.sha256(content).digest()
