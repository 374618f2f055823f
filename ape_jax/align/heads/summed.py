"""Several heads on one caption, added up."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float, Int

from ape_jax.align.heads.pooling import Mask, Text


class Summed(nn.Module):
    """The sum of text heads, before it is brought to unit length.

    The first is where training starts from; the others start at zero (`zero=True`) and learn what
    it leaves: a linear map that a closed form has fitted, say, and a token MLP.

    Attributes:
      part: the heads by name; the parameters of each are under `part_NAME`.
    """

    part: dict[str, nn.Module]

    @nn.compact
    def __call__(
        self,
        text: Text,
        mask: Mask = None,
        ids: Int[Array, "B T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B E"]:
        """Adds what the heads give."""
        parts = [head(text, mask, ids, train=train) for head in self.part.values()]
        return sum(parts[1:], parts[0])
