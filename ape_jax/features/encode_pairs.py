"""Encodes pairs up to the frontier: reads features from the cache and fills it where needed."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import jax.numpy as jnp

from ape_jax.config import Config
from ape_jax.config.components import text_needs
from ape_jax.data import pairs as pairs_lib
from ape_jax.data.image_loader import Skipped
from ape_jax.data.options import Reading
from ape_jax.data.vectors import VectorPairs
from ape_jax.data.words import leave_out_words
from ape_jax.features import extract
from ape_jax.features.cache import Cache
from ape_jax.features.dataset import Captions, Dataset, FeatureStore, captions_of
from ape_jax.features.encoder import FeatureEncoder
from ape_jax.features.jobs import CaptionJob, ImageJob, Job
from ape_jax.features.ragged import RaggedTokens
from ape_jax.features.unreadable import leave_out_unseen
from ape_jax.images import augment as augment_lib
from ape_jax.storage.disk import cache_dir


def encode_pairs(
    pairs: pairs_lib.Pairs,
    image: FeatureEncoder | None,
    text: FeatureEncoder | None,
    config: Config,
    store: FeatureStore,
    *,
    name: str,
    views: int = 1,
    words: tuple[int, float] | tuple[()] = (),
    negatives: bool = False,
    dtype: str | None = None,
) -> Dataset:
    """Features below the frontier: read from the cache, encoded where it lacks them.

    Args:
      pairs: the source.
      image: the image tower, None where images are not encoded beforehand.
      text: the text tower, None where captions are not.
      config: for `data`, `augment` and `cache`.
      store: features that this process has already.
      name: for progress lines.
      views: 0 or 1 for the clean image, else that many augmented views.
      words: further captions, see `augment.words`. Images are found in the cache without them.
      negatives: whether negative captions are encoded as well.
      dtype: of the features, None for the config's.

    Raises:
      UserError: for an image that cannot be read (`data.on_error='error'`), or if none could; for a
        cache that is damaged, cannot be written or may not be made.
    """
    place, pooled, tokens = cache_place(config), None, None
    if image is not None:
        job = image_job(pairs, image, config, name, views, dtype)
        pooled, seen = store.get(job.fingerprint.digest, lambda: extract.images(job, place))
        pairs = leave_out_unseen(pairs, seen, job.skipped.problems, Reading.of(config.data), name)
    pairs = _with_words(pairs, words, config)
    captions = captions_of(pairs, negatives=negatives, language=config.data.language)
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
            ids = store.get(key, lambda: text.ids_of(texts.texts, found.lengths))
            tokens = dataclasses.replace(tokens, ids=ids)
    if tokens is not None and "token_index" in text_needs(config.text.head.name):
        tokens = tokens.with_padded_length()
    return Dataset(pairs, captions, pooled, tokens)


def jobs_of(
    pairs: pairs_lib.Pairs,
    image: FeatureEncoder | None,
    text: FeatureEncoder | None,
    config: Config,
    *,
    name: str,
    views: int = 1,
    words: tuple[int, float] | tuple[()] = (),
    negatives: bool = False,
    dtype: str | None = None,
) -> Iterator[Job]:
    """The jobs that fill the caches which `encode_pairs` with the same arguments reads.

    Yields:
      The job of the images, then that of the captions. Which captions there are follows from the
      images that could be read: before the second is asked for, the cache of the first must be
      complete, whoever filled it.

    Raises:
      UserError: as `encode_pairs`.
    """
    if image is not None:
        job, root = image_job(pairs, image, config, name, views, dtype), cache_place(config).root
        yield job
        cache = Cache(root, job.fingerprint, job.count, job.per_shard)
        met, seen = job.skipped.problems, extract.seen_in(cache)
        pairs = leave_out_unseen(pairs, seen, met, Reading.of(config.data), name)
    pairs = _with_words(pairs, words, config)
    if text is not None:
        captions = captions_of(pairs, negatives=negatives)
        yield _caption_job(pairs, captions, text, config, name, dtype)


def cache_place(config: Config) -> extract.Place:
    """The directory in which the config keeps features."""
    chosen = config.cache.dir
    if chosen == "none":
        return extract.Place(root=None, missing=config.cache.missing)
    root = pathlib.Path(chosen).expanduser() if chosen else cache_dir() / "features"
    return extract.Place(root=root.absolute(), missing=config.cache.missing)


def image_job(
    pairs: pairs_lib.Pairs,
    image: FeatureEncoder,
    config: Config,
    name: str,
    views: int,
    dtype: str | None,
) -> ImageJob:
    """The job that encodes the images of pairs; arguments as of `encode_pairs`."""
    return ImageJob(
        what=f"{name} images",
        pairs=pairs,
        frozen=image,
        dtype=jnp.dtype(dtype or config.cache.dtype),
        views=max(views, 1),
        augment=make_augment(config) if views > 1 else None,
        seed=config.cache.seed,
        on_error=config.data.on_error,
        skipped=Skipped(pairs, Reading.of(config.data), name),
        background=config.data.background,
    )


def _caption_job(
    pairs: pairs_lib.Pairs,
    captions: Captions,
    text: FeatureEncoder,
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
