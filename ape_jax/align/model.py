"""Two towers, two heads and a scale, cut in two by what is trained.

`frozen` and `trainable` are two parameter trees from the first line to the last:

    batch -> features(frozen, batch) -> align(trainable, frozen, features) -> zimg, ztxt
             ^ under stop_gradient      ^ differentiated with respect to `trainable` only

A feature is what a tower gives at its frontier, the deepest activation that depends on no trained
parameter: the output of a frozen tower, the hidden state under the first trained block, or the raw
input (see `align.tuned`). The rest of the tower runs inside `align`, where its frozen leaves are
under `stop_gradient`. A batch may hold raw inputs or features that were encoded before: from
`features` on, both are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ape_jax.align import heads
from ape_jax.align.heads.base.batch_norm import STATS
from ape_jax.align.languages import Languages
from ape_jax.align.packing import ImageFeatures, Packed, TextFeatures
from ape_jax.align.tuning import peft
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.config.tune import Frontier
from ape_jax.towers.pooling import OWN
from ape_jax.towers.tower import Encoded, Tower

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One modality: a tower, its tuning mode and its head.

    Attributes:
      tower: the pretrained encoder, without its weights.
      head: a module of `align.heads`.
      tune: the name of a tuning mode, see `ape_jax.config.tune`.
      layer: which hidden state is read (`Tower.apply`); -1 is the output.
      pooling: how an image's tokens become one vector; text heads pool for themselves ("none"),
        unless a trained part of the tower does.
      peft: the sizes of adapters and LoRA.
    """

    tower: Tower
    head: heads.Head
    tune: str = "frozen"
    layer: int = -1
    pooling: str = "none"
    peft: peft.Options = dataclasses.field(default_factory=peft.Options)

    @property
    def frontier(self) -> Frontier:
        """The deepest activation that depends on no trained parameter."""
        return self.tuned.frontier

    @property
    def token_width(self) -> int:
        """Width of a caption's tokens, or of the one vector that the tower gives in their place."""
        config = self.tower.config
        return config.pooled_width(self.pooling) if self.pooling in OWN else config.token_width

    @functools.cached_property
    def tuned(self) -> Tuned:
        """The tower under its tuning mode."""
        options = {"layer": self.layer, "pooling": self.pooling, "options": self.peft}
        return Tuned(tower=self.tower, tune=self.tune, **options)


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
      weights: E where fixed weights are put on what both heads give, before it is brought to unit
        length; 0 for none.
      languages: whose mean is taken off each caption's tokens, by fixed statistics; None for none.
      dim: how many first numbers of an embedding `embed` gives, at unit length again; 0 for all.
    """

    image: Side
    text: Side
    scale: float = 1 / 0.07
    scale_max: float = 100.0
    learn_scale: bool = True
    bias: float | None = None
    standardize: bool = False
    weights: int = 0
    languages: Languages | None = None
    dim: int = 0

    def init(self, seed: int, towers: Mapping[str, PyTree]) -> tuple[PyTree, PyTree]:
        """The two parameter trees: `(trainable, frozen)`, frozen statistics being neutral.

        Args:
          seed: of the heads and of what is added to towers.
          towers: the towers' parameters, `image_tower` and `text_tower`, as `towers.read` gives
            them; their leaves are shared out and stay where they are, on the host or on devices.
        """
        trainable, frozen = self.init_heads(seed), {}
        for name, key, side in zip(
            ("image_tower", "text_tower"), _keys(seed), (self.image, self.text)
        ):
            fresh = jax.random.fold_in(key, 1)
            trainable[name], frozen[name] = side.tuned.init(fresh, towers[name])
        logits = {"log_scale": jnp.float32(math.log(self.scale))}
        if self.bias is not None:
            logits["bias"] = jnp.float32(self.bias)
        (trainable if self.learn_scale else frozen)["loss"] = logits
        frozen["statistics"] = self._statistics()
        # A tower that is trained as a whole leaves nothing in `frozen`, and the other way round.
        trainable, frozen = (
            {name: tree for name, tree in part.items() if tree} for part in (trainable, frozen)
        )
        return trainable, frozen

    def _statistics(self) -> dict[str, Array]:
        """The fixed vectors of the model, neutral: no centre, no spread, all weights alike."""
        found = {}
        if self.standardize:
            width = self.image.tower.config.pooled_width(self.image.pooling)
            found |= {"center": jnp.zeros(width), "spread": jnp.ones(width)}
        if self.languages is not None:
            found["languages"] = jnp.zeros((self.languages.count, self.text.token_width))
        return found | ({"weights": jnp.ones(self.weights)} if self.weights else {})

    def init_heads(self, seed: int) -> dict[str, PyTree]:
        """The heads' part of `init`, without the names that have no leaf.

        Returns:
          Parameters `image_head` and `text_head`, and running statistics `batch_stats` of both.
        """
        key_image, key_text = _keys(seed)
        image = self.image.tower.config
        shape = (1, image.pooled_width(self.image.pooling))
        if self.image.pooling == "none":  # The head takes CLS and patches.
            shape = (1, image.prefix_tokens + 1, image.width)
        tokens, mask = jnp.zeros((1, 2, self.text.token_width)), jnp.ones((1, 2), bool)
        text = heads.TextInput(tokens=tokens, mask=mask, ids=jnp.zeros((1, 2), jnp.int32))
        made = {
            "image_head": self.image.head.init(key_image, jnp.zeros(shape)),
            "text_head": self.text.head.init(key_text, text),
        }
        trees = {name: variables["params"] for name, variables in made.items() if variables}
        stats = {name: tree[STATS] for name, tree in made.items() if STATS in tree}
        return trees | ({STATS: stats} if stats else {})

    def encode_images(
        self, frozen: PyTree, image: Float[Array, "B H W 3"]
    ) -> Float[Array, "B d"] | Float[Array, "B T d"]:
        """The cache's rows: pooled outputs before standardisation, or hidden states."""
        out = self.image.tuned.encode(frozen["image_tower"], {"image": image})
        return _read(out).astype(jnp.float32)

    def encode_texts(self, frozen: PyTree, batch: Batch) -> TextFeatures:
        """The cache's rows: token encodings of a frozen text tower, or hidden states."""
        raw = {"ids": batch["ids"], "mask": batch["mask"]}
        # The tower's own mask: CLIP's ends at its first end-of-text token.
        tokens, mask = _read_text(self.text.tuned.encode(frozen["text_tower"], raw))
        return self._text_features(mask, tokens.astype(jnp.float32), batch["ids"])

    def image_features(self, frozen: PyTree, batch: Batch) -> ImageFeatures:
        """From `image` (raw) or `pooled` (encoded before) to what `align` takes.

        `pooled` is what `encode_images` gives: [B, T, d] where the frontier is a hidden state.
        """
        if self.image.frontier == "input":
            return ImageFeatures(image=batch["image"])
        pooled = batch.get("pooled")
        if pooled is None:
            pooled = self.encode_images(frozen, batch["image"])
        if self.image.frontier == "hidden":
            return ImageFeatures(hidden=jax.lax.stop_gradient(pooled))
        if self.standardize:
            statistics = frozen["statistics"]
            pooled = (pooled - statistics["center"]) / statistics["spread"]
        return ImageFeatures(pooled=jax.lax.stop_gradient(pooled))

    def text_features(self, frozen: PyTree, batch: Batch) -> TextFeatures:
        """From `ids` (raw) or `tokens` (encoded before) to what `align` takes.

        With `tokens` [B, T, d] and with `ids` comes `mask`; packed `tokens` [G, S, d] come with
        `lengths` (see `align.packing`). Beside tokens, `ids` and `token_index` may come, and
        `language`, the row of each caption's mean, shaped as `lengths` or [B]; without it captions
        are in no language that is known.
        """
        if self.text.frontier == "input":
            return TextFeatures(mask=batch["mask"], ids=batch["ids"])
        if "lengths" in batch:
            beside = (batch.get(name) for name in ("ids", "token_index"))
            features = TextFeatures(packed=Packed(batch["tokens"], batch["lengths"], *beside))
        elif "tokens" in batch:
            tokens = jax.lax.stop_gradient(batch["tokens"])
            features = self._text_features(batch["mask"], tokens, batch.get("ids"))
        else:
            features = self.encode_texts(frozen, batch)
        features = self._centred(frozen, features, batch.get("language"))
        return features if features.packed is None else jax.lax.stop_gradient(features)

    def _centred(
        self, frozen: PyTree, features: TextFeatures, language: Array | None
    ) -> TextFeatures:
        """Takes the mean of its language off each caption's tokens."""
        if self.languages is None:
            return features
        means, packed = frozen["statistics"]["languages"], features.packed
        if packed is not None:
            rows = jnp.zeros_like(packed.lengths) if language is None else language
            shift = packed.spread(means[rows.reshape(-1)])  # Zero in the padding.
            tokens = packed.tokens.astype(jnp.float32) - shift
            return features.replace(packed=packed.replace(tokens=tokens))
        if features.tokens is None or features.mask is None:
            raise ValueError("means of languages are those of a frozen text tower")
        rows = jnp.zeros(len(features.mask), jnp.int32) if language is None else language
        shift = jnp.where(features.mask[..., None], means[rows][:, None], 0)
        return features.replace(tokens=features.tokens.astype(jnp.float32) - shift)

    def _text_features(self, mask: Array, tokens: Array, ids: Array | None) -> TextFeatures:
        if self.text.frontier == "hidden":
            return TextFeatures(mask=mask, hidden=tokens, ids=ids)
        return TextFeatures(mask=mask, tokens=tokens, ids=ids)

    def embed(
        self, trainable: PyTree, frozen: PyTree, features: ImageFeatures | TextFeatures
    ) -> Float[Array, "B E"]:
        """Unit-length embeddings of images or captions, for inference: [B, dim] if that is set."""
        z = self.align(trainable, frozen, features)[0]
        return heads.normalize(z[:, : self.dim]) if self.dim else z

    def align(
        self,
        trainable: PyTree,
        frozen: PyTree,
        features: ImageFeatures | TextFeatures,
        rng: Array | None = None,
        mix: heads.Mix | None = None,
        *,
        unit: bool = True,
    ) -> tuple[Float[Array, "n E"], dict[str, PyTree]]:
        """Unit-length embeddings, and the running statistics that the forward pass has updated.

        Args:
          trainable: the trained parameters, and running statistics where there are some.
          frozen: the others.
          features: of images or of captions.
          rng: turns training behaviour (dropout, batch norm) on.
          mix: maps what the head gives, before it is brought to unit length, or what it takes
            where that is one vector an image or a caption.
          unit: whether the embeddings are brought to unit length.

        Returns:
          The embeddings, and a tree like `trainable[STATS]`, {} where nothing was updated.
        """
        if isinstance(features, ImageFeatures):
            name, side = "image", self.image
            inputs = self._image_input(trainable, frozen, features)
        else:
            name, side = "text", self.text
            inputs = self._text_input(trainable, frozen, features)
        head = f"{name}_head"
        variables = {"params": trainable.get(head, {})}
        if head in (stats := trainable.get(STATS, {})):
            variables[STATS] = stats[head]
        weights = frozen["statistics"]["weights"] if self.weights else None
        z, updated = heads.embed(side.head, variables, inputs, rng, mix, weights, unit=unit)
        return z, {head: updated[STATS]} if STATS in updated else {}

    def _image_input(self, trainable: PyTree, frozen: PyTree, features: ImageFeatures) -> Array:
        """Runs the part of the tower above the frontier; returns the input of the head."""
        tuned, pooled = self.image.tuned, features.pooled
        parts = trainable.get("image_tower", {}), frozen.get("image_tower", {})
        if features.image is not None:
            pooled = _read(tuned.apply(*parts, {"image": features.image}))
        elif features.hidden is not None:
            mask = jnp.ones(features.hidden.shape[:2], bool)
            pooled = _read(tuned.resume(*parts, features.hidden, mask))
        if pooled is None:
            raise ValueError("image features have one of their fields")
        return pooled

    def _text_input(
        self, trainable: PyTree, frozen: PyTree, features: TextFeatures
    ) -> heads.TextInput:
        tuned, tokens, mask = self.text.tuned, features.tokens, features.mask
        parts = trainable.get("text_tower", {}), frozen.get("text_tower", {})
        if features.hidden is not None and mask is not None:
            tokens, mask = _read_text(tuned.resume(*parts, features.hidden, mask))
        elif tokens is None and features.ids is not None and mask is not None:
            out = tuned.apply(*parts, {"ids": features.ids, "mask": mask})
            tokens, mask = _read_text(out)
        return heads.TextInput(tokens=tokens, mask=mask, ids=features.ids, packed=features.packed)

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


def _keys(seed: int) -> Array:
    """Keys of the image and of the text side, folded apart from the step's, of the same seed."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), 2**32 - 1))


def _read(out: Encoded) -> Array:
    """The output for an image: one vector, or all tokens where nothing is pooled."""
    return out.tokens if out.pooled is None else out.pooled


def _read_text(out: Encoded) -> tuple[Array, Array]:
    """The tokens of a caption and their mask; one token where the tower itself has pooled."""
    if out.pooled is None:
        return out.tokens, out.mask
    return out.pooled[:, None], jnp.ones((len(out.pooled), 1), bool)
