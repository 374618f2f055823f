"""Captions that stand on several images, and images of equal bytes under several names."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

from ape_jax.data.overview.scripts import raw_bytes
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, ImageRef, check_encoded
from ape_jax.storage import files
from ape_jax.terminal.progress import track

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 10
# Bytes of a caption that its hash tells apart by place; a longer one goes round.
_PLACES = 2**14


class Repeated(NamedTuple):
    """Something that occurs on several images.

    Attributes:
      images: number of images.
      rows: the first of them.
    """

    images: int
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeats:
    """What occurs on several images.

    Attributes:
      things: how many different ones.
      images: images that have at least one of them.
      most: those on the most images, at most ten.
      looked_at: images that were compared.
    """

    things: int
    images: int
    most: Sequence[Repeated]
    looked_at: int

    def record(self) -> dict[str, Any]:
        """The figures for JSON."""
        most = [{"images": some.images, "rows": list(some.rows)} for some in self.most]
        counts = {"different": self.things, "images": self.images, "looked_at": self.looked_at}
        return {**counts, "most": most}


class CaptionRepeats:
    """Finds captions that several images have, letter for letter.

    Captions are compared by hashes of 64 bits, so that a set costs 16 bytes a caption.
    """

    def __init__(self) -> None:
        self._hashes, self._images = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]

    def add(self, texts: pa.Array, images: Int[np.ndarray, " n"]) -> None:
        """Adds a block.

        Args:
          texts: captions, string [n], without nulls.
          images: the image of each; ascends over all blocks.
        """
        self._hashes.append(text_hashes(texts))
        self._images.append(images)

    def result(self) -> Repeats:
        """What the blocks so far hold."""
        return _repeats(np.concatenate(self._hashes), np.concatenate(self._images))


def repeated_images(
    count: int, image: Callable[[int], ImageRef], *, limit: int, most_bytes: int
) -> Repeats:
    """Finds images whose encoded bytes are equal.

    Only images of equal size are read.

    Args:
      count: number of images.
      image: gives the image of a row.
      limit: the first so many are looked at.
      most_bytes: so many bytes are read at most; the search ends there.
    """
    looked_at = min(count, limit)
    sizes = np.full(looked_at, -1, np.int64)
    for i in track(range(looked_at), "comparing images", looked_at, "images"):
        sizes[i] = _size(image(i))
    values, counts = np.unique(sizes, return_counts=True)
    equal = np.isin(sizes, values[(counts > 1) & (values > 0)])
    within = np.cumsum(np.where(equal, sizes, 0)) <= most_bytes
    chosen = np.flatnonzero(equal & within)
    hashes = np.fromiter((_content_hash(image(int(i))) for i in chosen), np.uint64, len(chosen))
    if not within.all():
        looked_at = int(np.argmin(within))
    found = _repeats(hashes[hashes != 0], chosen[hashes != 0])
    return dataclasses.replace(found, looked_at=looked_at)


def text_hashes(texts: pa.Array) -> UInt64[np.ndarray, " n"]:
    """Hashes of 64 bits of texts, the same in every block.

    Each byte is multiplied by a random number of its place; the sum is universal, so that two
    different texts have equal hashes about once in 2**56.

    Args:
      texts: string [n], without nulls.
    """
    import pyarrow as pa

    texts = texts.cast(pa.large_string())
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    lengths = np.diff(offsets)
    data = np.frombuffer(raw_bytes(texts), np.uint8)
    factors = np.random.default_rng(20221003).integers(0, 2**64, _PLACES + 1, np.uint64)
    starts = offsets[:-1] - offsets[0]
    place = np.arange(len(data)) - np.repeat(starts, lengths)
    turn = (place // _PLACES).astype(np.uint64) * np.uint64(2) + np.uint64(1)
    terms = (data.astype(np.uint64) + np.uint64(1)) * factors[place % _PLACES] * turn
    found = lengths.astype(np.uint64) * factors[-1]
    some = lengths > 0  # `reduceat` gives a term, not 0, where nothing is to be added.
    if some.any():
        found[some] += np.add.reduceat(terms, starts[some])
    return found


def _repeats(hashes: UInt64[np.ndarray, " n"], images: Int[np.ndarray, " n"]) -> Repeats:
    """Groups equal hashes; `images` ascends."""
    order = np.argsort(hashes, kind="stable")
    hashes, images = hashes[order], images[order]
    first = _changes(hashes)
    # The same image may have the same caption twice.
    distinct = first | _changes(images)
    groups = np.flatnonzero(first)
    counts = np.add.reduceat(distinct, groups, dtype=np.int64) if len(groups) else groups
    ends = np.append(groups[1:], len(hashes))
    several = np.flatnonzero(counts > 1)
    inside = np.repeat(counts > 1, ends - groups)
    best = several[np.argsort(-counts[several], kind="stable")][:_SHOWN]
    most = [
        Repeated(int(counts[g]), tuple(np.unique(images[groups[g] : ends[g]])[:_SHOWN].tolist()))
        for g in best
    ]
    return Repeats(
        things=len(several),
        images=len(np.unique(images[inside])),
        most=most,
        looked_at=len(np.unique(images)),
    )


def _changes(values: np.ndarray) -> Bool[np.ndarray, " n"]:
    return np.append(np.ones(min(len(values), 1), bool), values[1:] != values[:-1])


def _size(image: ImageRef) -> int:
    try:
        return image.nbytes if image.nbytes is not None else check_encoded(image.content, "")
    except ImageError:
        return 0


def _content_hash(image: ImageRef) -> int:
    """64 bits of the sha256 of an image's bytes; 0 if they cannot be read."""
    content: Any = image.content
    if isinstance(content, np.ndarray):
        content = repr(content.shape).encode() + content.tobytes()
    try:
        if isinstance(content, str):
            digest = bytes.fromhex(files.sha256(content))
        else:
            digest = hashlib.sha256(content).digest()
    except (OSError, UserError):
        return 0
    return int.from_bytes(digest[:8], "little")
