"""Pairs at the frontier: a table of captions, and the features of whichever tower is frozen."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from ape_jax.data import augment as augment_lib
from ape_jax.data import pairs as pairs_lib
from ape_jax.data import pipeline
from ape_jax.features import encode
from ape_jax.features.ragged import RaggedTokens
from ape_jax.features.store import FeatureStore, tower_key
from ape_jax.parallel import hosts


@dataclasses.dataclass(frozen=True)
class Captions:
    """Every caption of every record, identical texts once.

    Attributes:
      texts: the distinct captions.
      rows: i64 [m], the place in `texts` of each caption, record after record.
      offsets: i64 [n + 1]; record i has `rows[offsets[i]:offsets[i + 1]]`.
    """

    texts: tuple[str, ...]
    rows: Int[np.ndarray, "m"]
    offsets: Int[np.ndarray, "n+1"]

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, "n"]:
        """How many captions each record has."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> Int[np.ndarray, "m"]:
        """The record of each caption."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)


def captions_of(pairs: Sequence[pairs_lib.Pair]) -> Captions:
    """The caption table of a pairs source."""
    place: dict[str, int] = {}
    rows: list[int] = []
    offsets = [0]
    for i in range(len(pairs)):
        rows += [place.setdefault(text, len(place)) for text in pairs[i].captions]
        offsets.append(len(rows))
    return Captions(tuple(place), np.asarray(rows), np.asarray(offsets))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A pairs source with what was encoded of it.

    Attributes:
      pairs: the records that are used.
      captions: their captions.
      pooled: f32 [n, V, d] image features of V views, None where images are encoded in the step.
      tokens: encodings of `captions.texts`, None where the text tower is trained.
    """

    pairs: Sequence[pairs_lib.Pair]
    captions: Captions
    pooled: Float[np.ndarray, "n V d"] | None
    tokens: RaggedTokens | None


def encode_pairs(
    pairs: pairs_lib.Pairs,
    image: encode.FrozenTower | None,
    text: encode.FrozenTower | None,
    config: ml_collections.ConfigDict,
    store: FeatureStore,
    *,
    name: str,
    views: int = 1,
) -> Dataset:
    """Encodes what lies below the frontier.

    Args:
      pairs: the source.
      image: the image tower, None where images are not encoded beforehand.
      text: the text tower, None where it is trained.
      config: for `data`, `augment` and `cache`.
      store: features that this process has already.
      name: for progress lines.
      views: 0 or 1 for the clean image, else that many augmented views.

    Raises:
      UserError: for an image that cannot be read (`data.on_error='error'`), or if none could.
    """
    pooled = None
    if image is not None:
        augment = make_augment(config) if views > 1 else None
        key = (tower_key(image), pairs.digest, views, augment, config.cache.seed, _reading(config))
        pooled, seen = store.get(
            key, lambda: _encode_images(pairs, image, augment, config, name, max(views, 1))
        )
        if not seen.all():
            readable = [pairs[int(i)] for i in np.flatnonzero(seen)]
            pairs, pooled = pairs_lib.Pairs(readable, pairs.spec), pooled[seen]
    captions = captions_of(pairs)
    tokens = None
    if text is not None:
        key = (tower_key(text), captions.texts)
        tokens = store.get(
            key, lambda: encode.encode_texts(text, captions.texts, f"{name} captions")
        )
    return Dataset(pairs, captions, pooled, tokens)


def make_augment(config: ml_collections.ConfigDict) -> augment_lib.Augment | None:
    """The config's augmentation, None where it is off altogether."""
    crop, flip, randaugment = (config.augment[k] for k in ("crop", "flip", "randaugment"))
    if not (crop or flip or randaugment):
        return None
    return augment_lib.Augment(crop=crop or None, flip=flip, randaugment=randaugment or None)


def _encode_images(
    pairs: pairs_lib.Pairs,
    image: encode.FrozenTower,
    augment: augment_lib.Augment | None,
    config: ml_collections.ConfigDict,
    name: str,
    views: int,
) -> tuple[Any, Any]:
    skipped = pipeline.Skipped()
    batches = pipeline.image_batches(
        pairs,
        transform=image.tower.prepare.transform,
        augment=augment,
        views=views,
        seed=config.cache.seed,
        batch=image.rows,
        on_error=config.data.on_error,
        background=config.data.background,
        skipped=skipped,
    )
    encoded = encode.encode_images(image, batches, len(pairs), views, f"{name} images")
    report_skipped(skipped, len(pairs), name)
    return encoded


def leave_out_unreadable(
    pairs: pairs_lib.Pairs, transform: Any, config: ml_collections.ConfigDict, name: str
) -> pairs_lib.Pairs:
    """The records whose image can be read; for images that are not encoded beforehand."""
    skipped = pipeline.Skipped()
    batches = pipeline.image_batches(
        pairs, transform=transform, batch=64, on_error="skip", skipped=skipped
    )
    for _ in batches:
        pass
    report_skipped(skipped, len(pairs), name)
    bad = set(skipped.indices)
    return pairs_lib.Pairs([pairs[i] for i in range(len(pairs)) if i not in bad], pairs.spec)


def report_skipped(skipped: pipeline.Skipped, count: int, name: str) -> None:
    """Says which images were left out, and how many."""
    if len(skipped) and hosts.is_first():
        print(
            f"{name}: left out {len(skipped)} of {count} images that cannot be read: "
            + "; ".join(skipped.reasons),
            file=sys.stderr,
        )


def _reading(config: ml_collections.ConfigDict) -> tuple[Any, ...]:
    return (config.data.on_error, tuple(config.data.background))
