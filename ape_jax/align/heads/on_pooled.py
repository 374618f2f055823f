"""A head on one vector as a text head: on the pooled tokens of a caption."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from ape_jax.align.heads.head import Head, Mix
from ape_jax.align.heads.text_input import TextInput
from ape_jax.towers.tower import TowerConfig


class OnPooledText(Head):
    """A head on pooled features, on one vector a caption; its parameters are the head's.

    Attributes:
      head: maps [B, d] to [B, E].
      tower: the config of the tower whose tokens these are.
      pooling: `mean`, `cls` or `last`.
    """

    head: Head
    tower: TowerConfig
    pooling: str = "mean"

    @property
    def mixes_input(self) -> bool:
        """As the head's."""
        return self.head.mixes_input

    def setup(self) -> None:
        """Lets the head's parameters lie where this module's would."""
        nn.share_scope(self, self.head)

    def __call__(
        self, text: TextInput, *, train: bool = False, mix: Mix | None = None
    ) -> Float[Array, "B E"]:
        """Pools the tokens and applies the head; `mix` acts between the two."""
        pooled = text.pool(text.rows, self.pooling, self.tower)
        return self.head(pooled if mix is None else mix(pooled), train=train)
