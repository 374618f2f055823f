"""One pass over the [B, B] matrix of a contrastive loss, round a ring of devices, tile by tile.

Each device keeps its share of the images at home; the shares of the texts travel from device to
device as guests, so that every share of images meets every share of texts once. What is made of a
meeting is reduced at once to a few numbers a row and a column: neither the matrix nor the gathered
batch is ever there, and memory grows with the local batch b and not with B or b^2.

Results for the guests travel one meeting behind them: neither transfer waits for a product, so
both run while the products do.
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

from ape_jax.align.losses import negatives
from ape_jax.nn.matmul import product, product_transposed, transposed_product

# Rows and columns of a tile: 4 MiB of f32, products large enough to run at full speed.
TILE = 1024

# What one meeting needs of one side: arrays [b, ...].
Side = Mapping[str, Array]
Merge = Callable[[PyTree, PyTree], PyTree]


@dataclasses.dataclass(frozen=True)
class Tile:
    """Some images at home with some texts that are guests.

    Attributes:
      home: of the m images.
      guest: of the n texts.
      cosines: of each with each, f32.
      negative: which of them count as negatives.
    """

    home: Side
    guest: Side
    cosines: Float[Array, "m n"]
    negative: Bool[Array, "m n"]

    def gradients(
        self, weights: Float[Array, "m n"]
    ) -> tuple[Float[Array, "m e"], Float[Array, "n e"]]:
        """From the derivatives by the cosines to those by images and texts, f32."""
        dtype = _dtype(self.home, self.guest)
        of_images = product(weights, self.guest["z"], dtype)
        return of_images, transposed_product(weights, self.home["z"], dtype)


# (tile, sums of its images, sums of its texts) -> both with the tile in them.
Visit = Callable[[Tile, PyTree, PyTree], tuple[PyTree, PyTree]]


@dataclasses.dataclass(frozen=True)
class Ring:
    """Where the batch lies, and which of its pairs are negatives. Hashable: static under `jit`.

    Attributes:
      mesh: the batch is sharded over all of its axes, in their order; None for one device.
      own_texts: whether texts have ids of their own, so that a pair may not agree with itself.
      group: pairs in a row that see none but each other; 0 for the global loss.
      tile: rows and columns of a tile at most.
    """

    mesh: Mesh | None
    own_texts: bool
    group: int
    tile: int = TILE

    @property
    def devices(self) -> int:
        """How many share the batch."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape.values())

    @property
    def _axes(self) -> tuple[str, ...]:
        return () if self.mesh is None else self.mesh.axis_names

    def spread(self, fn: Callable[..., Any], sharded: PyTree, whole: PyTree, out: PyTree) -> Any:
        """`fn(sharded, whole)` on every device, on its rows of `sharded`.

        Args:
          fn: what a device does.
          sharded: arrays [B, ...], split by rows.
          whole: arrays that every device has.
          out: like the result, True where it is split by rows and False where it is whole.
        """
        if self.devices == 1:
            return fn(sharded, whole)
        rows = P(self._axes)
        specs = jax.tree.map(lambda split: rows if split else P(), out)
        # Unchecked: the sums begin as constants, which the check would want marked as differing
        # from device to device. What is whole in the end went through `total`.
        run = jax.shard_map(
            fn, mesh=self.mesh, in_specs=(rows, P()), out_specs=specs, check_vma=False
        )
        return run(sharded, whole)

    def total(self, x: PyTree) -> PyTree:
        """The sum over the devices, inside of `spread`."""
        return x if self.devices == 1 else jax.lax.psum(x, self._axes)

    def places(self, b: int) -> Array:
        """Where a device's b pairs stand in the batch, i32 [b]; inside of `spread`."""
        place = jnp.arange(b, dtype=jnp.int32)
        return place if self.devices == 1 else place + b * jax.lax.axis_index(self._axes)

    def sweep(
        self, visit: Visit, merge: Merge, home: Side, guest: Side, sums: tuple[PyTree, PyTree]
    ) -> tuple[PyTree, PyTree]:
        """Every image's and every text's sums over the whole matrix; inside of `spread`.

        Args:
          visit: adds a tile to the sums of its rows and its columns.
          merge: adds two sums of the same columns, over other rows.
          home: of the device's images: `z` [b, e], `place` [b], `ids` [b, c] and what `visit`
            reads.
          guest: the same of its texts.
          sums: what to begin with, of the images and of the texts; neutral in `merge`.

        Returns:
          The sums of the device's own images and texts.
        """
        home_sums, nothing = sums
        if self.devices == 1:
            return self._meet(visit, home, guest, home_sums, nothing)

        def meeting(carry: PyTree, _: None) -> tuple[PyTree, None]:
            guest, guest_sums, home_sums = carry
            following, arrived = self._pass_on(guest), self._pass_on(guest_sums)
            home_sums, found = self._meet(visit, home, guest, home_sums, nothing)
            return (following, merge(arrived, found), home_sums), None

        carry = (guest, nothing, home_sums)
        (_, guest_sums, home_sums), _ = jax.lax.scan(meeting, carry, None, length=self.devices)
        return home_sums, self._pass_on(guest_sums)  # The last step home.

    def _pass_on(self, tree: PyTree) -> PyTree:
        steps = [(i, (i - 1) % self.devices) for i in range(self.devices)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self._axes, steps), tree)

    def _meet(
        self, visit: Visit, home: Side, guest: Side, home_sums: PyTree, guest_sums: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Adds all tiles of two shares to their sums."""
        b = len(home["z"])
        size = min(self.tile, b)
        count = -(-b // size)

        def take(tree: PyTree, start: Array) -> PyTree:
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)

        def put(tree: PyTree, part: PyTree, start: Array) -> PyTree:
            def write(x: Array, y: Array) -> Array:
                return jax.lax.dynamic_update_slice_in_dim(x, y, start, 0)

            return jax.tree.map(write, tree, part)

        def one_tile(k: Array | int, sums: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            begin = (k // count) * size, (k % count) * size
            # The last tile ends with the share and overlaps the one before it where the size does
            # not divide: what was seen there is left out.
            start = tuple(jnp.minimum(x, b - size) for x in begin)
            rows, columns = take(home, start[0]), take(guest, start[1])
            images, texts = ((side["ids"], side["place"]) for side in (rows, columns))
            negative = negatives.apart(images, texts, self.own_texts, self.group)
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
    """bf16 has nothing to lose where both sides are; HIGHEST f32 otherwise, also on a TPU."""
    both = home["z"].dtype == guest["z"].dtype == jnp.bfloat16
    return jnp.bfloat16 if both else jnp.float32
