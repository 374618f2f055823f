"""Encoding jobs: all views of images, or distinct captions, a shard at a time.

A job has `count` items of `per_item` units, `per_shard` items a shard, and a `fingerprint` of the
features that come of it. Each shard is encoded by itself, with batches of its own: what else is
encoded, before it or in other processes, does not change a bit of it.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, overload

import numpy as np

from ape_jax.data import image_loader
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.features import fingerprint
from ape_jax.features.encoder import FeatureEncoder
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.images.augment import Augment

# Encoded images and captions a shard: some seconds of work, and tens of megabytes at most.
SHARD_VIEWS = 2048
SHARD_CAPTIONS = 4096
_SHARD_BYTES = 2**26

Rows = list[np.ndarray | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageJob:
    """Features of V views of every image. A row has shape [V, d], or [V, T, d] without pooling.

    Attributes:
      what: for progress lines.
      pairs: the records.
      frozen: the tower at work.
      dtype: of the features.
      views: V.
      augment: None for the plain image.
      seed: of the views.
      on_error: "skip" leaves unreadable images out.
      background: RGB under transparent pixels.
      workers: threads that decode, None for one a core.
      skipped: is filled with the images that were left out while encoding.
    """

    what: str
    pairs: Pairs
    frozen: FeatureEncoder
    dtype: np.dtype
    views: int = 1
    augment: Augment | None = None
    seed: int = 0
    on_error: image_loader.OnError = "error"
    background: tuple[int, int, int] = (255, 255, 255)
    workers: int | None = None
    skipped: image_loader.Skipped = dataclasses.field(default_factory=image_loader.Skipped)

    unit = "views"

    @property
    def count(self) -> int:
        """Images."""
        return len(self.pairs)

    @property
    def per_item(self) -> int:
        """Views."""
        return self.views

    @property
    def per_shard(self) -> int:
        """Images a shard."""
        by_size = _SHARD_BYTES // (np.prod(self.shape, dtype=np.int64) * self.dtype.itemsize)
        return int(max(1, min(SHARD_VIEWS // self.views, by_size)))

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of an image's features, [V, d] or [V, T, d]."""
        return (self.views, *self.frozen.image_shape())

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """Of the features."""
        reading: Mapping[str, Any] = {
            "views": self.views,
            **{
                f"augmentation {field.name}": getattr(self.augment, field.name, None) or "off"
                for field in dataclasses.fields(Augment)
            },
            # Of clean views nothing is drawn.
            "view seed": "none" if self.augment is None else self.seed,
            "background": tuple(self.background),
            "unreadable images": self.on_error,
            "images a shard": self.per_shard,
        }
        return fingerprint.of_images(self.frozen, self.pairs, self.dtype.name, reading)

    def need(self, blocks: Sequence[range]) -> int:
        """Bytes of the features of all images of these blocks, at most."""
        items = sum(map(len, blocks))
        return items * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def encode(self, block: range, report: Callable[[int], None]) -> Rows:
        """Each image's features, None for one that cannot be read; `report` is told of progress."""
        batches = image_loader.image_batches(
            self.pairs,
            transform=self.frozen.tower.prepare.transform,
            augment=self.augment,
            views=self.views,
            seed=self.seed,
            batch=self.frozen.rows,
            on_error=self.on_error,
            background=self.background,
            indices=np.arange(block.start, block.stop),
            workers=self.workers,
            skipped=self.skipped,
        )
        rows: Rows = [None] * len(block)
        stream = self.frozen.stream_images(batches)
        try:
            for index, view, features in stream:
                for i, v, row in zip(index - block.start, view, features.astype(self.dtype)):
                    if rows[i] is None:
                        rows[i] = np.empty(self.shape, self.dtype)
                    rows[i][v] = row
                report(len(index))
        except UserError:
            # A block of which nothing can be read is no error while there are others.
            if not set(block) <= set(self.skipped.indices):
                raise
        return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """Token encodings of distinct captions. A row has shape [t, d].

    Attributes:
      what: for progress lines.
      texts: the captions.
      spec: what they were read from.
      frozen: the tower at work.
      dtype: of the encodings.
    """

    what: str
    texts: Sequence[str]
    spec: str
    frozen: FeatureEncoder
    dtype: np.dtype

    unit = "captions"
    per_item = 1

    @property
    def count(self) -> int:
        """Captions."""
        return len(self.texts)

    @property
    def per_shard(self) -> int:
        """Captions a shard."""
        return SHARD_CAPTIONS

    @functools.cached_property
    def width(self) -> int:
        """Of a token's encoding."""
        return self.frozen.token_width()

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """Of the encodings."""
        extra = {"captions a shard": self.per_shard}
        return fingerprint.of_captions(self.frozen, self.texts, self.spec, self.dtype.name, extra)

    def need(self, blocks: Sequence[range]) -> int:
        """Bytes of the encodings of all tokens of these blocks, at most."""
        texts = _Chosen(self.texts, blocks)
        if not len(texts):
            return 0
        tokens = int(self.frozen.token_counts(texts, self.what).sum())
        return tokens * self.width * self.dtype.itemsize

    def encode(self, block: range, report: Callable[[int], None]) -> Rows:
        """Each caption's tokens; `report` is told of progress."""
        rows: Rows = [None] * len(block)
        texts = list(self.texts[block.start : block.stop])
        for index, encoded in self.frozen.stream_texts(texts, self.what):
            for i, row in zip(index, encoded):
                rows[i] = row.astype(self.dtype)
            report(len(index))
        return rows


class _Chosen(Sequence[str]):
    """The texts of some blocks, read when they are asked for: millions of them are no list."""

    def __init__(self, texts: Sequence[str], blocks: Sequence[range]):
        self._texts, self._blocks = texts, blocks
        self._ends = list(itertools.accumulate(map(len, blocks)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, int):
            at = range(len(self))[i]
            return self[at : at + 1][0]
        start, stop, _ = i.indices(len(self))
        found: list[str] = []
        part = bisect.bisect_right(self._ends, start)
        while start < stop:
            block, end = self._blocks[part], min(stop, self._ends[part])
            shift = block.stop - self._ends[part]
            found += self._texts[start + shift : end + shift]
            start, part = end, part + 1
        return found


Job: TypeAlias = ImageJob | CaptionJob
