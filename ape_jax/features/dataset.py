"""Pairs at the frontier: a table of captions, and the features of what is frozen of the towers."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ape_jax.config import Config
from ape_jax.config.components import text_needs
from ape_jax.data import image_loader
from ape_jax.data import pairs as pairs_lib
from ape_jax.data.vectors import VectorPairs
from ape_jax.data.words import leave_out_words
from ape_jax.errors import UserError
from ape_jax.features import encode, extract
from ape_jax.features.cache import say
from ape_jax.features.encode import FrozenTower
from ape_jax.features.jobs import CaptionJob, ImageJob
from ape_jax.features.ragged import RaggedTokens
from ape_jax.features.store import FeatureStore
from ape_jax.images import augment as augment_lib
from ape_jax.parallel import hosts
from ape_jax.storage.cache_folder import cache_dir


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
    offsets: Int[np.ndarray, " bounds"]

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
      pooled: bf16 or f32 [n, V, d] image features of V views, or [n, V, T, d] hidden states where
        the tower's upper blocks are trained; None where images are encoded in the step.
      tokens: encodings of `captions.texts`, or their hidden states; None where captions are encoded
        in the step.
    """

    pairs: Sequence[pairs_lib.Pair]
    captions: Captions
    pooled: Float[np.ndarray, "n V ..."] | None
    tokens: RaggedTokens | None

    def sample(self, count: int, seed: int) -> Dataset:
        """So many of the records, drawn by `seed`; in their old order.

        Raises:
          UserError: where there are fewer.
        """
        if count > len(self.pairs):
            raise UserError(
                f"config.data.sample: there are {len(self.pairs)} training pairs, found {count}"
            )
        # The first ones of one random order: a smaller sample is a part of a larger one.
        order = np.random.default_rng([seed, len(self.pairs)]).permutation(len(self.pairs))
        chosen = np.sort(order[:count])
        pairs = [self.pairs[int(i)] for i in chosen]
        kept, rows = np.unique(
            np.concatenate(
                [self.captions.rows[slice(*self.captions.offsets[i : i + 2])] for i in chosen]
            ),
            return_inverse=True,
        )
        offsets = np.concatenate([[0], np.cumsum(self.captions.counts[chosen])])
        captions = Captions(tuple(self.captions.texts[i] for i in kept), rows, offsets)
        pooled = None if self.pooled is None else self.pooled[chosen]
        return Dataset(
            pairs, captions, pooled, None if self.tokens is None else self.tokens.rows(kept)
        )


def encode_pairs(
    pairs: pairs_lib.Pairs,
    image: FrozenTower | None,
    text: FrozenTower | None,
    config: Config,
    store: FeatureStore,
    *,
    name: str,
    views: int = 1,
    words: tuple[int, float] | tuple[()] = (),
    dtype: str | None = None,
) -> Dataset:
    """What lies below the frontier: read from the cache, encoded where it is not there.

    Args:
      pairs: the source.
      image: the image tower, None where images are not encoded beforehand.
      text: the text tower, None where captions are not.
      config: for `data`, `augment` and `cache`.
      store: features that this process has already.
      name: for progress lines.
      views: 0 or 1 for the clean image, else that many augmented views.
      words: further captions, see `augment.words`. Images are found in the cache without them.
      dtype: of the features, None for the config's.

    Raises:
      UserError: for an image that cannot be read (`data.on_error='error'`), or if none could; for a
        cache that is damaged, cannot be written or may not be made.
    """
    place, pooled, tokens = cache_place(config), None, None
    if image is not None:
        job = _image_job(pairs, image, config, name, views, dtype)
        pooled, seen = store.get(job.fingerprint.digest, lambda: extract.images(job, place))
        pairs = _readable(pairs, seen, job.skipped, name)
    pairs = _with_words(pairs, words, config)
    captions = captions_of(pairs)
    if isinstance(pairs, VectorPairs):
        pooled = pairs.image
        if pairs.text is not None:
            tokens = RaggedTokens(pairs.text.flat, pairs.text.offsets)
    if text is not None:
        texts = _caption_job(pairs, captions, text, config, name, dtype)
        tokens = store.get(texts.fingerprint.digest, lambda: extract.captions(texts, place))
        if "ids" in text_needs(config.text.head.name):
            found = tokens  # What the closure sees.
            key = ("ids", texts.fingerprint.digest)
            ids = store.get(key, lambda: encode.ids_of(text.tower, texts.texts, found.lengths))
            tokens = dataclasses.replace(tokens, ids=ids)
    if tokens is not None and "places" in text_needs(config.text.head.name):
        tokens = tokens.with_padded_length()
    return Dataset(pairs, captions, pooled, tokens)


def fill_pairs(
    pairs: pairs_lib.Pairs,
    image: FrozenTower | None,
    text: FrozenTower | None,
    config: Config,
    *,
    name: str,
    views: int = 1,
    words: tuple[int, float] | tuple[()] = (),
    dtype: str | None = None,
) -> list[tuple[str, extract.Filled]]:
    """Fills the caches that `encode_pairs` with the same arguments reads, and reads none.

    Returns:
      The caches of the images and of the captions, each with its name.

    Raises:
      UserError: as `encode_pairs`.
    """
    place = dataclasses.replace(cache_place(config), missing="encode")
    filled = []
    if image is not None:
        job = _image_job(pairs, image, config, name, views, dtype)
        filled.append((job.what, extract.fill(job, place)))
        pairs = _readable(pairs, filled[0][1].seen, job.skipped, name)
    pairs = _with_words(pairs, words, config)
    if text is not None:
        texts = _caption_job(pairs, captions_of(pairs), text, config, name, dtype)
        filled.append((texts.what, extract.fill(texts, place)))
    return filled


def cache_place(config: Config) -> extract.Place:
    """Where the config keeps features."""
    chosen = config.cache.dir
    if chosen == "none":
        return extract.Place(root=None, missing=config.cache.missing)
    root = pathlib.Path(chosen).expanduser() if chosen else cache_dir() / "features"
    return extract.Place(root=root.absolute(), missing=config.cache.missing)


def _image_job(
    pairs: pairs_lib.Pairs,
    image: FrozenTower,
    config: Config,
    name: str,
    views: int,
    dtype: str | None,
) -> ImageJob:
    return ImageJob(
        what=f"{name} images",
        pairs=pairs,
        frozen=image,
        dtype=jnp.dtype(dtype or config.cache.dtype),
        views=max(views, 1),
        augment=make_augment(config) if views > 1 else None,
        seed=config.cache.seed,
        on_error=config.data.on_error,
        background=config.data.background,
    )


def _caption_job(
    pairs: pairs_lib.Pairs,
    captions: Captions,
    text: FrozenTower,
    config: Config,
    name: str,
    dtype: str | None,
) -> CaptionJob:
    return CaptionJob(
        what=f"{name} captions",
        texts=captions.texts,
        spec=pairs.spec,
        frozen=text,
        dtype=jnp.dtype(dtype or config.cache.dtype),
    )


def _readable(
    pairs: pairs_lib.Pairs, seen: Bool[np.ndarray, "n"], skipped: image_loader.Skipped, name: str
) -> pairs_lib.Pairs:
    """The records that have features; says how many have none."""
    if seen.all():
        return pairs
    left_out = int((~seen).sum())
    if len(skipped) == left_out:
        report_skipped(skipped, len(pairs), name)
    else:  # Some or all were met by an earlier start, or by another process.
        ids = [pairs[int(i)].id for i in np.flatnonzero(~seen)[:3]]
        say(
            f"{name}: left out {left_out} of {len(pairs)} images that cannot be read: "
            + ", ".join(ids)
            + (" ..." if left_out > len(ids) else "")
        )
    return pairs_lib.Pairs([pairs[int(i)] for i in np.flatnonzero(seen)], pairs.spec)


def _with_words(
    pairs: pairs_lib.Pairs,
    words: tuple[int, float] | tuple[()],
    config: Config,
) -> pairs_lib.Pairs:
    return leave_out_words(pairs, *words, seed=config.cache.seed) if words else pairs


def make_augment(config: Config) -> augment_lib.Augment | None:
    """The config's augmentation, None where it is off altogether."""
    asked = config.augment
    if not (asked.crop or asked.flip or asked.randaugment):
        return None
    return augment_lib.Augment(
        crop=asked.crop or None, flip=asked.flip, randaugment=asked.randaugment or None
    )


def leave_out_unreadable(pairs: pairs_lib.Pairs, transform: Any, name: str) -> pairs_lib.Pairs:
    """The records whose image can be read; for images that are not encoded beforehand."""
    skipped = image_loader.Skipped()
    batches = image_loader.image_batches(
        pairs, transform=transform, batch=64, on_error="skip", skipped=skipped
    )
    for _ in batches:
        pass
    report_skipped(skipped, len(pairs), name)
    bad = set(skipped.indices)
    return pairs_lib.Pairs([pairs[i] for i in range(len(pairs)) if i not in bad], pairs.spec)


def report_skipped(skipped: image_loader.Skipped, count: int, name: str) -> None:
    """Says which images were left out, and how many."""
    if len(skipped) and hosts.is_first():
        print(
            f"{name}: left out {len(skipped)} of {count} images that cannot be read: "
            + "; ".join(skipped.reasons),
            file=sys.stderr,
        )
