"""Parts of an aligned model as the exporters write them: products in f32, no int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ape_jax.align.heads.anchored import Anchored
from ape_jax.align.heads.base import batch_norm
from ape_jax.align.model import Model, Side
from ape_jax.nn import int8
from ape_jax.runs.aligned import AlignedModel


def logits(aligned: AlignedModel) -> Mapping[str, np.ndarray]:
    """`log_scale` f32 [] and, of a sigmoid loss, `bias` f32 [], as they are kept."""
    part = aligned.trainable if aligned.model.learn_scale else aligned.frozen
    return {name: np.asarray(leaf, np.float32) for name, leaf in part["loss"].items()}


def side(aligned: AlignedModel, name: str) -> tuple[Side, PyTree, PyTree]:
    """One side of the model, and the parameters of its tower and of its head.

    Args:
      aligned: the model.
      name: "image" or "text".

    Returns:
      The side, the parameters of its tower in f32 (`Tuned.merged`), and those of its head
      with running statistics beside them.
    """
    found: Side = getattr(aligned.model, name)
    trees = (tree.get(f"{name}_tower", {}) for tree in (aligned.trainable, aligned.frozen))
    tower = int8.restored(found.tuned.merged(*trees))  # Files have no int8.
    return found, tower, batch_norm.joined(aligned.trainable).get(f"{name}_head", {})


def embed(model: Model) -> int:
    """The joint width E."""
    head = model.image.head
    if isinstance(head, Anchored):
        return head.anchors
    return getattr(head, "features", width(model.image))  # No head keeps the width.


def dim(model: Model) -> int:
    """The width of the embeddings that an export gives: E, or the prefix that the model gives."""
    return model.dim or embed(model)


def weights(aligned: AlignedModel) -> np.ndarray:
    """The fixed weights behind both heads, f32 [E], or the number one where there are none."""
    found = aligned.frozen["statistics"]["weights"] if aligned.model.weights else 1.0
    return np.asarray(found, np.float32)


def settings(aligned: AlignedModel) -> dict[str, Any]:
    """Settings that a program without our code needs beside the two halves of the model."""
    model = aligned.model
    scale, bias = model.logit_scale(aligned.trainable, aligned.frozen)
    return {
        "embed": dim(model),
        **joint_width(model),
        **languages(model),
        "image_size": model.image.tower.prepare.transform.size,
        "longest_text": model.text.tower.prepare.max_length,
        "logit_scale": float(scale),
        "logit_bias": None if bias is None else float(bias),
    }


def joint_width(model: Model) -> dict[str, int]:
    """What a config.json says beside `embed` where embeddings are cut: the width that they had."""
    return {"joint_width": embed(model)} if model.dim else {}


def languages(model: Model) -> dict[str, dict[str, dict[str, int]]]:
    """What tokenizer_config.json and config.json say of the rows of language means, if any."""
    known = model.languages
    if known is None:
        return {}
    return {"languages": {"names": dict(known.names), "scripts": dict(known.scripts)}}


def width(side: Side) -> int:
    """The width of what a side's head takes."""
    kind = side.tower.kind
    return side.tower.config.pooled_width(side.pooling if kind == "image" else "none")
