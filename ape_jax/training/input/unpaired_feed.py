"""Unpaired images and texts beside the batches of pairs, as a function of (seed, step)."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from ape_jax.align.unpaired import PREFIX
from ape_jax.config import Config
from ape_jax.data import sampling
from ape_jax.data.image_loader import Skipped
from ape_jax.features.ragged import RaggedTokens, bucket
from ape_jax.features.unpaired import Unpaired
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training.blocks import Span, window_steps
from ape_jax.training.input.prefetch import ahead


@runtime_checkable
class Blocks(Protocol):
    """What makes blocks of pairs; see `training.input.feed.Feed`."""

    skipped: Skipped

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Mapping[str, Any]]]:
        """The blocks of these steps."""
        ...


class UnpairedFeed:
    """Adds an unpaired batch to each step of another feed.

    Images and texts come in orders of their own, each an epoch-wise shuffle: which of them meet in
    a step is a function of (seed, step). They are gathered on the host, wherever the features of
    the pairs live; a thread does it while others train.

    Args:
      feed: makes the blocks of pairs.
      unpaired: the features, of both sides.
      config: the run's.
      mesh: the devices.
    """

    def __init__(self, feed: Blocks, unpaired: Unpaired, config: Config, mesh: Mesh):
        assert unpaired.images is not None and unpaired.texts is not None
        self._feed, self._mesh, self.skipped = feed, mesh, feed.skipped
        self._images, self._texts = unpaired.images, unpaired.texts
        self._batch, self._seed = config.unpaired.batch, config.seed
        self._groups, self._window = mesh.size, window_steps(config.train.batch)
        self._orders = {
            name: sampling.Order(len(rows), _seed(config.seed, name))
            for name, rows in (("images", self._images), ("texts", self._texts))
        }
        self._usual = bucket(_usual_tokens(self._texts, self._batch // self._groups, self._groups))
        self._size = functools.lru_cache(maxsize=4)(self._size_of_window)

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Mapping[str, Any]]]:
        """The other feed's blocks with the unpaired batches beside."""
        return ahead(self._blocks(start, stop))

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Mapping[str, Any]]]:
        made = self._feed.blocks(start, stop)
        try:
            for span, block in made:
                # What lies outside of the span is a copy of its first or last step.
                steps = np.clip(np.arange(len(block["index"])), span.start, span.stop - 1)
                batches = [self.batch(span.first + int(step)) for step in steps]
                stacked = {k: np.stack([batch[k] for batch in batches]) for k in batches[0]}
                yield span, {**block, **mesh_lib.place_steps(stacked, self._mesh)}
        finally:
            made.close()

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
        made = self._texts.batch(rows, groups, self._size(step // self._window))
        made["pooled"] = self._images[index, view]
        return {PREFIX + name: array for name, array in made.items()}

    def _size_of_window(self, number: int) -> int:
        """The packed size of all steps of a window of the pairs, which share a program."""
        steps = np.arange(number * self._window, (number + 1) * self._window)
        positions = steps[:, None] * self._batch + np.arange(self._batch)
        lengths = self._texts.lengths[self._orders["texts"].lookup(positions.reshape(-1))]
        largest = lengths.reshape(len(steps) * self._groups, -1).sum(axis=1).max()
        return max(bucket(largest), self._usual)


def _seed(seed: int, name: str) -> int:
    """Another seed for each order: images, texts and pairs would else come in the same one."""
    digest = hashlib.sha256(f"ape_jax unpaired {name} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _usual_tokens(texts: RaggedTokens, share: int, groups: int) -> int:
    """About the most tokens of a group in some hundred steps; see `sampler.Sampler`."""
    lengths: Int[np.ndarray, " n"] = texts.lengths
    return math.ceil(
        share * lengths.mean() + lengths.std() * math.sqrt(share * 2 * math.log(64 * groups))
    )
