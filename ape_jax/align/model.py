"""Two towers, two heads and a scale, cut in two by what is trained.

`frozen` and `trainable` are two parameter trees from the first line to the last:

    batch -> features(frozen, batch) -> align(trainable, features) -> zimg, ztxt
             ^ under stop_gradient      ^ the only thing that is differentiated

Where a tower is frozen its feature is the tower's output; where it is trained, its feature is the
raw input and the tower runs inside `align`. A batch may hold raw inputs or tower outputs that were
encoded before: from `features` on, both are the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ape_jax.align import heads
from ape_jax.align.packing import Packed
from ape_jax.towers.tower import Tower

Batch = Mapping[str, Array]
Mix = Callable[[Array], Array]


@flax.struct.dataclass
class ImageFeatures:
    """What the frontier hands on for images: exactly one of the two fields.

    Attributes:
      pooled: f32 [B, d] of a frozen tower, standardised if the model says so.
      image: f32 [B, H, W, 3] for a tower that is trained.
    """

    pooled: Float[Array, "B d"] | None = None
    image: Float[Array, "B H W 3"] | None = None


@flax.struct.dataclass
class TextFeatures:
    """What the frontier hands on for captions: `packed`, or the mask and one of the other two.

    Attributes:
      mask: bool [B, T], true at real tokens.
      tokens: f32 or bf16 [B, T, d] of a frozen tower.
      ids: i32 [B, T] for a tower that is trained.
      packed: tokens of a frozen tower, without padding.
    """

    mask: Bool[Array, "B T"] | None = None
    tokens: Float[Array, "B T d"] | None = None
    ids: Int[Array, "B T"] | None = None
    packed: Packed | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One tower and what is done to it.

    Attributes:
      tower: the pretrained encoder.
      head: a module of `align.heads`.
      tune: `frozen` or `full`.
      layer: which hidden state is read (`Tower.apply`); -1 is the output.
      pooling: how an image's tokens become one vector; text heads pool for themselves.
    """

    tower: Tower
    head: nn.Module
    tune: Literal["frozen", "full"] = "frozen"
    layer: int = -1
    pooling: str = "none"

    @property
    def frontier(self) -> Literal["input", "output"]:
        """The deepest activation that depends on no trained parameter."""
        return "output" if self.tune == "frozen" else "input"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A CLIP-like model whose trained part is explicit.

    Attributes:
      image: the image side.
      text: the text side.
      scale: initial inverse temperature.
      scale_max: upper bound kept by `clamp_scale`.
      learn_scale: whether the scale is trained.
      bias: initial bias of the sigmoid loss (SigLIP starts at -10), None where there is none; it
        is trained if the scale is.
      standardize: whether image features are centred and scaled by fixed statistics.
    """

    image: Side
    text: Side
    scale: float = 1 / 0.07
    scale_max: float = 100.0
    learn_scale: bool = True
    bias: float | None = None
    standardize: bool = False

    def init(self, seed: int) -> tuple[PyTree, PyTree]:
        """The two parameter trees: `(trainable, frozen)`, frozen statistics being neutral."""
        # Folded apart from the step's keys, which come from the same seed.
        stream = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
        key_image, key_text = jax.random.split(stream)
        width = self.image.tower.config.pooled_width(self.image.pooling)
        pooled, mask = jnp.zeros((1, width)), jnp.ones((1, 2), bool)
        tokens = jnp.zeros((1, 2, self.text.tower.config.width))
        trainable = {
            "image_head": self.image.head.init(key_image, pooled).get("params", {}),
            "text_head": self.text.head.init(key_text, tokens, mask).get("params", {}),
        }
        frozen: dict[str, Any] = {}
        for name, side in (("image_tower", self.image), ("text_tower", self.text)):
            (frozen if side.tune == "frozen" else trainable)[name] = side.tower.params
        logits = {"log_scale": jnp.float32(math.log(self.scale))}
        if self.bias is not None:
            logits["bias"] = jnp.float32(self.bias)
        (trainable if self.learn_scale else frozen)["loss"] = logits
        if self.standardize:
            frozen["statistics"] = {"center": jnp.zeros(width), "spread": jnp.ones(width)}
        return {name: tree for name, tree in trainable.items() if tree}, frozen

    def encode_images(self, frozen: PyTree, image: Float[Array, "B H W 3"]) -> Float[Array, "B d"]:
        """Pooled outputs of the frozen image tower before standardisation: the cache's rows."""
        side = self.image
        out = side.tower.apply(
            frozen["image_tower"], {"image": image}, layer=side.layer, pooling=side.pooling
        )
        return jax.lax.stop_gradient(out.pooled.astype(jnp.float32))

    def encode_texts(self, frozen: PyTree, batch: Batch) -> TextFeatures:
        """Token encodings of the frozen text tower: the cache's rows."""
        side = self.text
        raw = {"ids": batch["ids"], "mask": batch["mask"]}
        out = side.tower.apply(frozen["text_tower"], raw, layer=side.layer, pooling="none")
        # The tower's own mask: CLIP's ends at its first end-of-text token.
        features = TextFeatures(mask=out.mask, tokens=out.tokens.astype(jnp.float32))
        return jax.lax.stop_gradient(features)

    def image_features(self, frozen: PyTree, batch: Batch) -> ImageFeatures:
        """From `image` (raw) or `pooled` (encoded before) to what `align` takes."""
        if self.image.frontier == "input":
            return ImageFeatures(image=batch["image"])
        pooled = batch.get("pooled")
        if pooled is None:
            pooled = self.encode_images(frozen, batch["image"])
        if self.standardize:
            statistics = frozen["statistics"]
            pooled = (pooled - statistics["center"]) / statistics["spread"]
        return ImageFeatures(pooled=jax.lax.stop_gradient(pooled))

    def text_features(self, frozen: PyTree, batch: Batch) -> TextFeatures:
        """From `ids` (raw) or `tokens` (encoded before) to what `align` takes.

        With `tokens` [B, T, d] and with `ids` comes `mask`; packed `tokens` [G, S, d] come with
        `lengths` (see `align.packing`).
        """
        if self.text.frontier == "input":
            return TextFeatures(mask=batch["mask"], ids=batch["ids"])
        if "lengths" in batch:
            features = TextFeatures(packed=Packed(batch["tokens"], batch["lengths"]))
            return jax.lax.stop_gradient(features)
        if "tokens" in batch:
            features = TextFeatures(mask=batch["mask"], tokens=batch["tokens"])
            return jax.lax.stop_gradient(features)
        return self.encode_texts(frozen, batch)

    def align_images(
        self,
        trainable: PyTree,
        features: ImageFeatures,
        rng: Array | None = None,
        mix: Mix | None = None,
    ) -> Float[Array, "B E"]:
        """Unit-length image embeddings; `rng` turns training behaviour (dropout) on.

        `mix` maps what the head gives, before it is brought to unit length.
        """
        side, pooled = self.image, features.pooled
        if pooled is None:
            out = side.tower.apply(
                trainable["image_tower"],
                {"image": features.image},
                layer=side.layer,
                pooling=side.pooling,
            )
            pooled = out.pooled
        return _head(side.head, trainable.get("image_head", {}), rng, mix, pooled)

    def align_texts(
        self,
        trainable: PyTree,
        features: TextFeatures,
        rng: Array | None = None,
        mix: Mix | None = None,
    ) -> Float[Array, "B E"]:
        """Unit-length text embeddings; `rng` and `mix` as for images."""
        side, tokens, mask = self.text, features.tokens, features.mask
        if features.packed is not None:
            return _head(side.head, trainable["text_head"], rng, mix, features.packed)
        if tokens is None:
            raw = {"ids": features.ids, "mask": mask}
            out = side.tower.apply(trainable["text_tower"], raw, layer=side.layer, pooling="none")
            tokens, mask = out.tokens, out.mask
        return _head(side.head, trainable["text_head"], rng, mix, tokens, mask)

    def logit_scale(self, trainable: PyTree, frozen: PyTree) -> tuple[Array, Array | None]:
        """The scale (inverse temperature) and the sigmoid loss's bias, None for softmax."""
        logits = (trainable if self.learn_scale else frozen)["loss"]
        return jnp.exp(logits["log_scale"]), logits.get("bias")

    def clamp_scale(self, trainable: PyTree) -> PyTree:
        """Keeps the scale under its bound; applied after each update, as CLIP does.

        A bound inside the loss would cut the gradient off and leave the scale stuck there.
        """
        if not self.learn_scale:
            return trainable
        bounded = jnp.minimum(trainable["loss"]["log_scale"], math.log(self.scale_max))
        return {**trainable, "loss": {**trainable["loss"], "log_scale": bounded}}


def _head(
    head: nn.Module, params: PyTree, rng: Array | None, mix: Mix | None, *inputs: Array | Packed
) -> Float[Array, "B E"]:
    rngs = None if rng is None else {"dropout": rng}
    z = head.apply({"params": params}, *inputs, train=rng is not None, rngs=rngs)
    return heads.normalize(z if mix is None else mix(z))
