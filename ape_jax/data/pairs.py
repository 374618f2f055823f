"""Pairs: images, as references that are not decoded, and their captions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import SupportsIndex, overload

import numpy as np

from ape_jax.images.decode import ImageRef, check_encoded
from ape_jax.terminal.progress import track

# Up to here a digest reads the images themselves; above, their names and sizes stand for them.
_CONTENT_BYTES = 256 * 2**20
_CONTENT_IMAGES = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One image and all its captions.

    Attributes:
      image: where the image is.
      captions: at least one.
      id: explicit, or the image's path as seen from the pairs file.
    """

    image: ImageRef
    captions: tuple[str, ...]
    id: str


class Pairs(Sequence[Pair]):
    """A sequence of `Pair`s.

    Attributes:
      spec: what it was opened from.
      num_captions: number of captions of all images.
    """

    def __init__(self, pairs: Iterable[Pair], spec: str = "pairs"):
        self._pairs = tuple(pairs)
        self.spec = spec
        self.num_captions = sum(len(p.captions) for p in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, i: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> Pair | tuple[Pair, ...]:
        return self._pairs[i]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __repr__(self) -> str:
        return f"Pairs({self.spec!r}, images={len(self)}, captions={self.num_captions})"

    @functools.cached_property
    def _sizes(self) -> list[int]:
        return [_nbytes(p.image) for p in self._pairs]

    @property
    def _by_content(self) -> bool:
        return sum(self._sizes) <= _CONTENT_BYTES and len(self) <= _CONTENT_IMAGES

    @functools.cached_property
    def image_hashes(self) -> list[bytes]:
        """The sha256 of each image's bytes; in a larger set, as for `digest`, of its id."""
        if not self._by_content:
            ids = (pair.id.encode("utf-8", "surrogatepass") for pair in self._pairs)
            return [hashlib.sha256(name).digest() for name in ids]
        tracked = track(self._pairs, "hashing images", len(self), "images")
        return [_image_hash(pair.image) for pair in tracked]

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of ids, captions and images, in order; the same on every machine.

        Images count by their bytes up to 256 MiB and 20,000 images in all. A larger set counts
        each by its size only, beside its id: an image replaced by one of the same size in bytes
        goes unnoticed there.
        """
        sizes, by_content = self._sizes, self._by_content
        total = hashlib.sha256(
            b"ape_jax pairs 1 content" if by_content else b"ape_jax pairs 1 size"
        )
        for pair, size in zip(track(self._pairs, "hashing pairs", len(self), "pairs"), sizes):
            image = _image_hash(pair.image) if by_content else size.to_bytes(8, "little")
            # A path on disk need not be valid Unicode.
            name = pair.id.encode("utf-8", "surrogatepass")
            for part in (name, image, *(c.encode() for c in pair.captions)):
                total.update(len(part).to_bytes(8, "little"))
                total.update(part)
            total.update(len(pair.captions).to_bytes(8, "little"))
        return total.hexdigest()


def _nbytes(image: ImageRef) -> int:
    return image.nbytes if image.nbytes is not None else check_encoded(image.content, image.name)


def _image_hash(image: ImageRef) -> bytes:
    content = image.content
    if isinstance(content, str):
        try:
            with open(content, "rb") as f:
                return hashlib.file_digest(f, "sha256").digest()
        except OSError:  # Whoever decodes it says so, or skips it.
            return b"unreadable"
    if isinstance(content, np.ndarray):
        content = repr(content.shape).encode() + content.tobytes()
    return hashlib.sha256(content).digest()
