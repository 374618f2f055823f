"""Several layers of a tower read in one pass, and what they give joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ape_jax.errors import UserError
from ape_jax.towers.pooling import OWN
from ape_jax.towers.tower import Encoded, Params, Tower, pool, take_blocks


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

        Blocks above the highest of them are not run. Of images the pooled vectors are joined, and
        `Encoded.tokens` are those of the highest layer. Of texts the tokens are joined along their
        width, and pooled after that.

        Args:
          params: as there; the stack of blocks may end with the highest layer that is read.
          batch: as there.
          layer: -1, or any single layer.
          pooling: of each layer; of a text none that a trained part of the tower computes.

        Raises:
          UserError: as there.
        """
        if layer != -1:
            return super().apply(params, batch, layer=layer, pooling=pooling)
        if self.kind == "image":
            out = self._outputs(params, batch, pooling)
            found = (out[inner].pooled for inner in self.config.joined)
            vectors = [pooled for pooled in found if pooled is not None]
            return out[self._highest].replace(pooled=jnp.concatenate(vectors, axis=-1))
        pooling = self._text_pooling(pooling)
        out = self._outputs(params, batch, "none")
        tokens = jnp.concatenate([out[inner].tokens for inner in self.config.joined], axis=-1)
        mask = out[self._highest].mask
        return Encoded(tokens=tokens, mask=mask, pooled=pool(tokens, mask, pooling, self.config))

    @property
    def _highest(self) -> int:
        return max(self.config.joined, key=lambda inner: _stop(self, inner))

    def _outputs(
        self, params: Params, batch: Mapping[str, Any], pooling: str | None
    ) -> dict[int, Encoded]:
        """What each of the layers gives; each run of blocks goes on from the one below."""
        found: dict[int, Encoded] = {}
        out, start = None, 0
        for stop, inner in sorted((_stop(self, inner), inner) for inner in self.config.joined):
            reading: dict[str, Any] = {"layer": inner, "pooling": pooling}
            if out is None:
                out = super().apply(params, batch, **reading)
            else:
                part = take_blocks(params, start, stop[0])
                grid = self.config.places(batch).get("grid")
                out = self.resume(part, out.tokens, out.mask, start=start, grid=grid, **reading)
            found[inner], start = out, stop[0]
        return found

    def _text_pooling(self, pooling: str | None) -> str:
        if pooling in OWN:
            raise UserError(
                f"pooling {pooling!r} belongs to layer -1 alone, and {self.config.joined} are "
                "joined; write 'mean'"
            )
        own: str = self.config.pooling
        return pooling or ("none" if own in OWN else own)


def joining(tower: Tower, layers: Sequence[int]) -> Tower:
    """The tower whose output is that of several layers, end to end.

    These are the pooled vectors of an image, and the encodings of a text's tokens.

    Example:
      >>> from ape_jax import towers
      >>> tower, params = towers.read("demo:vit_s14", kind="image")
      >>> joining(tower, (9, 11, -1)).config.pooled_width("cls+mean")
      2304

    Args:
      tower: one that JAX runs.
      layers: different ones, each counted as for `Tower.apply`; they stand in this order.

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
