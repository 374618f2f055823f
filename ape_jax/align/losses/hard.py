"""Negative captions of one's own: further texts that images, and images only, are compared with."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Integer

from ape_jax.align.losses import contrastive
from ape_jax.align.losses.contrastive import Scalar, by_rows
from ape_jax.errors import UserError


class Hard(NamedTuple):
    """H negative captions of each of B images; each is a negative of all images of the batch.

    Attributes:
      z: their embeddings of unit length, f32 or bf16 [B, H, e].
      ids: which text each is, integer [B, H]; -1 where an image has fewer than H.
      captions: which texts the captions of each image are, integer [B, c]: no negative of that
        image is word for word one of them.
    """

    z: Float[Array | np.ndarray, "B H e"]
    ids: Integer[Array | np.ndarray, "B H"]
    captions: Integer[Array | np.ndarray, "B c"]


def check(hard: Hard, zimg: contrastive.Embeddings) -> Hard:
    """Checks negative captions, and their shapes against the images.

    Raises:
      UserError: where they are none, or their shapes do not match.
    """
    if not isinstance(hard, Hard):
        raise UserError(f"hard: expected a Hard or None, found {type(hard).__name__}")
    kinds = (jnp.floating, jnp.integer, jnp.integer)
    hard = Hard(
        *(contrastive.checked_array(x, f"hard.{name}", kind)
          for x, name, kind in zip(hard, Hard._fields, kinds, strict=True))
    )  # fmt: skip
    count, width = zimg.shape
    shapes = [x.shape for x in hard]
    rows = all(len(shape) > 1 and shape[0] == count for shape in shapes)
    if not rows or len(shapes[0]) != 3 or shapes[0][2] != width or shapes[0][:2] != shapes[1]:
        raise UserError(
            f"hard has z {shapes[0]}, ids {shapes[1]} and captions {shapes[2]}; expected "
            f"[{count}, H, {width}], [{count}, H] and [{count}, c]"
        )
    return Hard(*map(jnp.asarray, hard))


def mask(hard: Hard, groups: int, mesh: Mesh | None) -> Bool[Array, "B BH"]:
    """Makes the mask that is true where a negative caption is one of an image."""
    count, each = hard.ids.shape
    index = jnp.arange(count)
    texts = jnp.asarray(hard.ids).reshape(-1, 1), jnp.repeat(index, each)
    group = count // groups if groups > 1 else 0
    images = jnp.asarray(hard.captions), index
    return by_rows(contrastive.hard_tile_mask(images, texts, group), mesh)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of logits that stand beside the [B, B] matrix, in the rows of the images only.

    Attributes:
      cosines: of all images with all negative captions, f32.
      seen: mask of those that count.
    """

    cosines: Float[Array, "B BH"]
    seen: Bool[Array, "B BH"]


def columns(hard: Hard, zimg: contrastive.Embeddings, groups: int, mesh: Mesh | None) -> Columns:
    """Computes the columns of negative captions."""
    ztxt = jnp.asarray(hard.z).reshape(-1, hard.z.shape[-1])
    return Columns(contrastive.cosines_of(zimg, ztxt, mesh), mask(hard, groups, mesh))


def cross_entropies(
    cosines: Float[Array, "B B"],
    positive: Float[Array, " B"],
    scale: Scalar,
    negative: Bool[Array, "B B"],
    beside: Columns,
    smoothing: float,
) -> Float[Array, ""]:
    """Mean cross entropy over both directions; each image is also among its negative captions.

    Args:
      cosines: cosines of all images (rows) with all texts (columns), f32.
      positive: cosines of the pairs, f32.
      scale: factor of the cosines.
      negative: mask of the negatives.
      beside: the columns of negative captions.
      smoothing: label smoothing.
    """
    rows = jnp.concatenate([cosines, beside.cosines], axis=1)
    seen = jnp.concatenate([negative, beside.seen], axis=1)
    by_image = _one_way(rows, positive, scale, seen, smoothing)
    return (by_image + _one_way(cosines.T, positive, scale, negative.T, smoothing)) / 2


def _one_way(
    cosines: Float[Array, "B n"],
    positive: Float[Array, " B"],
    scale: Scalar,
    seen: Bool[Array, "B n"],
    smoothing: float,
) -> Float[Array, ""]:
    """The mean over rows of softplus(log-sum-exp of the negatives' lead over the pair)."""
    lead = jnp.where(seen, cosines - positive[:, None], 0)
    x = jnp.where(seen, scale * lead, -1e30)
    top = jax.lax.stop_gradient(x.max(axis=1, keepdims=True))
    total = jnp.where(seen, jnp.exp(x - top), 0).sum(axis=1)
    some = total > 0  # An image may have no negatives at all.
    entropy = jax.nn.softplus(jnp.log(jnp.where(some, total, 1)) + top[:, 0])
    loss = jnp.where(some, entropy, 0)
    if smoothing:
        loss -= smoothing * scale * lead.sum(axis=1) / (seen.sum(axis=1) + 1)
    return loss.mean()
