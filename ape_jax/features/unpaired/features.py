"""Features of unpaired images and texts: found in the cache, or encoded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
from jaxtyping import Float

from ape_jax.config import Config
from ape_jax.config.components import text_needs
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.unpaired import UnpairedTexts
from ape_jax.features import extract
from ape_jax.features.dataset import FeatureStore
from ape_jax.features.encode_pairs import cache_place, image_job
from ape_jax.features.encoder import FeatureEncoder
from ape_jax.features.jobs import CaptionJob, ImageJob, Job
from ape_jax.features.ragged import RaggedTokens
from ape_jax.features.unreadable import leave_out_unseen
from ape_jax.storage.rows.access import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unpaired:
    """Features of images and of texts that are no pairs.

    Attributes:
      images: bf16 or f32 [n, V, d] features of V views of each image, in memory or in files; None
        where there are no unpaired images.
      texts: token encodings of each text; None where there are no unpaired texts.
    """

    images: Float[Rows, "n V d"] | None = None
    texts: RaggedTokens | None = None


def encoded_texts(job: CaptionJob, config: Config, store: FeatureStore) -> RaggedTokens:
    """The tokens of texts without images, with all that the text head takes beside them.

    Args:
      job: the texts and their tower.
      config: for `cache` and the head.
      store: features that this process has already.
    """
    tokens = store.get(job.fingerprint.digest, lambda: extract.captions(job, cache_place(config)))
    needs = text_needs(config.text.head.name)
    if "ids" in needs:
        found, key = tokens, ("ids", job.fingerprint.digest)
        ids = store.get(key, lambda: job.frozen.ids_of(job.texts, found.lengths))
        tokens = dataclasses.replace(tokens, ids=ids)
    return tokens.with_padded_length() if "token_index" in needs else tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedPart:
    """Images and texts without partners, and the towers that encode them beforehand.

    Attributes:
      images: the images, None for none.
      texts: the texts, None for none.
      image: the image tower.
      text: the text tower.
      views: of each image, as those of training pairs.
    """

    images: Pairs | None
    texts: UnpairedTexts | None
    image: FeatureEncoder | None
    text: FeatureEncoder | None
    views: int = 1

    def load(self, config: Config, store: FeatureStore) -> Unpaired:
        """The features: read from the cache, encoded where it lacks them.

        Raises:
          UserError: as `encode_pairs`.
        """
        return Unpaired(images=self._images(config, store), texts=self._texts(config, store))

    def jobs(self, config: Config) -> Iterator[Job]:
        """The jobs that fill the caches which `load` reads."""
        if self.images is not None and self.image is not None:
            yield self._image_job(config)
        if self.texts is not None and self.text is not None:
            yield self._text_job(config)

    def _images(self, config: Config, store: FeatureStore) -> Float[Rows, "n V d"] | None:
        if self.images is None:
            return None
        job, place = self._image_job(config), cache_place(config)
        pooled, seen = store.get(job.fingerprint.digest, lambda: extract.images(job, place))
        leave_out_unseen(self.images, seen, job.skipped.problems, Reading.of(config.data), job.what)
        return pooled

    def _texts(self, config: Config, store: FeatureStore) -> RaggedTokens | None:
        if self.texts is None:
            return None
        return encoded_texts(self._text_job(config), config, store)

    def _image_job(self, config: Config) -> ImageJob:
        assert self.images is not None and self.image is not None
        return image_job(self.images, self.image, config, "unpaired", self.views, None)

    def _text_job(self, config: Config) -> CaptionJob:
        assert self.texts is not None and self.text is not None
        return CaptionJob(
            what="unpaired texts",
            texts=self.texts.texts,
            spec=self.texts.spec,
            frozen=self.text,
            dtype=jnp.dtype(config.cache.dtype),
        )
