"""A head on one vector as a text head: on the pooled tokens of a caption."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from ape_jax.align.heads.base.head import Head, Mix, TorchLayer
from ape_jax.align.heads.base.text_input import TextInput
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

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """As the head, which pools as well."""
        name, settings = self.head.to_torch(width, embed)
        return name, {**settings, "pooling": self.pooling}

    @nn.nowrap
    def torch_params(self, params: PyTree) -> PyTree:
        """As the head's."""
        return self.head.torch_params(params)

    def setup(self) -> None:
        """Lets the head's parameters lie where this module's would."""
        nn.share_scope(self, self.head)

    def __call__(
        self, text: TextInput, *, train: bool = False, mix: Mix | None = None
    ) -> Float[Array, "B E"]:
        """Pools the tokens and applies the head; `mix` acts between the two."""
        pooled = text.pool(text.rows, self.pooling, self.tower)
        return self.head(pooled if mix is None else mix(pooled), train=train)
