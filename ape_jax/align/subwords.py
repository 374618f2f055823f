"""SuperCLIP's side loss in the training step: bags of subwords of the captions, and their layer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, PyTree

from ape_jax.align.heads import Mix
from ape_jax.align.losses import subwords_loss
from ape_jax.align.model import Batch
from ape_jax.config import Config

SUBWORDS = "subwords"
"""The linear layer in `trainable`, and the bags of all captions in `frozen`."""

_TOKENISED_TOGETHER = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bags:
    """The subwords of captions, numbered by the vocabulary that these captions make.

    Attributes:
      vocabulary: ids of the text tower's tokenizer, ascending, i32 [C].
      idf: weight of each, the log of its inverse frequency, f32 [C].
      classes: different subwords of each text, by their number in the vocabulary, and behind them
        -1, i32 [m, L].
    """

    vocabulary: Int32[np.ndarray, " C"]
    idf: Float32[np.ndarray, " C"]
    classes: Int32[np.ndarray, "m L"]

    @property
    def digest(self) -> str:
        """The sha256 of the vocabulary."""
        return hashlib.sha256(self.vocabulary.tobytes()).hexdigest()


def bags_of(
    texts: Sequence[str],
    counts: Int[np.ndarray, " m"],
    prepare: Callable[[list[str]], Mapping[str, Any]],
) -> Bags:
    """Makes the bags of captions: the weight of subword c is max(log(N / (1 + n_c)), 0).

    N is the number of captions, n_c of those that have the subword. Only ids that are in a caption
    are kept as classes.

    Args:
      texts: distinct texts.
      counts: how often each is a caption; 0 for a text that is none, whose bag is empty.
      prepare: tokenizes texts: `ids` and `mask`, [b, T] each.
    """
    rows, ids = [], []
    for start in range(0, len(texts), _TOKENISED_TOGETHER):
        made = prepare(list(texts[start : start + _TOKENISED_TOGETHER]))
        row, place = np.nonzero(np.asarray(made["mask"]))
        rows.append(row + start)
        ids.append(np.asarray(made["ids"])[row, place])
    # Each subword of each text once, text after text.
    pairs = np.unique(np.stack([np.concatenate(rows), np.concatenate(ids)], axis=1), axis=0)
    pairs = pairs[counts[pairs[:, 0]] > 0]
    vocabulary, number = np.unique(pairs[:, 1], return_inverse=True)
    having = np.bincount(number, weights=counts[pairs[:, 0]])
    idf = np.maximum(np.log(counts.sum() / (1 + having)), 0)
    sizes = np.bincount(pairs[:, 0], minlength=len(texts))
    classes = np.full((len(texts), max(int(sizes.max(initial=0)), 1)), -1, np.int32)
    classes[np.arange(classes.shape[1]) < sizes[:, None]] = number
    return Bags(vocabulary=vocabulary.astype(np.int32), idf=idf.astype(np.float32), classes=classes)


def layer(width: int, classes: int) -> dict[str, Float[Array, "..."]]:
    """The linear layer at zero: at first every subword is as likely, and it moves no head."""
    return {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subwords:
    """The side loss that is added to the contrastive loss, weight * `losses.subwords`.

    A linear layer predicts the bag of subwords of an image's caption, of all that it has in the
    step, from the output of the image's head before that is brought to unit length. The layer is
    trained with the heads and belongs to no finished model.

    Attributes:
      weight: factor of the loss.
      positives: captions of an image in a step.
      hard: negative captions behind these, which are in no bag.

    References:
      As `losses.subwords`.
    """

    weight: float
    positives: int = 1
    hard: int = 0

    def __call__(
        self,
        trainable: PyTree,
        frozen: PyTree,
        batch: Batch,
        z: Float[Array, "b E"],
        mix: Mix | None = None,
        mesh: Mesh | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Computes what is added to the loss, and the side loss without its factor.

        Args:
          trainable: with the layer.
          frozen: with the bags.
          batch: with `text`, the captions of each image.
          z: what the image head gives.
          mix: of mixup, for the bags of mixed pairs; None without.
          mesh: mesh over which the batch is sharded; None for one device.
        """
        bags = subwords_loss.normalized(self.targets(frozen[SUBWORDS], batch["text"]))
        bags = bags if mix is None else mix(bags)
        own = trainable[SUBWORDS]
        logits = z.astype(jnp.float32) @ own["kernel"] + own["bias"]
        term = subwords_loss.subwords(logits, bags, mesh=mesh)
        return self.weight * term, term

    def targets(self, bags: PyTree, text: Int[Array | np.ndarray, "B *c"]) -> Float[Array, "B C"]:
        """The weights of the subwords of each image's captions, 0 for those that they lack."""
        texts = jnp.asarray(text).reshape(-1, self.positives + self.hard)[:, : self.positives]
        classes = bags["classes"][texts].reshape(len(texts), -1)
        rows = jnp.arange(len(texts))[:, None]
        idf = bags["idf"]
        empty = jnp.zeros((len(texts), len(idf)), jnp.float32)
        # Behind the last class lies what a caption does not have.
        places = jnp.where(classes < 0, len(idf), classes)
        return empty.at[rows, places].set(1.0, mode="drop") * idf


def from_config(config: Config) -> Subwords | None:
    """The config's `subwords` group as a part of the loss, None where it is off."""
    if not config.subwords.weight:
        return None
    loss = config.loss
    return Subwords(weight=config.subwords.weight, positives=loss.positives, hard=loss.hard)
