"""CLIP's softmax loss, and its definition beside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ape_jax.align.losses import ring_losses
from ape_jax.align.losses.contrastive import (
    Embeddings,
    Scalar,
    check,
    chosen,
    cosines_of,
    diagonal,
    ring_of,
)
from ape_jax.align.losses.cross_entropy import cross_entropies, mean_lead
from ape_jax.align.losses.negatives import (
    Ids,
    check_ids,
    not_negatives_reference,
    which_negatives,
)
from ape_jax.config.components import LossSpec
from ape_jax.config.fields import number


def softmax(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    *,
    ids: Ids | None = None,
    text_ids: Ids | None = None,
    groups: int = 1,
    smoothing: float = 0.0,
    mesh: Mesh | None = None,
    impl: str = "auto",
) -> Float[Array, ""]:
    """The symmetric softmax contrastive loss (InfoNCE) of CLIP, over the global batch.

    The mean of two cross entropies: each image among all texts, and each text among all images.

    With l the logits and N(i) the negatives of pair i, the cross entropy -log p(i) is written
    softplus(logsumexp over N(i) of (l_ij - l_ii)). The same number, but a loss that is nearly zero
    keeps its digits, which lse(l_i) - l_ii loses to cancellation at scale 100.

    With label smoothing e the target of row i is (1 - e) on its own column plus e / K(i) on each of
    the K(i) = 1 + |N(i)| columns that row i sees, its own and its negatives', as
    `torch.nn.functional.cross_entropy(label_smoothing=e)` has it. Columns that are left out by
    `ids` or `groups` get nothing of that mass. Likewise for columns.

    Differentiable in reverse mode only.

    Example:
      >>> z = jnp.eye(4)
      >>> float(softmax(z, z, 10.0)) < 1e-3
      True
      >>> float(softmax(z, z, 10.0, ids=jnp.zeros(4, int)))  # one image: no negatives
      0.0

    Args:
      zimg: image embeddings, f32 (or bf16) [B, e], unit length. B is the global batch; under a mesh
        the array may be sharded over it by rows.
      ztxt: text embeddings of the same pairs, [B, e], unit length.
      scale: what cosines are multiplied by (the inverse of the temperature), a scalar.
      ids: which image each pair shows, integer [B]; without it all are different. With [B, c],
        pairs that agree in any column are not negatives of each other.
      text_ids: the same for the texts, where a text does not have its image's ids (several captions
        an image): image i and text j != i are not negatives where `ids[i]` and `text_ids[j]` agree
        in any column.
      groups: how many runs of B / groups consecutive pairs there are of which none sees another's;
        1 is the global loss.
      smoothing: e, at least 0 and below 1.
      mesh: the mesh that the batch is sharded over, by all of its axes.
      impl: "dense" (one [B, B] matrix, sharded by rows like the batch), "ring" (tiles of it, one
        after another; on several devices texts travel and are not gathered), or "auto": "ring" from
        64 MiB of that matrix a device.

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: an unknown `impl`, shapes that do not fit, or a batch that does not divide over
        the mesh or into the groups.

    References:
      Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
      <https://arxiv.org/abs/2103.00020>`_, 2021 (figure 3).
    """
    check(zimg, ztxt, mesh, impl)
    check_ids(len(zimg), ids, text_ids, groups)
    if chosen(impl, len(zimg), mesh) == "ring":
        ring, both = ring_of(len(zimg), ids, text_ids, groups, mesh)
        return ring_losses.softmax(ring, smoothing, zimg, ztxt, jnp.float32(scale), both)
    negative = which_negatives(len(zimg), ids, text_ids, groups, mesh)
    cosines, positive = cosines_of(zimg, ztxt, mesh), diagonal(zimg, ztxt, mesh)
    scale = jnp.asarray(scale, jnp.float32)
    loss = cross_entropies(cosines, positive, scale, negative)
    if not smoothing:
        return loss
    return loss - smoothing * scale * mean_lead(cosines, positive, negative)


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
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest")
    seen = ~not_negatives_reference(len(zimg), ids, text_ids, groups)
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
    keys={"smoothing": number(0.0, 0.0, 0.99)},
)
