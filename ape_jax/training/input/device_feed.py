"""Features that live on the device: the host samples, the device gathers.

Features are copied and not computed with: the blocks are those of `HostFeed`, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Int32

from ape_jax.data.image_loader import Skipped
from ape_jax.features.dataset import Dataset
from ape_jax.nn.tree import Tree
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.storage.rows import access
from ape_jax.training import blocks
from ape_jax.training.blocks import Span
from ape_jax.training.input.prefetch import ahead
from ape_jax.training.input.sampler import Sampler


class Features(Tree):
    """What each device holds of a dataset.

    Attributes:
      pooled: [n, V, d], as stored.
      tokens: [sum of lengths, d], as stored.
      ids: i32 [sum of lengths], None where the head does not want them.
      offsets: i32 [t + 1], where each text's tokens begin.
    """

    pooled: Float[Array, "n V d"]
    tokens: Float[Array, "S d"]
    ids: Int32[Array, "S"] | None
    offsets: Int32[Array, " bounds"]


class Samples(Tree):
    """The samples of a block of K steps, split over the devices along B.

    Attributes:
      index: i32 [K, B], the records.
      view: i32 [K, B], their views.
      text: i32 [K, B], their captions among the distinct texts, or [K, B, P] of several.
      language: likewise, the rows of their languages' means, None where they have no language.
    """

    index: Int32[Any, "K B"]
    view: Int32[Any, "K B"]
    text: Int32[Any, "K B *P"]
    language: Int32[Any, "K B *P"] | None = None


def device_features(dataset: Dataset) -> Features:
    """The arrays that a device has to hold, in NumPy, without a copy of features in memory."""
    tokens = dataset.tokens
    pooled, flat = access.in_memory(dataset.pooled), access.in_memory(tokens.flat)
    offsets = np.asarray(tokens.offsets, np.int32)
    return Features(pooled=pooled, tokens=flat, ids=tokens.ids, offsets=offsets)


class DeviceFeed:
    """Makes blocks of batches from features on the device.

    Args:
      dataset: the pairs; both of their sides are encoded.
      sampler: samples the steps.
      block_steps: steps of a block.
      mesh: the devices; each holds all features.
    """

    def __init__(self, dataset: Dataset, sampler: Sampler, block_steps: int, mesh: Mesh):
        self._sampler, self._block_steps, self._mesh = sampler, block_steps, mesh
        self.skipped = Skipped()  # Stays empty: no image is read.
        self._features = mesh_lib.place_replicated(device_features(dataset), mesh)
        self._gather = jax.jit(
            partial(gather, groups=sampler.groups, padded_length=dataset.tokens.padded_length),
            static_argnames="size",
            out_shardings=mesh_lib.over_steps(mesh),
        )

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, dict[str, Array]]]:
        """Blocks as `HostFeed.blocks` makes them; a thread samples ahead."""
        sampled = ahead(self._samples(start, stop))
        try:
            for span, samples, size in sampled:
                placed = mesh_lib.place_steps(samples, self._mesh)
                yield span, self._gather(self._features, placed, size=size)
        finally:
            sampled.close()

    def _samples(self, start: int, stop: int) -> Iterator[tuple[Span, Samples, int]]:
        """This process's share of the samples of each block, and its packed size."""
        share = self._sampler.batch // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        steps_of_window = blocks.window_steps(self._sampler.batch)
        for span in blocks.spans(start, stop, self._block_steps, steps_of_window):
            window, offset = self._sampler.at(span.first)
            # What lies outside of the span is a copy of its first or last step.
            steps = offset + np.clip(np.arange(self._block_steps), span.start, span.stop - 1)
            index, view, text, language = (
                None if array is None else array[steps, mine].astype(np.int32)
                for array in (window.index, window.view, window.text, window.language)
            )
            samples = Samples(index=index, view=view, text=text, language=language)
            yield span, samples, window.size


def gather(
    features: Features, samples: Samples, *, groups: int, padded_length: int, size: int
) -> dict[str, Array]:
    """Gathers the features of a block; every device those of its own part of each batch.

    Args:
      features: the dataset.
      samples: which of them.
      groups: groups of packed captions in a batch, G; those of a device follow each other.
      padded_length: T of `token_index`, 0 where the head does not want them.
      size: packed tokens of a group, S.

    Returns:
      `index` i32 [K, B], `text` i32 [K, B], `pooled` [K, B, d], `tokens` [K, G, S, d] and `lengths`
      i32 [K, G, B / G], with `ids` and `token_index` beside them if wanted; with several captions
      an image, `text` and `lengths` as in `HostFeed.batches`.
    """
    texts = samples.text.reshape(len(samples.text), groups, -1)
    starts = features.offsets[texts]
    lengths = features.offsets[texts + 1] - starts
    block = {
        "index": samples.index,
        "text": samples.text,
        "pooled": features.pooled[samples.index, samples.view],
        "tokens": _packed(features.tokens, starts, lengths, size),
        "lengths": lengths,
    }
    if samples.language is not None:
        block["language"] = samples.language.reshape(lengths.shape)
    if features.ids is not None:
        block["ids"] = _packed(features.ids[:, None], starts, lengths, size)[..., 0]
    if padded_length:
        first, place = jnp.cumsum(lengths, axis=2) - lengths, jnp.arange(padded_length)
        real = place < lengths[..., None]
        block["token_index"] = jnp.where(real, first[..., None] + place, size)
    return block


def _packed(
    tokens: Float[Array, "S d"] | Int[Array, "S 1"],
    starts: Int[Array, "K G b"],
    lengths: Int[Array, "K G b"],
    size: int,
) -> Float[Array, "K G s d"] | Int[Array, "K G s 1"]:
    """`RaggedTokens.packed` for captions that begin at `starts`."""

    def rows(starts: Int[Array, "b"], lengths: Int[Array, "b"]) -> Int[Array, "s"]:
        ends, token = jnp.cumsum(lengths), jnp.arange(size)
        caption = jnp.searchsorted(ends, token, side="right", method="scan_unrolled")
        moved = jnp.take(starts - (ends - lengths), caption, mode="clip")
        return jnp.where(token < ends[-1], token + moved, tokens.shape[0])  # Padding: behind all.

    return tokens.at[jax.vmap(jax.vmap(rows))(starts, lengths)].get(mode="fill", fill_value=0)
