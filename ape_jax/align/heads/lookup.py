"""APE's control: a learned vector a token id, averaged over the caption."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import Head, Site, TextInput, TorchLayer, last_kernel
from ape_jax.config.components import HeadSpec
from ape_jax.towers.tower import TowerConfig


class Lookup(Head):
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
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Looks the ids up and averages over the real tokens.

        Raises:
          ValueError: where the batch has no ids.
        """
        start = last_kernel(self.zero, nn.initializers.normal(0.02))
        table = self.param("table", start, (self.vocabulary, self.features), jnp.float32)
        return text.pool(table[text.row_ids], "mean", self.tower)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Names the torch layer, see `Head`."""
        return "lookup", {"embed": embed, "vocabulary": self.vocabulary}


def _lookup(site: Site) -> Lookup:
    vocabulary: int = vars(site.tower)["vocab_size"]  # Of every text tower's config.
    return Lookup(site.features, site.tower, vocabulary, site.zero)


LOOKUP = HeadSpec(
    name="lookup", title="lookup table of tokens", text=_lookup, needs=frozenset({"ids"})
)
