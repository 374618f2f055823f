"""`towers.load`: a tower bound to its weights, for people at a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ape_jax.towers.loading import read
from ape_jax.towers.outside import OWN, OutsideEncoder
from ape_jax.towers.tower import Encoded, Params, Tower, forward, pool

_encode = jax.jit(forward, static_argnums=(0, 1, 2, 3))


@dataclasses.dataclass(frozen=True, eq=False)
class BoundTower:
    """A tower bound to its weights: what `towers.load` gives to people at a prompt.

    Example:
      tower = towers.load("demo:vit_s14")
      out = tower(tower.prepare(["cat.png"]))      # out.tokens, out.mask, out.pooled

    Attributes:
      tower: the description.
      params: nested dict of arrays; blocks stacked [L, ...] under "blocks".
    """

    tower: Tower
    params: Params = dataclasses.field(repr=False)

    @property
    def config(self) -> Any:
        """The family's TowerConfig."""
        return self.tower.config

    @property
    def prepare(self) -> Any:
        """Raw images or texts -> batch of numpy arrays."""
        return self.tower.prepare

    def __call__(
        self, batch: Mapping[str, Any], layer: int = -1, pooling: str | None = None
    ) -> Encoded:
        """Encode one batch (compiled once a shape); layer and pooling as for `Tower.apply`."""
        if self.tower.outside is not None:
            return _encode_outside(self.tower, self.tower.outside, batch, layer, pooling)
        depth, final, pooling = self.tower.resolve(layer, pooling)
        # Only blocks that run are handed over, and the compiled function is shared by all towers
        # of the same module.
        return _encode(self.tower.module, depth, final, pooling, self.params, dict(batch))


def _encode_outside(
    tower: Tower,
    outside: OutsideEncoder,
    batch: Mapping[str, Any],
    layer: int,
    pooling: str | None,
) -> Encoded:
    """Encodes a batch with the tower's own library."""
    pooling = str(tower.config.pooling) if pooling is None else pooling
    tokens, mask = (jnp.asarray(x) for x in outside.tokens(batch, layer))
    if pooling == OWN:
        pooled = jnp.asarray(outside.own(batch))
    else:
        pooled = pool(tokens, mask, pooling, tower.config)
    return Encoded(tokens=tokens, mask=mask, pooled=pooled)


def load(spec: str | Path, **options: Any) -> BoundTower:
    """Load a pretrained tower, bound to its weights; spec and options as for `read`.

    Example:
      tower = towers.load("hf:facebook/dinov2-small", dtype="float32")
      out = tower(tower.prepare(["cat.png"]))

    Raises:
      UserError: as `read`.
    """
    tower, params = read(spec, **options)
    return BoundTower(tower, jax.tree.map(jnp.asarray, params))
