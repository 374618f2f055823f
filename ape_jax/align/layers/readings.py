"""Ways to read a tower: one layer or several, pooled in one way; and the vectors of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float32

from ape_jax.storage.row_array import RowArray


@dataclasses.dataclass(frozen=True, order=True)
class Reading:
    """What is read of a tower.

    Attributes:
      layers: one layer, or several whose vectors are joined; -1 is the output.
      pooling: a mode, or several joined by "+".
    """

    layers: tuple[int, ...]
    pooling: str

    @property
    def layer(self) -> int | tuple[int, ...]:
        """As the config's `layer` has it."""
        return self.layers[0] if len(self.layers) == 1 else self.layers

    def __str__(self) -> str:
        return f"{','.join(map(str, self.layers))} {self.pooling}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerVectors:
    """Pooled vectors of all layers of a tower, as `towers.layered` gives them, or one reading's.

    Attributes:
      rows: [n, D], in memory or on disk.
      layers: those whose vectors stand side by side.
      widths: of each mode in the vector of one layer, in its order.
      only: the one reading that these are; None where all layers are there.
    """

    rows: RowArray
    layers: tuple[int, ...] = ()
    widths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    only: Reading | None = None

    def singles(self, pooling: str) -> list[Reading]:
        """A reading of each layer, from below to above; of one reading that alone."""
        return [self.only] if self.only else [Reading((k,), pooling) for k in self.layers]

    def parts(self, reading: Reading) -> tuple[int, ...]:
        """Widths of the vectors that are joined in those of a reading; () for one reading alone."""
        if self.only is not None:
            return ()
        return tuple(
            self.widths[mode] for _ in reading.layers for mode in reading.pooling.split("+")
        )

    def read(self, reading: Reading) -> Float32[np.ndarray, "n e"]:
        """The vectors of one reading, f32.

        Raises:
          ValueError: for a layer or mode that there is none of.
        """
        if self.only is not None:
            if reading != self.only:
                raise ValueError(f"there are vectors of {self.only}, and none of {reading}")
            return np.asarray(self.rows[slice(0, len(self.rows))]).astype(np.float32)
        of_layer, starts, at = sum(self.widths.values()), {}, 0
        for mode, width in self.widths.items():
            starts[mode] = at
            at += width
        columns = [
            self.layers.index(layer) * of_layer + starts[mode] + np.arange(self.widths[mode])
            for layer in reading.layers
            for mode in reading.pooling.split("+")
        ]
        found = np.asarray(self.rows[slice(0, len(self.rows))])
        return found[:, np.concatenate(columns)].astype(np.float32)


def singles(depth: int) -> list[tuple[int, ...]]:
    """Single layers, the simplest first: the output, then from the top down to the embeddings."""
    return [(-1,), *((k,) for k in range(depth - 1, -1, -1))]


def joins(depth: int) -> list[tuple[int, ...]]:
    """Joined layers to try of a tower of so many blocks, few before many.

    Example:
      >>> joins(12)
      [(10, 11), (9, -1), (9, 10, 11), (10, 11, -1), (9, 11, -1), (6, 9, -1), (7, 9, 10, 11)]
    """

    def at(share: float) -> int:
        return round(share * depth)

    low, late, top = at(3 / 4), at(5 / 6), depth - 1
    found = [
        (late, top),
        (low, -1),
        (low, late, top),
        (late, top, -1),
        (low, top, -1),
        (at(1 / 2), low, -1),
        (at(7 / 12), low, late, top),
    ]

    def rises(layers: tuple[int, ...]) -> bool:
        heights = [depth if layer == -1 else layer for layer in layers]
        return all(0 <= a < b for a, b in pairwise(heights))

    return list(dict.fromkeys(filter(rises, found)))


def spaced_best(scores: Mapping[int, float], depth: int, count: int = 3) -> tuple[int, ...]:
    """The best single layers that lie at least a sixth of the depth apart, from below to above.

    Args:
      scores: of single layers, higher is better.
      depth: blocks of the tower.
      count: how many, at most.
    """

    def height(layer: int) -> int:
        return depth if layer == -1 else layer

    chosen: list[int] = []
    for layer in sorted(scores, key=lambda layer: -scores[layer]):
        if all(abs(height(layer) - height(other)) >= max(depth // 6, 1) for other in chosen):
            chosen.append(layer)
    return tuple(sorted(chosen[:count], key=height))


def poolings_of(offered: Sequence[str]) -> list[str]:
    """Poolings to try where these modes are offered: each of them, then the first two joined."""
    return [*offered, "+".join(offered[:2])] if len(offered) > 1 else list(offered)
