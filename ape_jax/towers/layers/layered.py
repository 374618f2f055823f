"""The pooled vectors of every layer of a tower in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from ape_jax.config import poolings
from ape_jax.errors import UserError
from ape_jax.nn import stack
from ape_jax.towers.tower import Encoded, Params, Tower, pool_tokens


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayeredTower(Tower):
    """A tower whose output is the pooled vectors of all its layers; made by `layered`."""

    def apply(
        self,
        params: Params,
        batch: Mapping[str, Any],
        *,
        layer: int = -1,
        pooling: str | None = None,
    ) -> Encoded:
        """Encode a batch as `Tower.apply` does; at layer -1 all of `config.joined` are read.

        The blocks run in one scan, in which what each gives is pooled.

        Args:
          params: as there, with all blocks.
          batch: as there.
          layer: -1, or any single layer.
          pooling: one or several modes that need no parameters, joined by "+".

        Returns:
          The tokens of the highest layer, and pooled vectors of all layers end to end, each as
          `Tower.apply` gives it.

        Raises:
          UserError: as there, and for a pooling that a trained part of the tower computes.
        """
        if layer != -1:
            return super().apply(params, batch, layer=layer, pooling=pooling)
        pooling = self.resolve(layer, pooling)[2]
        if not poolings.parts(pooling):
            raise UserError(f"pooling {pooling!r} is none that every layer has; write 'mean'")
        variables = {"params": params}
        run = nn.apply(_run, self.module, mutable=[stack.COLLECTION])
        (lowest, out), kept = run(variables, batch, pooling)
        inner = stack.what_was_read(kept)[:-1]  # The stream under the last norm is left out.
        assert out.pooled is not None
        vectors = jnp.concatenate([lowest, *inner, out.pooled], axis=-1)
        return out.replace(pooled=vectors)


def layered(tower: Tower) -> Tower:
    """The tower whose output is the pooled vectors of all its layers, end to end.

    They are the embeddings (0), the stream after each block but the last (1, 2, ...), and the
    output (-1); `config.joined` lists them.

    Example:
      >>> from ape_jax import towers
      >>> tower, params = towers.read("demo:vit_s14", kind="image")
      >>> layered(tower).config.joined
      (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -1)

    Args:
      tower: one that JAX runs.

    Raises:
      UserError: for a tower that has no layers of one width.
    """
    tower.resolve(0, "none")
    joined = (*range(tower.config.depth), -1)
    fields = {field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)}
    return LayeredTower(**{**fields, "config": dataclasses.replace(tower.config, joined=joined)})


def _run(module: nn.Module, batch: Mapping[str, Any], pooling: str) -> tuple[Array, Encoded]:
    x, mask = module.embed(batch)

    def read(x: Array) -> Array:
        return pool_tokens(x, mask, pooling, module.config)

    with stack.reading(read):
        out = module.run_blocks(x, mask, **module.config.places(batch))
    return read(x), module.finish(out, mask, pooling)
