"""A finished run, as the exporters take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree

from ape_jax.align.heads.anchored import Anchored
from ape_jax.align.model import Model, Side
from ape_jax.config import Config
from ape_jax.nn import int8 as weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A model with its parameters, products in f32.

    Attributes:
      config: of the run.
      model: the model.
      trainable: the trained parameters.
      frozen: the others, statistics included.
      step: of the checkpoint.
      solved: the record of the closed form that the heads are or started from, None without one.
      summary: the run's `summary.json`.
      encode_images: paths, PIL images, bytes or arrays to unit length, f32 [n, E].
      encode_texts: strings to unit length, f32 [n, E].
      imported: what a finished model was loaded from (`training.imported`), '' for a run.
      unread: of a finished model, tensors of its file that no output depends on.
    """

    config: Config
    model: Model
    trainable: PyTree
    frozen: PyTree
    step: int
    solved: Mapping[str, Any] | None
    summary: Mapping[str, Any]
    encode_images: Callable[[Sequence[Any]], Float[np.ndarray, "n e"]]
    encode_texts: Callable[[Sequence[str]], Float[np.ndarray, "n e"]]
    imported: str = ""
    unread: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def logits(self) -> Mapping[str, np.ndarray]:
        """`log_scale` f32 [] and, of a sigmoid loss, `bias` f32 [], as they are kept."""
        part = self.trainable if self.model.learn_scale else self.frozen
        return {name: np.asarray(leaf, np.float32) for name, leaf in part["loss"].items()}

    def side(self, name: str) -> tuple[Side, PyTree, PyTree]:
        """One side of the model, and the parameters of its tower and of its head.

        Args:
          name: "image" or "text".

        Returns:
          The side, the parameters of its tower in f32 (`Tuned.merged`), and those of its head.
        """
        side: Side = getattr(self.model, name)
        parts = (tree.get(f"{name}_tower", {}) for tree in (self.trainable, self.frozen))
        tower = weights.restored(side.tuned.merged(*parts))  # Files have no int8.
        return side, tower, self.trainable.get(f"{name}_head", {})

    @property
    def embed(self) -> int:
        """The joint width E."""
        side = self.model.image
        if isinstance(side.head, Anchored):
            return side.head.anchors
        return getattr(side.head, "features", width(side))  # No head keeps the width.

    @property
    def settings(self) -> dict[str, Any]:
        """What a program without our code must know beside the two halves of the model."""
        scale, bias = self.model.logit_scale(self.trainable, self.frozen)
        return {
            "embed": self.embed,
            "image_size": self.model.image.tower.prepare.transform.size,
            "longest_text": self.model.text.tower.prepare.max_length,
            "logit_scale": float(scale),
            "logit_bias": None if bias is None else float(bias),
        }


def width(side: Side) -> int:
    """The width of what a side's head takes."""
    kind = side.tower.kind
    return side.tower.config.pooled_width(side.pooling if kind == "image" else "none")
