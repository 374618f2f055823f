"""APE's control: a learned vector a token id, averaged over the caption."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ape_jax.align.heads.pooling import Mask, Text, last_kernel, pool_like
from ape_jax.align.packing import Packed
from ape_jax.towers.tower import TowerConfig


class Lookup(nn.Module):
    """A table of vectors; what the tower says of the tokens is not used, only which they are.

    Attributes:
      features: the joint width E.
      tower: the config of the tower whose tokens these are.
      vocabulary: rows of the table.
      zero: whether the table starts at zero.

    References:
      Rosenfeld et al., arXiv 2210.03927, where it does surprisingly well.
    """

    features: int
    tower: TowerConfig
    vocabulary: int
    zero: bool = False

    @nn.compact
    def __call__(
        self,
        text: Text,
        mask: Mask = None,
        ids: Int[Array, "B T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B E"]:
        """Looks the ids up and averages over the real tokens.

        Raises:
          ValueError: where the batch has no ids.
        """
        ids = text.ids if isinstance(text, Packed) else ids
        if ids is None:
            raise ValueError("a lookup head needs the ids of the tokens beside them")
        start = last_kernel(self.zero, nn.initializers.normal(0.02))
        table = self.param("table", start, (self.vocabulary, self.features), jnp.float32)
        return pool_like(table[ids], text, mask, "mean", self.tower)
