"""Contrastive losses over the global batch, on any mesh, and their definitions beside them.

`softmax` and `sigmoid` see every pair of the global batch as a negative for every other, wherever
it lies. They have two forms: `dense` makes one [B, B] matrix, `ring` (`ring_losses.py`) never has
more than a tile of it. `softmax_reference` and `sigmoid_reference` say the same in the plainest
terms; the tests hold the former to the latter, in value and in every gradient.

Pairs that share an id (several captions of one image, say) are not negatives of each other: their
off-diagonal entries take no part in any sum, as if they were not in the batch. `negatives` says
which are left.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ape_jax.align.losses import ring_losses
from ape_jax.align.losses.cross_entropy import cross_entropies, mean_lead
from ape_jax.align.losses.negatives import (
    Ids,
    by_rows,
    check_ids,
    not_negatives_reference,
    which_negatives,
)
from ape_jax.align.losses.ring import Ring
from ape_jax.errors import UserError

IMPLS = ("auto", "dense", "ring")
# Of one device's part of the [B, B] matrix in f32; a dense loss holds about four at its peak.
_DENSE_BYTES = 64 << 20
NORMALIZATIONS = ("batch", "square")

Scalar = Float[Array | np.ndarray, ""] | np.floating | float | int
Embeddings = Float[Array | np.ndarray, "B e"]


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
    _check(zimg, ztxt, mesh, impl)
    check_ids(len(zimg), ids, text_ids, groups)
    if chosen(impl, len(zimg), mesh) == "ring":
        ring, both = _ring(len(zimg), ids, text_ids, groups, mesh)
        return ring_losses.softmax(ring, smoothing, zimg, ztxt, jnp.float32(scale), both)
    negative = which_negatives(len(zimg), ids, text_ids, groups, mesh)
    cosines, positive = _cosines(zimg, ztxt, mesh), _diagonal(zimg, ztxt, mesh)
    scale = jnp.asarray(scale, jnp.float32)
    loss = cross_entropies(cosines, positive, scale, negative)
    if not smoothing:
        return loss
    return loss - smoothing * scale * mean_lead(cosines, positive, negative)


def sigmoid(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    bias: Scalar,
    *,
    ids: Ids | None = None,
    text_ids: Ids | None = None,
    groups: int = 1,
    normalize: str = "batch",
    mesh: Mesh | None = None,
    impl: str = "auto",
) -> Float[Array, ""]:
    """The sigmoid contrastive loss of SigLIP, over the global batch.

    Every image with every text is one binary question, "are they a pair?"; the losses of all B^2
    questions are summed and divided by B (SigLIP) or by B^2 (SAIL), also where some are not asked:
    those between pairs that share an id.

    Example:
      >>> z = jnp.eye(4)
      >>> round(float(sigmoid(z, z, 20.0, -10.0)), 5)
      0.00018

    Args:
      zimg: image embeddings, f32 (or bf16) [B, e], unit length. B is the global batch; under a mesh
        the array may be sharded over it by rows.
      ztxt: text embeddings of the same pairs, [B, e], unit length.
      scale: what cosines are multiplied by, a scalar.
      bias: what is added to the scaled cosines, a scalar; SigLIP starts from -10.
      ids: as for `softmax`.
      text_ids: as for `softmax`.
      groups: as for `softmax`; "square" then divides by the B^2 / groups questions within them.
      normalize: "batch" divides by B, "square" by B^2.
      mesh: as for `softmax`.
      impl: as for `softmax`.

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: an unknown `impl` or `normalize`, shapes that do not fit, or a batch that does not
        divide over the mesh or into the groups.

    References:
      Zhai et al., `Sigmoid Loss for Language Image Pre-Training
      <https://arxiv.org/abs/2303.15343>`_, 2023 (section 3.2).
    """
    _check(zimg, ztxt, mesh, impl)
    check_ids(len(zimg), ids, text_ids, groups)
    divisor = _divisor(len(zimg), normalize, groups)
    if chosen(impl, len(zimg), mesh) == "ring":
        ring, both = _ring(len(zimg), ids, text_ids, groups, mesh)
        scalars = jnp.float32(scale), jnp.float32(bias)
        return ring_losses.sigmoid(ring, divisor, zimg, ztxt, *scalars, both)
    negative = which_negatives(len(zimg), ids, text_ids, groups, mesh)
    cosines = _cosines(zimg, ztxt, mesh)

    # Without the checkpoint a second [B, B] matrix, the sigmoid, is kept for the backward pass.
    @jax.checkpoint
    def unlike(cosines: Array, scale: Array, bias: Array) -> Array:
        return jnp.where(negative, jax.nn.softplus(cosines * scale + bias), 0).sum()

    alike = jax.nn.softplus(-(_diagonal(zimg, ztxt, mesh) * scale + bias)).sum()
    return (unlike(cosines, scale, bias) + alike) / divisor


def chosen(impl: str, batch: int, mesh: Mesh | None) -> str:
    """The implementation that `impl` stands for, "dense" or "ring", at a global batch."""
    if impl != "auto":
        return impl
    devices = 1 if mesh is None else mesh.size
    return "ring" if 4 * batch * batch // devices > _DENSE_BYTES else "dense"


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
    """What `softmax` means: one device, two cross entropies, nothing clever. Args as there."""
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest")
    seen = ~not_negatives_reference(len(zimg), ids, text_ids, groups)
    logits = jnp.where(seen, logits, -jnp.inf)

    def cross_entropy(axis: int) -> Float[Array, ""]:
        target = smoothing * seen / seen.sum(axis=axis, keepdims=True)
        target = target + (1 - smoothing) * jnp.eye(len(zimg))
        log_p = jnp.where(seen, jax.nn.log_softmax(logits, axis=axis), 0)
        return -(target * log_p).sum(axis=axis).mean()

    return (cross_entropy(1) + cross_entropy(0)) / 2


def sigmoid_reference(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    bias: Scalar,
    *,
    ids: Ids | None = None,
    text_ids: Ids | None = None,
    groups: int = 1,
    normalize: str = "batch",
) -> Float[Array, ""]:
    """What `sigmoid` means: one device, one sum over pairs, nothing clever. Args as there."""
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest") + bias
    terms = -jax.nn.log_sigmoid(jnp.where(jnp.eye(len(zimg), dtype=bool), logits, -logits))
    terms = jnp.where(not_negatives_reference(len(zimg), ids, text_ids, groups), 0, terms)
    return terms.sum() / _divisor(len(zimg), normalize, groups)


def _cosines(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None) -> Float[Array, "B B"]:
    """The cosines of all images with all texts."""
    # Without the constraints GSPMD is free to replicate the matrix; with them on the embeddings
    # too, their gradients come back sharded by rows as well.
    zimg, ztxt = by_rows(zimg, mesh), by_rows(ztxt, mesh)
    # HIGHEST: an f32 product on a TPU otherwise rounds its inputs to bf16. bf16 inputs have nothing
    # to lose, but are accumulated in f32.
    exact = zimg.dtype != jnp.bfloat16 or ztxt.dtype != jnp.bfloat16
    cosines = jnp.matmul(
        zimg,
        ztxt.T,
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
    return by_rows(cosines, mesh)


def _diagonal(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None) -> Float[Array, " B"]:
    """The cosines of the pairs; from the embeddings, as a slice of the matrix would move data."""
    zimg, ztxt = by_rows(zimg, mesh), by_rows(ztxt, mesh)
    return (zimg.astype(jnp.float32) * ztxt.astype(jnp.float32)).sum(axis=1)


def _ring(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int, mesh: Mesh | None
) -> tuple[Ring, tuple[Ids, Ids] | None]:
    """The ring, and the ids of both sides as its losses take them."""
    group = batch // groups if groups > 1 else 0
    ring = Ring(mesh=mesh, own_texts=text_ids is not None, group=group)
    if ids is None:
        return ring, None
    images = jnp.asarray(ids).reshape(batch, -1)
    return ring, (images, images if text_ids is None else jnp.asarray(text_ids).reshape(batch, -1))


def _divisor(batch: int, normalize: str, groups: int) -> int:
    """What the sum over the questions of a batch is divided by."""
    if normalize not in NORMALIZATIONS:
        known = " or ".join(f'"{name}"' for name in NORMALIZATIONS)
        raise UserError(f'normalize="{normalize}" is not known; write {known}.')
    return batch if normalize == "batch" else batch * (batch // groups)


def _check(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None, impl: str) -> None:
    if impl not in IMPLS:
        known = " or ".join(f'"{name}"' for name in IMPLS)
        raise UserError(f'impl="{impl}" is not an implementation of the loss; write {known}.')
    if zimg.ndim != 2 or zimg.shape != ztxt.shape:
        raise UserError(
            f"zimg has shape {zimg.shape} and ztxt {ztxt.shape}; both must be [B, e] alike."
        )
    if mesh is not None and len(zimg) % mesh.size:
        raise UserError(
            f"the global batch has {len(zimg)} pairs, which do not divide over the mesh's "
            f"{mesh.size} devices; make it a multiple of {mesh.size}."
        )
