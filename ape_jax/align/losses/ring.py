"""One pass over the [B, B] matrix of a contrastive loss, tile by tile, on a ring of devices.

Each device keeps its shard of the images (home) and passes shards of texts (guests) round the ring,
so that every shard of images meets every shard of texts once. Each tile is reduced at once to a few
numbers per row and column. Neither the matrix nor the gathered batch is ever in memory: memory
grows with the local batch b, not with B or b^2.

Sums of the guests are passed on one step after the guests themselves. No transfer waits for a
matrix product, so transfers and products overlap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, PyTree

from ape_jax.align.losses import contrastive
from ape_jax.nn.matmul import product, product_transposed, transposed_product

# Rows and columns of a tile: 4 MiB of f32, products large enough to run at full speed.
TILE = 1024
# Each tile is some 25 kernels with their gradients: compiled for an H100, softmax over 65,536 pairs
# would be 98,317 of them with the tile above, and is 1,613 with this one, in 400 MiB more.
TILE_OF_GPUS = 8192

# Arrays [b, ...] of one shard of images or texts.
Side = Mapping[str, Array]
Merge = Callable[[PyTree, PyTree], PyTree]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A tile of the [B, B] matrix: m images of this device with n texts of any device.

    Attributes:
      home: arrays of the m images.
      guest: arrays of the n texts.
      cosines: cosines of all combinations, f32.
      negative: mask of the negatives.
    """

    home: Side
    guest: Side
    cosines: Float[Array, "m n"]
    negative: Bool[Array, "m n"]

    def gradients(
        self, weights: Float[Array, "m n"]
    ) -> tuple[Float[Array, "m e"], Float[Array, "n e"]]:
        """Backpropagates derivatives with respect to the cosines to images and texts, f32."""
        dtype = _dtype(self.home, self.guest)
        of_images = product(weights, self.guest["z"], dtype)
        return of_images, transposed_product(weights, self.home["z"], dtype)


# (tile, sums of its images, sums of its texts) -> both sums with the tile added.
Visit = Callable[[Tile, PyTree, PyTree], tuple[PyTree, PyTree]]


@dataclasses.dataclass(frozen=True)
class Ring:
    """Sharding of the batch and negatives of its pairs. Hashable, so static under `jit`.

    Attributes:
      mesh: mesh over all of whose axes the batch is sharded, in their order; None for one device.
      own_texts: true if texts have ids of their own, which may differ from those of their images.
      group: number of pairs in each negative group; 0 for the global loss.
      tile: maximum number of rows and columns of a tile; 0 for the platform's own.
      hard: whether the texts are negative captions (`losses.hard`), with their ids and the images'.
    """

    mesh: Mesh | None
    own_texts: bool
    group: int
    tile: int = 0
    hard: bool = False

    @property
    def devices(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape.values())

    @property
    def longest_tile(self) -> int:
        """Maximum number of rows and columns of a tile."""
        if self.tile:
            return self.tile
        # Of a mesh's own devices: a plan compiles for others than there are.
        there = self.mesh and self.mesh.devices.flat[0].platform
        return TILE_OF_GPUS if (there or jax.default_backend()) == "gpu" else TILE

    @property
    def _axes(self) -> tuple[str, ...]:
        return () if self.mesh is None else self.mesh.axis_names

    def on_devices(
        self, fn: Callable[..., Any], sharded: PyTree, replicated: PyTree, out: PyTree
    ) -> Any:
        """Runs `fn(sharded, replicated)` on every device, on its rows of `sharded`.

        Args:
          fn: function of a shard and of the replicated arrays.
          sharded: arrays [B, ...], sharded by rows.
          replicated: arrays that every device has.
          out: tree like the result, True where it is sharded by rows and False where replicated.
        """
        if self.devices == 1:
            return fn(sharded, replicated)
        rows = P(self._axes)
        specs = jax.tree.map(lambda split: rows if split else P(), out)
        # Unchecked: the sums start as constants, which the check wants marked as varying over
        # devices. Replicated results are made by `total`.
        run = jax.shard_map(
            fn, mesh=self.mesh, in_specs=(rows, P()), out_specs=specs, check_vma=False
        )
        return run(sharded, replicated)

    def total(self, x: PyTree) -> PyTree:
        """Sums over the devices, inside `on_devices`."""
        return x if self.devices == 1 else jax.lax.psum(x, self._axes)

    def indices(self, b: int) -> Array:
        """Indices in the batch of the device's b pairs, i32 [b]; inside `on_devices`."""
        index = jnp.arange(b, dtype=jnp.int32)
        return index if self.devices == 1 else index + b * jax.lax.axis_index(self._axes)

    def sweep(
        self, visit: Visit, merge: Merge, home: Side, guest: Side, sums: tuple[PyTree, PyTree]
    ) -> tuple[PyTree, PyTree]:
        """Computes the sums of every image and text over the matrix, inside `on_devices`.

        Args:
          visit: adds a tile to the sums of its rows and columns.
          merge: adds two sums of the same columns over different rows.
          home: arrays of the device's images: `z` [b, e], `index` [b], `ids` [b, c] and those that
            `visit` reads.
          guest: the same arrays of the device's texts.
          sums: initial sums of the images and of the texts, the identity of `merge`.

        Returns:
          The sums of the device's own images and texts.
        """
        home_sums, zero = sums
        if self.devices == 1:
            return self._meet(visit, home, guest, home_sums, zero)

        def meeting(carry: PyTree, _: None) -> tuple[PyTree, None]:
            guest, guest_sums, home_sums = carry
            following, arrived = self._pass_on(guest), self._pass_on(guest_sums)
            home_sums, found = self._meet(visit, home, guest, home_sums, zero)
            return (following, merge(arrived, found), home_sums), None

        carry = (guest, zero, home_sums)
        (_, guest_sums, home_sums), _ = jax.lax.scan(meeting, carry, None, length=self.devices)
        return home_sums, self._pass_on(guest_sums)  # The last step back to their device.

    def _negative(
        self, images: tuple[Array, Array], texts: tuple[Array, Array]
    ) -> Bool[Array, "m n"]:
        """The mask of a tile, from ids and indices of both sides."""
        if self.hard:
            return contrastive.hard_tile_mask(images, texts, self.group)
        return contrastive.tile_mask(images, texts, self.own_texts, self.group)

    def _pass_on(self, tree: PyTree) -> PyTree:
        steps = [(i, (i - 1) % self.devices) for i in range(self.devices)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self._axes, steps), tree)

    def _meet(
        self, visit: Visit, home: Side, guest: Side, home_sums: PyTree, guest_sums: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Adds all tiles of a shard of images and a shard of texts to their sums."""
        b = len(home["z"])
        size = min(self.longest_tile, b)
        count = -(-b // size)

        def take(tree: PyTree, start: Array) -> PyTree:
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)

        def put(tree: PyTree, part: PyTree, start: Array) -> PyTree:
            def write(x: Array, y: Array) -> Array:
                return jax.lax.dynamic_update_slice_in_dim(x, y, start, 0)

            return jax.tree.map(write, tree, part)

        def one_tile(k: Array | int, sums: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            begin = (k // count) * size, (k % count) * size
            # If the size does not divide b, the last tile ends with the shard and overlaps the one
            # before it: the overlap is masked.
            start = tuple(jnp.minimum(x, b - size) for x in begin)
            rows, columns = take(home, start[0]), take(guest, start[1])
            images, texts = ((side["ids"], side["index"]) for side in (rows, columns))
            negative = self._negative(images, texts)
            if b % size:
                fresh = tuple(s + jnp.arange(size) >= x for s, x in zip(start, begin))
                negative &= fresh[0][:, None] & fresh[1][None, :]
            before = take(sums[0], start[0]), take(sums[1], start[1])
            cosines = product_transposed(rows["z"], columns["z"], _dtype(rows, columns))
            after = visit(Tile(rows, columns, cosines, negative), *before)
            return put(sums[0], after[0], start[0]), put(sums[1], after[1], start[1])

        if count == 1:
            return one_tile(0, (home_sums, guest_sums))
        return jax.lax.fori_loop(0, count * count, one_tile, (home_sums, guest_sums))


def _dtype(home: Side, guest: Side) -> Any:
    """bf16 has zero to lose where both sides are; HIGHEST f32 otherwise, also on a TPU."""
    both = home["z"].dtype == guest["z"].dtype == jnp.bfloat16
    return jnp.bfloat16 if both else jnp.float32


def ring_of(
    batch: int,
    ids: contrastive.Ids | None,
    text_ids: contrastive.Ids | None,
    groups: int,
    mesh: Mesh | None,
) -> tuple[Ring, tuple[contrastive.Ids, contrastive.Ids] | None]:
    """Makes the ring, and the ids of images and texts as integer [B, c]."""
    group = batch // groups if groups > 1 else 0
    ring = Ring(mesh=mesh, own_texts=text_ids is not None, group=group)
    if ids is None:
        return ring, None
    images = jnp.asarray(ids).reshape(batch, -1)
    return ring, (images, images if text_ids is None else jnp.asarray(text_ids).reshape(batch, -1))
