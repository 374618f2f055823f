"""STRUCTURE's term in the training step: heads keep the geometry of both frozen towers."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from ape_jax.align.heads import Mix, TextInput
from ape_jax.align.losses.structure_loss import structure
from ape_jax.align.packing import ImageFeatures, TextFeatures
from ape_jax.towers.tower import TowerConfig

Pooled = tuple[Float[Array, "n d"], Float[Array, "m e"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
    """The term that is added to the contrastive loss, weight * (R_img + R_txt) / 2.

    R of a modality (`losses.structure`) compares one vector an image or a caption below the head
    with its embedding, over all rows of the global batch, whatever the loss's negatives are. Below
    the head are the features as the head takes them, standardised but without noise and dropout.
    Mixed pairs are compared with the features mixed likewise.

    Attributes:
      weight: factor of the term after the ramp, 10 in the paper.
      ramp: steps in which the factor rises linearly from 0, 1,000 in the paper; 0 for none.
      temperature: divisor of the cosines.
      levels: highest matrix power.
      pooling: how a caption's tokens become one vector (`config.poolings`); the tokens of an image
        that is not pooled are averaged.
      tower: config of the text tower.
    """

    weight: float
    ramp: int = 1000
    temperature: float = 0.05
    levels: int = 1
    pooling: str = "mean"
    tower: TowerConfig

    def pooled(self, image: ImageFeatures, text: TextFeatures) -> Pooled:
        """One vector an image and one a caption, below the heads.

        Args:
          image: features of a frozen tower.
          text: likewise.
        """
        if image.pooled is None or (text.tokens is None and text.packed is None):
            raise ValueError("the structure term needs features of frozen towers")
        of_image = image.pooled if image.pooled.ndim == 2 else image.pooled.mean(axis=1)
        tokens = TextInput(tokens=text.tokens, mask=text.mask, packed=text.packed)
        return of_image, tokens.pool(tokens.rows, self.pooling, self.tower)

    def __call__(
        self,
        before: Pooled,
        after: tuple[Float[Array, "b E"], Float[Array, "c E"]],
        step: Int[Array, ""],
        mixes: tuple[Mix | None, Mix | None] = (None, None),
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Computes what is added to the loss, and the term without its factor.

        Args:
          before: the result of `pooled`.
          after: embeddings of images and captions.
          step: number of steps before this one.
          mixes: of mixup, of images and of captions, where pairs are mixed.
          mesh: mesh over which the batch is sharded; None for one device.
        """
        rows = (x if mix is None else mix(x) for x, mix in zip(before, mixes))
        options = {"temperature": self.temperature, "levels": self.levels, "mesh": mesh}
        terms = [structure(x, z, **options) for x, z in zip(rows, after)]
        term = (terms[0] + terms[1]) / 2
        share = jnp.minimum(step / self.ramp, 1.0) if self.ramp else 1.0
        return self.weight * share * term, term
