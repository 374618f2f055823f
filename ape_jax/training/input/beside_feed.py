"""Batches beside those of pairs, as a function of (seed, step), gathered on the host."""

from __future__ import annotations

import abc
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from ape_jax.data.image_loader import Skipped
from ape_jax.features.ragged import RaggedTokens, bucket
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training.blocks import Span
from ape_jax.training.input.prefetch import ahead


@runtime_checkable
class Blocks(Protocol):
    """What makes blocks of pairs; see `training.input.feed.Feed`."""

    skipped: Skipped

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Mapping[str, Any]]]:
        """The blocks of these steps."""
        ...


class BesideFeed(abc.ABC):
    """Adds a batch of something else to each step of another feed.

    It is gathered on the host, wherever the features of the pairs live; a thread does it while
    others train.

    Args:
      feed: makes the blocks of pairs.
      mesh: the devices.
    """

    def __init__(self, feed: Blocks, mesh: Mesh):
        self._feed, self._mesh, self.skipped = feed, mesh, feed.skipped

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Mapping[str, Any]]]:
        """The other feed's blocks with these batches beside."""
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

    @abc.abstractmethod
    def batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's share of a step, by names that no other array of a batch has."""


class PackedSizes:
    """The packed size of texts, the same for all steps of a window, which share a program.

    Args:
      texts: their tokens.
      batch: texts of a step.
      groups: of the packing, one a device.
      window: steps of a window.
      rows: which texts the given positions take.
    """

    def __init__(
        self,
        texts: RaggedTokens,
        batch: int,
        groups: int,
        window: int,
        rows: Callable[[Int[np.ndarray, " p"]], Int[np.ndarray, " p"]],
    ):
        self._texts, self._batch, self._groups = texts, batch, groups
        self._window, self._rows = window, rows
        self._usual = bucket(_usual_tokens(texts, batch // groups, groups))
        self._of_window = functools.lru_cache(maxsize=4)(self._size_of_window)

    def at(self, step: int) -> int:
        """The size of a step."""
        return self._of_window(step // self._window)

    def _size_of_window(self, number: int) -> int:
        steps = np.arange(number * self._window, (number + 1) * self._window)
        positions = steps[:, None] * self._batch + np.arange(self._batch)
        lengths = self._texts.lengths[self._rows(positions.reshape(-1))]
        largest = lengths.reshape(len(steps) * self._groups, -1).sum(axis=1).max()
        return max(bucket(largest), self._usual)


def seed_of(seed: int, name: str) -> int:
    """Another seed for each order: else all of them would come in that of the pairs."""
    digest = hashlib.sha256(f"ape_jax {name} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _usual_tokens(texts: RaggedTokens, share: int, groups: int) -> int:
    """About the most tokens of a group in some hundred steps; see `sampler.Sampler`."""
    lengths: Int[np.ndarray, " n"] = texts.lengths
    return math.ceil(
        share * lengths.mean() + lengths.std() * math.sqrt(share * 2 * math.log(64 * groups))
    )
