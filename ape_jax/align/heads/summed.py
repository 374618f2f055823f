"""Several heads on one caption, added up."""

from __future__ import annotations

import functools
import operator

import flax.linen as nn
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import Head
from ape_jax.align.heads.base.text_input import TextInput


class Summed(Head):
    """The sum of text heads, before it is brought to unit length.

    The first is where training starts from; the others start at zero (`zero=True`) and learn what
    it leaves: a linear map that a closed form has fitted, say, and a token MLP.

    Attributes:
      part: the heads by name; the parameters of each are under `part_NAME`.
    """

    part: dict[str, Head]

    @nn.compact
    def __call__(self, text: TextInput, *, train: bool = False) -> Float[Array, "B E"]:
        """Adds what the heads give."""
        parts = [head(text, train=train) for head in self.part.values()]
        return functools.reduce(operator.add, parts)
