"""What a text head takes: a batch of captions, padded or packed."""

from __future__ import annotations

from jaxtyping import Array, Bool, Float, Int

from ape_jax.align.packing import Packed
from ape_jax.nn.tree import Tree
from ape_jax.towers.tower import TowerConfig, pool_tokens


class TextInput(Tree):
    """Token encodings of B captions: `tokens` and their mask, or `packed`.

    A head computes on `rows`, the tokens as they lie in memory, and lets `pool` average them; so it
    is one function for both forms.

    Attributes:
      tokens: f32 or bf16 [B, T, d], padded.
      mask: bool [B, T], true at real tokens.
      ids: i32 [B, T], vocabulary indices of padded tokens; None where they are unknown.
      packed: captions without padding, with ids and places of their own.
    """

    tokens: Float[Array, "B T d"] | None = None
    mask: Bool[Array, "B T"] | None = None
    ids: Int[Array, "B T"] | None = None
    packed: Packed | None = None

    @property
    def rows(self) -> Float[Array, "n m d"]:
        """The tokens as they lie, padded [B, T, d] or packed [G, S, d]."""
        tokens = self.tokens if self.packed is None else self.packed.tokens
        if tokens is None:
            raise ValueError("captions have tokens, padded or packed")
        return tokens

    @property
    def row_ids(self) -> Int[Array, "n m"]:
        """Vocabulary indices of `rows`.

        Raises:
          ValueError: where the batch has none.
        """
        ids = self.ids if self.packed is None else self.packed.ids
        if ids is None:
            raise ValueError("a lookup head needs the ids of the tokens beside them")
        return ids

    def pool(
        self, x: Float[Array, "n m w"], pooling: str, tower: TowerConfig
    ) -> Float[Array, "B w"]:
        """Pools `x`, which lies as `rows` do, to one vector a caption.

        Args:
          x: a value a token.
          pooling: `mean`, `cls` or `last`.
          tower: config of the tower whose tokens these are; it knows which of them carry text.
        """
        if self.packed is not None:
            return self.packed.replace(tokens=x).pool(pooling)
        if self.mask is None:
            raise ValueError("padded captions have a mask")
        return pool_tokens(x, self.mask, pooling, tower)
