"""The head of ASIF: a vector is described by its similarities to stored anchors.

Nothing is trained: the parameters are the anchors, which `closed_form.asif` gives. An embedding is
as wide as there are anchors.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads.base.head import Head, Site, TorchLayer
from ape_jax.config.components import HeadSpec
from ape_jax.errors import UserError


class Anchored(Head):
    """Relative coordinates of pooled features; see `closed_form.asif.relative`.

    Attributes:
      anchors: how many.
      neighbours: the similarities that are kept, the largest.
      power: they are raised to.
    """

    anchors: int
    neighbours: int
    power: float

    @property
    def mixes_input(self) -> bool:
        """True: the head is not linear."""
        return True

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B a"]:
        """Describes each row by the anchors, in f32."""
        width = pooled.shape[-1]
        anchors = self.param("anchors", nn.initializers.zeros, (self.anchors, width))
        mean = self.param("mean", nn.initializers.zeros, (width,))
        x = pooled.astype(jnp.float32) - mean
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        scores = jnp.matmul(x, anchors.T, precision=jax.lax.Precision.HIGHEST)
        values, places = jax.lax.top_k(scores, min(self.neighbours, self.anchors))
        values = jnp.maximum(values, 0) ** self.power
        # At unit length here already: a high power of small values would underflow in its square.
        values = values / jnp.maximum(jnp.linalg.norm(values, axis=-1, keepdims=True), 1e-30)
        rows = jnp.arange(pooled.shape[0])[:, None]
        return jnp.zeros_like(scores).at[rows, places].set(values)

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Refuses: there is no layer that holds a training set."""
        raise UserError(
            "config.method: 'asif' compares with every training pair instead of having a head; "
            "it is not exported: write --format jax, or solve 'cca' on the same pairs"
        )


def _anchored(site: Site, *, anchors: int, neighbours: int, power: float) -> Anchored:
    return Anchored(anchors, neighbours, power)


# No name in the config: a closed form fills it.
ANCHORED = HeadSpec(name="anchored", title="similarities to anchors", pooled=_anchored)
