"""Features that live on the device: the order, the draws and the batches are made there.

Which records, views and captions come in a step is what the host would draw, and their features are
copied and not computed with: the blocks are those of `input.TrainInput`, bit for bit.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt32

from ape_jax.data import order as order_lib
from ape_jax.features.dataset import Dataset
from ape_jax.nn.tree import Tree
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training import plan
from ape_jax.training.input.draws import Tables, host_tables, packed_size
from ape_jax.training.plan import Span


class Features(Tree):
    """A dataset on the device.

    Attributes:
      tables: for the draws, in i32.
      pooled: [n, V, d], as stored.
      tokens: [sum of lengths, d], as stored.
      ids: i32 [sum of lengths], None where the head does not want them.
    """

    tables: Tables
    pooled: Float[Array, "n V d"]
    tokens: Float[Array, "t d"]
    ids: Int[Array, "t"] | None


class Clock(Tree):
    """Where a block begins; each of shape [1].

    Attributes:
      place: its first position, counted from the beginning of the first epoch at hand.
      position: the same, counted from the start of training, in words.
    """

    place: UInt32[Array, "1"]
    position: tuple[UInt32[Array, "1"], UInt32[Array, "1"]]


def host_features(dataset: Dataset, seed: int, positives: int = 1) -> Features:
    """The arrays that a device has to hold, in NumPy, without a copy of the features."""
    tables = jax.tree.map(
        lambda x: x if x.dtype == np.uint32 else x.astype(np.int32),
        host_tables(dataset, seed, positives),
    )
    tokens = dataset.tokens
    return Features(tables=tables, pooled=dataset.pooled, tokens=tokens.flat, ids=tokens.ids)


class Resident:
    """Blocks of batches from features on the device.

    Args:
      dataset: the pairs; both of their sides are encoded.
      seed: of the run.
      batch: pairs a step.
      block_steps: of a block.
      floor: tokens that the packed size has room for at the least (`Draws.floor`).
      mesh: the devices; each holds all features.
      positives: captions a record and step.
      parts: groups of packed captions on each device.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        batch: int,
        block_steps: int,
        floor: int,
        mesh: Mesh,
        positives: int = 1,
        parts: int = 1,
    ):
        self._batch, self._floor, self._mesh = batch, floor, mesh
        self._records, self.block_steps = len(dataset.pairs), block_steps
        self._window = plan.window_steps(batch)
        self._key = order_lib.stream_key(seed, "order")
        features = host_features(dataset, seed, positives)
        self._features = mesh_lib.place_replicated(features, mesh)
        self._epochs: collections.OrderedDict[int, Array] = collections.OrderedDict()
        whole, rows = mesh_lib.replicated(mesh), mesh_lib.over_steps(mesh)
        shares, steps = _parts_of(mesh_lib.shares(mesh), parts), self.block_steps
        self._permutation = jax.jit(
            partial(order_lib.permutation, self._records, xp=jnp), out_shardings=whole
        )
        self._stack = jax.jit(lambda *orders: jnp.stack(orders), out_shardings=whole)
        self._largest = jax.jit(
            partial(largest_group, batch=batch, steps=self._window, groups=len(shares)),
            out_shardings=whole,
        )
        self._gather = jax.jit(
            partial(
                gather,
                batch=batch,
                steps=steps,
                shares=shares,
                sharding=rows,
                frame=dataset.tokens.frame,
            ),
            static_argnames="size",
            out_shardings=rows,
        )

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Any]]:
        """Blocks as `TrainInput.blocks` gives them.

        A window's packed size is the one thing the host waits for; it is asked for a window ahead.
        """
        opened: dict[int, tuple[int, Array, Array]] = {}

        def window_of(number: int) -> tuple[int, Array, Array]:
            if number not in opened:
                opened[number] = self._open(number)
            return opened[number]

        for span in plan.spans(start, stop, self.block_steps, self._window):
            number = span.first // self._window
            epoch, orders, largest = window_of(number)
            size = packed_size(int(largest), self._floor)
            if (number + 1) * self._window < stop:
                window_of(number + 1)
            opened.pop(number - 1, None)
            bounds = np.int32(span.start), np.int32(span.stop - 1)
            clock = self._clock(span.first, epoch)
            yield span, self._gather(self._features, orders, clock, bounds, size=size)

    def _open(self, window: int) -> tuple[int, Array, Array]:
        """A window's first epoch, the orders of its epochs [E, n], and its largest group."""
        first = window * self._window * self._batch
        epoch = first // self._records
        # As many in every window, so that one program serves all.
        count = (self._window * self._batch + self._records - 2) // self._records + 1
        orders = self._stack(*(self._order(epoch + e) for e in range(count)))
        clock = self._clock(window * self._window, epoch)
        largest = self._largest(self._features.tables, orders, clock)
        largest.copy_to_host_async()
        for passed in [e for e in self._epochs if e < epoch]:
            del self._epochs[passed]
        return epoch, orders, largest

    def _order(self, epoch: int) -> Int[Array, "n"]:
        if epoch not in self._epochs:
            self._epochs[epoch] = self._permutation(self._key, order_lib.words(epoch))
        return self._epochs[epoch]

    def _clock(self, step: int, epoch: int) -> Clock:
        position = step * self._batch
        place = np.array([position - epoch * self._records], np.uint32)
        return Clock(place=place, position=order_lib.words(position))


def _parts_of(shares: Int[np.ndarray, "n"], parts: int) -> Int[np.ndarray, "G"]:
    """`shares` where each falls into so many parts."""
    return (shares[:, None] * parts + np.arange(parts, dtype=shares.dtype)).reshape(-1)


def largest_group(
    tables: Tables,
    orders: Int[Array, "E n"],
    clock: Clock,
    *,
    batch: int,
    steps: int,
    groups: int,
) -> Int[Array, ""]:
    """The most tokens that a group of a batch has in `steps` steps."""
    index, position = _records(orders, clock, jnp.arange(steps * batch, dtype=jnp.uint32))
    lengths = tables.lengths(tables.caption(index, position))
    return lengths.reshape(steps * groups, -1).sum(axis=1).max()


def gather(
    features: Features,
    orders: Int[Array, "E n"],
    clock: Clock,
    bounds: tuple[Int[Array, ""], Int[Array, ""]],
    *,
    batch: int,
    steps: int,
    shares: np.ndarray,
    sharding: jax.sharding.Sharding,
    frame: int,
    size: int,
) -> dict[str, Array]:
    """A block: `steps` batches, each split over the devices; those outside of `bounds` are copies.

    Args:
      features: the dataset.
      orders: of the epochs that the block lies in.
      clock: where it begins.
      bounds: its first and its last batch.
      batch: pairs of a batch, B.
      steps: K.
      shares: which part of a batch each group is, G parts, those of a device after each other.
      sharding: of [K, G, ...].
      frame: T of `places`, 0 where the head does not want them.
      size: of the packed tokens of a part, S.

    Returns:
      `index` i32 [K, B], `text` i32 [K, B], `pooled` [K, B, d], `tokens` [K, G, S, d] and `lengths`
      i32 [K, G, B / G], with `ids` and `places` beside them if wanted; with several captions an
      image, `text` and `lengths` as in `TrainInput`.
    """
    step = jnp.clip(jnp.arange(steps, dtype=jnp.int32), *bounds).astype(jnp.uint32)
    row = jnp.asarray(shares.astype(np.uint32)[:, None] * np.uint32(batch // len(shares)))
    row = row + jnp.arange(batch // len(shares), dtype=jnp.uint32)
    # From here on every device works on its own part.
    offset = jax.lax.with_sharding_constraint(
        step[:, None, None] * np.uint32(batch) + row, sharding
    )
    index, position = _records(orders, clock, offset)
    tables, pooled = features.tables, features.pooled
    text = tables.caption(index, position)
    flat = text.reshape(steps, len(shares), -1)
    starts, lengths = tables.tokens[flat], tables.lengths(flat)
    block = {
        "index": index.reshape(steps, batch),
        "text": text.reshape(steps, batch, *text.shape[3:]),
        "pooled": pooled[index, tables.view(position, pooled.shape[1])].reshape(steps, batch, -1),
        "tokens": _packed(features.tokens, starts, lengths, size),
        "lengths": lengths,
    }
    if features.ids is not None:
        block["ids"] = _packed(features.ids[:, None], starts, lengths, size)[..., 0]
    if frame:
        first, place = jnp.cumsum(lengths, axis=2) - lengths, jnp.arange(frame)
        real = place < lengths[..., None]
        block["places"] = jnp.where(real, first[..., None] + place, size)
    return block


def _records(
    orders: Int[Array, "E n"], clock: Clock, offset: UInt32[Array, "*b"]
) -> tuple[Int[Array, "*b"], order_lib.Words]:
    """The records `offset` positions behind the clock, and these positions in words."""
    count = np.uint32(orders.shape[1])
    at = clock.place + offset
    high, low = clock.position[0], clock.position[1] + offset
    position = high + (low < offset).astype(jnp.uint32), low  # A sum that wraps is the smaller.
    place = (at % count).astype(jnp.int32)
    return orders[(at // count).astype(jnp.int32), place], position


def _packed(
    tokens: Float[Array, "t d"] | Int[Array, "t 1"],
    starts: Int[Array, "K G b"],
    lengths: Int[Array, "K G b"],
    size: int,
) -> Float[Array, "K G S d"] | Int[Array, "K G S 1"]:
    """`RaggedTokens.packed` for captions that begin at `starts`."""

    def places(starts: Int[Array, "b"], lengths: Int[Array, "b"]) -> Int[Array, "S"]:
        ends, place = jnp.cumsum(lengths), jnp.arange(size)
        caption = jnp.searchsorted(ends, place, side="right", method="scan_unrolled")
        moved = jnp.take(starts - (ends - lengths), caption, mode="clip")
        return jnp.where(place < ends[-1], place + moved, tokens.shape[0])  # Padding: behind all.

    return tokens.at[jax.vmap(jax.vmap(places))(starts, lengths)].get(mode="fill", fill_value=0)
