"""Images to index: those below a folder, or of a pairs file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator

import numpy as np

from ape_jax.data.cells import printable
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.places import sources
from ape_jax.data.specs import open_pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.images import folders
from ape_jax.images.decode import ImageError, ImageRef, check_encoded
from ape_jax.images.formats import IMAGE_ENDINGS
from ape_jax.terminal.progress import track


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """An image to index.

    Attributes:
      name: path of its file, or `SOURCE::ID` of an image inside another file.
      stamp: size and time of the file, or a hash; differs if the image may have changed.
      captions: captions from a pairs file.
      image: reference to the image.
    """

    name: str
    stamp: str
    captions: tuple[str, ...]
    image: ImageRef


@dataclasses.dataclass(frozen=True)
class Source:
    """All images of a folder or a pairs file.

    Attributes:
      spec: argument of `open_images`, with absolute paths.
      items: the images, in a fixed order.
      notes: phrases that say what was skipped.
    """

    spec: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def open_images(
    spec: str | os.PathLike[str], *, key: str, reading: Reading | None = None
) -> Source:
    """The images of a folder, subfolders included, or of a pairs file; nothing is decoded.

    Args:
      spec: a folder, or what `open_pairs` takes.
      key: the flag or field to name in messages.
      reading: of a pairs file, what happens to rows that cannot be used; None stops at them.

    Raises:
      UserError: for a folder that is missing, cannot be read or has no images; as `open_pairs`.
    """
    written = os.path.expanduser(os.fspath(spec))
    if not written.strip():
        raise UserError(f"{key}: found nothing; write a folder of images or a pairs file")
    if "\0" not in written and os.path.isdir(written):
        return _of_folder(os.path.abspath(written), key)
    named, suffix = registry.is_named(written), os.path.splitext(written)[1].lower()
    if not (named or suffix) or suffix in IMAGE_ENDINGS:
        raise UserError(
            f"{key}: there is no folder {written!r}; write one, or a pairs file such as pairs.jsonl"
        )
    pairs = open_pairs(sources.absolute(written), key=key, reading=reading)
    if isinstance(pairs, VectorPairs):
        raise UserError(f"{key}: {written!r} holds vectors and no images; name images")
    return of_pairs(pairs)


def of_pairs(pairs: Pairs) -> Source:
    """The images of pairs, each with its captions."""
    return Source(pairs.spec, tuple(_pair_items(pairs)))


def _pair_items(pairs: Pairs) -> Iterator[Item]:
    for pair in track(pairs, f"looking at {pairs.spec}", len(pairs), "images"):
        content = pair.image.content
        if isinstance(content, str):
            yield Item(os.path.abspath(content), _stamp(content), pair.captions, pair.image)
        else:
            name = f"{pairs.spec}::{pair.id}"
            yield Item(name, _hash(content), pair.captions, pair.image)


def _of_folder(folder: str, key: str) -> Source:
    found = folders.images_below(folder)
    if not found.paths:
        raise UserError(
            f"{key}: {printable(folder)} holds no image{found.said()}; name a folder with images"
        )
    items = tuple(
        Item(path, _stamp(path), (), ImageRef(path, printable(path))) for path in found.paths
    )
    return Source(folder, items, found.notes())


def _stamp(path: str) -> str:
    try:
        check_encoded(path, path)
        status = os.stat(path)
    except (ImageError, OSError):  # Whoever decodes it says what is wrong with it.
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}"


def _hash(content: bytes | np.ndarray) -> str:
    if isinstance(content, np.ndarray):
        content = repr(content.shape).encode() + content.tobytes()
    return hashlib.sha256(content).hexdigest()
