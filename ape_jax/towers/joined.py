"""Several layers of a tower read in one pass, and their pooled vectors joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ape_jax.errors import UserError
from ape_jax.towers.tower import Encoded, Params, Tower, take_blocks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class JoinedTower(Tower):
    """A tower whose output is that of several layers; made by `joining`."""

    def apply(
        self,
        params: Params,
        batch: Mapping[str, Any],
        *,
        layer: int = -1,
        pooling: str | None = None,
    ) -> Encoded:
        """Encode a batch as `Tower.apply` does; at layer -1 `config.joined` are read.

        Blocks above the highest of them are not run. `Encoded.tokens` are those of the highest.

        Args:
          params: as there; the stack of blocks may end with the highest layer that is read.
          batch: as there.
          layer: -1, or any single layer.
          pooling: of each layer.

        Raises:
          UserError: as there.
        """
        if layer != -1:
            return super().apply(params, batch, layer=layer, pooling=pooling)
        pooled, out, start = {}, None, 0
        for stop, inner in sorted((_stop(self, inner), inner) for inner in self.config.joined):
            reading: dict[str, Any] = {"layer": inner, "pooling": pooling}
            if out is None:
                out = super().apply(params, batch, **reading)
            else:
                part = take_blocks(params, start, stop[0])
                grid = self.config.places(batch).get("grid")
                out = self.resume(part, out.tokens, out.mask, start=start, grid=grid, **reading)
            pooled[inner], start = out.pooled, stop[0]
        assert out is not None
        joined = jnp.concatenate([pooled[inner] for inner in self.config.joined], axis=-1)
        return out.replace(pooled=joined)


def joining(tower: Tower, layers: Sequence[int]) -> Tower:
    """The tower whose output is the pooled vectors of several layers, end to end.

    Example:
      >>> from ape_jax import towers
      >>> tower, params = towers.read("demo:vit_s14", kind="image")
      >>> joining(tower, (9, 11, -1)).config.pooled_width("cls+mean")
      2304

    Args:
      tower: one that JAX runs.
      layers: different ones, each counted as for `Tower.apply`; their vectors stand in this order.

    Raises:
      UserError: for a layer that the tower does not have, or one that comes twice.
    """
    stops = [_stop(tower, layer) for layer in layers]
    if len(set(stops)) < len(stops):
        raise UserError(f"layer is {tuple(layers)}, in which one comes twice; write each once")
    joined = tuple(-1 if final else blocks for blocks, final in stops)
    fields = {field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)}
    return JoinedTower(**{**fields, "config": dataclasses.replace(tower.config, joined=joined)})


def _stop(tower: Tower, layer: int) -> tuple[int, bool]:
    """The blocks below a layer, and whether the last norm lies below it as well."""
    return tower.resolve(layer, "none")[:2]
