"""Softmax contrastive loss of CLIP, with its reference implementation."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from ape_jax.align.losses import hard as hard_lib
from ape_jax.align.losses import ring_losses
from ape_jax.align.losses.contrastive import (
    Embeddings,
    Ids,
    Scalar,
    check,
    check_ids,
    check_scalar,
    chosen,
    cosines_of,
    diagonal,
    excluded_reference,
    negative_mask,
)
from ape_jax.align.losses.hard import Hard
from ape_jax.align.losses.ring import ring_of
from ape_jax.arguments import number
from ape_jax.config import fields
from ape_jax.config.components import LossSpec


def softmax(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    *,
    ids: Ids | None = None,
    text_ids: Ids | None = None,
    groups: int = 1,
    smoothing: float = 0.0,
    hard: Hard | None = None,
    mesh: Mesh | None = None,
    impl: str = "auto",
) -> Float[Array, ""]:
    """Computes the symmetric softmax contrastive loss (InfoNCE) of CLIP over the global batch.

    The loss is the mean of two cross entropies: of each image among all texts, and of each text
    among all images.

    With logits l and the negatives N(i) of pair i, the cross entropy -log p(i) is computed as
    softplus(logsumexp over N(i) of (l_ij - l_ii)). The value is the same, but near zero it keeps
    the digits that lse(l_i) - l_ii loses to cancellation at scale 100.

    With label smoothing e, row i has target (1 - e) on its own column plus e / K(i) on each of the
    K(i) = 1 + |N(i)| columns of itself and its negatives, as in
    `torch.nn.functional.cross_entropy(label_smoothing=e)`. Columns excluded by `ids` or `groups`
    get no mass. The same holds for columns.

    With negative captions (`hard`), each image is among these of the whole batch as well, B (1 + H)
    texts; texts stay among the B images.

    Differentiable in reverse mode only.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.eye(4)
      >>> float(softmax(z, z, 10.0)) < 1e-3
      True
      >>> float(softmax(z, z, 10.0, ids=jnp.zeros(4, int)))  # one image: no negatives
      0.0

    Args:
      zimg: image embeddings of unit length, f32 or bf16 [B, e]. B is the global batch; on a mesh
        the array may be sharded by rows.
      ztxt: text embeddings of the same pairs, unit length, f32 or bf16 [B, e].
      scale: factor of the cosines (the inverse of the temperature), a scalar.
      ids: the image of each pair, integer [B]; None if all are different. With integer [B, c],
        pairs that agree in any column are not negatives of each other.
      text_ids: ids of the texts, shaped as `ids`, if they differ from those of their images: image
        i and text j != i are not negatives if `ids[i]` and `text_ids[j]` agree in any column. None
        for `ids`.
      groups: number of equal, contiguous groups of pairs; pairs are negatives only within their
        group. 1 is the global loss.
      smoothing: label smoothing e, at least 0 and below 1.
      hard: negative captions of the images, H each; None for none.
      mesh: mesh over all of whose axes the batch is sharded; None for one device.
      impl: "dense" (one [B, B] matrix, sharded by rows like the batch), "ring" (one tile at a time;
        on several devices texts are passed on and not gathered), or "auto": "ring" if the matrix
        takes more than 64 MiB per device.

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: if `impl` is unknown, shapes do not match, or the batch is not divisible by the
        mesh or by the groups.

    References:
      Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
      <https://arxiv.org/abs/2103.00020>`_, 2021 (figure 3). Negative captions: Yuksekgonul et al.,
      `When and why vision-language models behave like bags-of-words
      <https://arxiv.org/abs/2210.01936>`_, 2023 (NegCLIP, section 4).
    """
    zimg, ztxt = check(zimg, ztxt, mesh, impl)
    scale, smoothing = check_scalar(scale, "scale"), number(smoothing, "smoothing", 0, 1)
    ids, text_ids = check_ids(len(zimg), ids, text_ids, groups)
    more = None if hard is None else hard_lib.check(hard, zimg)
    if chosen(impl, len(zimg), mesh) == "ring":
        ring, both = ring_of(len(zimg), ids, text_ids, groups, mesh)
        own = (None, None) if more is None else (more.z, (more.ids, more.captions))
        return ring_losses.softmax(ring, smoothing, zimg, ztxt, jnp.float32(scale), both, *own)
    negative = negative_mask(len(zimg), ids, text_ids, groups, mesh)
    cosines, positive = cosines_of(zimg, ztxt, mesh), diagonal(zimg, ztxt, mesh)
    scale = jnp.asarray(scale, jnp.float32)
    if more is not None:
        beside = hard_lib.columns(more, zimg, groups, mesh)
        return hard_lib.cross_entropies(cosines, positive, scale, negative, beside, smoothing)
    loss = cross_entropies(cosines, positive, scale, negative)
    if not smoothing:
        return loss
    return loss - smoothing * scale * mean_margin(cosines, positive, negative)


def softmax_reference(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    *,
    ids: Ids | None = None,
    text_ids: Ids | None = None,
    groups: int = 1,
    smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Reference implementation: one device, dense. Same arguments as `softmax`."""
    zimg, ztxt = check(zimg, ztxt)
    scale, smoothing = check_scalar(scale, "scale"), number(smoothing, "smoothing", 0, 1)
    ids, text_ids = check_ids(len(zimg), ids, text_ids, groups)
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest")
    seen = ~excluded_reference(len(zimg), ids, text_ids, groups)
    logits = jnp.where(seen, logits, -jnp.inf)

    def cross_entropy(axis: int) -> Float[Array, ""]:
        target = smoothing * seen / seen.sum(axis=axis, keepdims=True)
        target = target + (1 - smoothing) * jnp.eye(len(zimg))
        log_p = jnp.where(seen, jax.nn.log_softmax(logits, axis=axis), 0)
        return -(target * log_p).sum(axis=axis).mean()

    return (cross_entropy(1) + cross_entropy(0)) / 2


SOFTMAX = LossSpec(
    name="softmax",
    title="softmax (CLIP)",
    function=softmax,
    uninformed=math.log,
    hard=True,
    keys={
        "smoothing": fields.number(0.0, 0.0, 0.99).explained(
            "Label smoothing: probability that is spread over all pairs of the batch."
        )
    },
)


@jax.custom_vjp
def cross_entropies(
    cosines: Float[Array, "B B"],
    positive: Float[Array, " B"],
    scale: Float[Array, ""],
    negative: Bool[Array, "B B"],
) -> Float[Array, ""]:
    """Mean cross entropy over both directions, of pairs against their negatives.

    The derivative is written by hand because automatic differentiation keeps the exponentials of
    both directions, two more [B, B] matrices. Here they are recomputed in one fused pass.

    Args:
      cosines: cosines of all images (rows) with all texts (columns), f32.
      positive: cosines of the pairs, f32.
      scale: factor of the cosines.
      negative: mask of the negatives.
    """
    return _cross_entropies_forward(cosines, positive, scale, negative)[0]


def _cross_entropies_forward(cosines, positive, scale, negative):
    by_image = _lse((cosines - positive[:, None]) * scale, negative, axis=1)
    by_text = _lse((cosines - positive[None, :]) * scale, negative, axis=0)
    loss = (jax.nn.softplus(by_image).mean() + jax.nn.softplus(by_text).mean()) / 2
    return loss, (cosines, positive, scale, negative, by_image, by_text)


def _cross_entropies_backward(saved, cotangent):
    cosines, positive, scale, negative, by_image, by_text = saved
    # d softplus(lse) = sigmoid(lse) softmax: zero where lse is -inf, that is without negatives.
    to_image = jax.nn.sigmoid(by_image) * cotangent / (2 * len(positive))
    to_text = jax.nn.sigmoid(by_text) * cotangent / (2 * len(positive))
    rows = (cosines - positive[:, None]) * scale - by_image[:, None]
    columns = (cosines - positive[None, :]) * scale - by_text[None, :]
    weights = to_image[:, None] * jnp.exp(rows) + to_text[None, :] * jnp.exp(columns)
    d_logits = jnp.where(negative, weights, 0)
    d_positive = -(to_image + to_text)  # every softmax sums to one
    # Row by row: the two terms nearly cancel, and in a sum over the whole batch lose more digits.
    d_scale = ((d_logits * cosines).sum(axis=1) + d_positive * positive).sum()
    return d_logits * scale, d_positive * scale, d_scale, None


cross_entropies.defvjp(_cross_entropies_forward, _cross_entropies_backward)


def mean_margin(
    cosines: Float[Array, "B B"], positive: Float[Array, " B"], negative: Bool[Array, "B B"]
) -> Float[Array, ""]:
    """Mean, over pairs and directions, of the mean cosine of pair and negatives minus its own.

    Label smoothing e adds -e * scale * margin to the cross entropies.
    """

    def one_way(axis: int) -> Float[Array, ""]:
        count = negative.sum(axis=axis).astype(jnp.float32)
        total = jnp.where(negative, cosines, 0).sum(axis=axis) - count * positive
        return (total / (count + 1)).mean()

    return (one_way(1) + one_way(0)) / 2


def _lse(x: Float[Array, "B B"], where: Bool[Array, "B B"], axis: int) -> Float[Array, " B"]:
    """Computes log(sum(exp(x))) over `where` along an axis; -inf if that is empty."""
    top = jnp.max(x, axis=axis, where=where, initial=-jnp.inf)
    safe = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.where(where, jnp.exp(x - jnp.expand_dims(safe, axis)), 0).sum(axis=axis)
    return jnp.log(total) + safe
