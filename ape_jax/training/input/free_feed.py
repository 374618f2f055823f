"""Free pairs beside the batches of pairs, as a function of (seed, step)."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from ape_jax.align.free_pairs import PREFIX
from ape_jax.config import Config
from ape_jax.data import sampling
from ape_jax.training.blocks import window_steps
from ape_jax.training.input.beside_feed import BesideFeed, Blocks, PackedSizes, seed_of
from ape_jax.training.terms.free_pairs import FreeFeatures

NAMELESS = -1  # Among the ids of a row that has fewer names than others.


class FreeFeed(BesideFeed):
    """Adds a batch of free pairs to each step of another feed.

    Rows come in an epoch-wise shuffle of their own, and each time with one of their names: which
    meet in a step is a function of (seed, step).

    Args:
      feed: makes the blocks of pairs.
      free: the rows and the tokens of their names.
      config: the run's.
      mesh: the devices.
    """

    def __init__(self, feed: Blocks, free: FreeFeatures, config: Config, mesh: Mesh):
        super().__init__(feed, mesh)
        self._free, self._batch, self._groups = free, config.classifier.batch, mesh.size
        self._seed, count = seed_of(config.seed, "free pairs"), len(free.rows)
        self._order = sampling.Order(count, self._seed)
        self._counts = np.bincount(free.row_index, minlength=count)
        self._first = np.concatenate([[0], np.cumsum(self._counts)])[:-1]
        self._ids = np.full((count, 1 + self._counts.max()), NAMELESS, np.int32)
        self._ids[:, 0] = np.arange(count)
        place = np.arange(len(free.row_index)) - self._first[free.row_index]
        self._ids[free.row_index, 1 + place] = free.name_index
        window = window_steps(config.train.batch)
        self._sizes = PackedSizes(free.names, self._batch, self._groups, window, self._names)

    def _names(self, positions: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
        """The name that comes with the row of each position."""
        rows = self._order.lookup(positions)
        drawn = sampling.uniform(self._seed, "name", positions, self._counts[rows])
        return self._free.name_index[self._first[rows] + drawn]

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's share of a step's free pairs.

        Args:
          step: of training.

        Returns:
          `free_pooled` [b, d], `free_tokens` [g, S, d] and `free_lengths` [g, b / g], with
          `free_ids` and `free_token_index` where the head wants them; `free_row_ids` i32
          [b, 1 + m], the number of each row and those of all its names, and `free_text_ids`, the
          number of the row and that of the name that came, m times.
        """
        mine = sampling.positions(step, self._batch, jax.process_index(), jax.process_count())
        rows, names = self._order.lookup(mine), self._names(mine)
        groups = self._groups // jax.process_count()
        made = self._free.names.batch(names, groups, self._sizes.at(step))
        made["pooled"] = self._free.rows[rows]
        made["row_ids"] = self._ids[rows]
        own = np.repeat(names[:, None], self._ids.shape[1] - 1, axis=1)
        made["text_ids"] = np.concatenate([rows[:, None], own], axis=1).astype(np.int32)
        return {PREFIX + name: array for name, array in made.items()}
