"""Names of classes, encoded as captions are, beside the rows of a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp

from ape_jax.config import Config
from ape_jax.data.classes.free_pairs import FreePairs
from ape_jax.features.dataset import FeatureStore
from ape_jax.features.encoder import FeatureEncoder
from ape_jax.features.jobs import CaptionJob, Job
from ape_jax.features.ragged import RaggedTokens
from ape_jax.features.unpaired.features import encoded_texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreePart:
    """Free pairs, and the tower that encodes their names beforehand.

    Attributes:
      pairs: the free pairs.
      text: the text tower.
    """

    pairs: FreePairs
    text: FeatureEncoder

    def load(self, config: Config, store: FeatureStore) -> RaggedTokens:
        """The tokens of each name: read from the cache, encoded where it lacks them.

        Raises:
          UserError: as `encode_pairs`.
        """
        return encoded_texts(self._job(config), config, store)

    def jobs(self, config: Config) -> Iterator[Job]:
        """The job that fills the cache which `load` reads."""
        yield self._job(config)

    def _job(self, config: Config) -> CaptionJob:
        return CaptionJob(
            what="names of classes",
            texts=self.pairs.names,
            spec=self.pairs.spec,
            frozen=self.text,
            dtype=jnp.dtype(config.cache.dtype),
        )
