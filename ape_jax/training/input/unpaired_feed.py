"""Unpaired images and texts beside the batches of pairs, as a function of (seed, step)."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from ape_jax.align.unpaired import PREFIX
from ape_jax.config import Config
from ape_jax.data import sampling
from ape_jax.features.unpaired import Unpaired
from ape_jax.training.blocks import window_steps
from ape_jax.training.input.beside_feed import BesideFeed, Blocks, PackedSizes, seed_of


class UnpairedFeed(BesideFeed):
    """Adds an unpaired batch to each step of another feed.

    Images and texts come in orders of their own, each an epoch-wise shuffle: which of them meet in
    a step is a function of (seed, step).

    Args:
      feed: makes the blocks of pairs.
      unpaired: the features, of both sides.
      config: the run's.
      mesh: the devices.
    """

    def __init__(self, feed: Blocks, unpaired: Unpaired, config: Config, mesh: Mesh):
        super().__init__(feed, mesh)
        assert unpaired.images is not None and unpaired.texts is not None
        self._images, self._texts = unpaired.images, unpaired.texts
        self._batch, self._seed, self._groups = config.unpaired.batch, config.seed, mesh.size
        self._orders = {
            name: sampling.Order(len(rows), seed_of(config.seed, f"unpaired {name}"))
            for name, rows in (("images", self._images), ("texts", self._texts))
        }
        window, lookup = window_steps(config.train.batch), self._orders["texts"].lookup
        self._sizes = PackedSizes(self._texts, self._batch, self._groups, window, lookup)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's share of a step's images and texts.

        Args:
          step: of training.

        Returns:
          `unpaired_pooled` [b, d], `unpaired_tokens` [g, S, d] and `unpaired_lengths` [g, b / g],
          with `unpaired_ids` and `unpaired_token_index` where the head wants them.
        """
        mine = sampling.positions(step, self._batch, jax.process_index(), jax.process_count())
        index = self._orders["images"].lookup(mine)
        views = np.full(len(mine), self._images.shape[1])
        view = sampling.uniform(self._seed, "unpaired view", mine, views)
        rows, groups = self._orders["texts"].lookup(mine), self._groups // jax.process_count()
        made = self._texts.batch(rows, groups, self._sizes.at(step))
        made["pooled"] = self._images[index, view]
        return {PREFIX + name: array for name, array in made.items()}
