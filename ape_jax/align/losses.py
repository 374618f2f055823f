"""Contrastive losses over the global batch, on any mesh, and their definitions beside them.

`softmax` and `sigmoid` see every pair of the global batch as a negative for every other, wherever
it lies. `softmax_reference` and `sigmoid_reference` say the same in the plainest terms; the tests
hold the former to the latter, in value and in every gradient.

Pairs that share an id (several captions of one image, say) are not negatives of each other: their
off-diagonal entries take no part in any sum, as if they were not in the batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer

from ape_jax.errors import UserError

IMPLS = ("auto", "dense")

Scalar = Float[Array | np.ndarray, ""] | np.floating | float | int
Embeddings = Float[Array | np.ndarray, "B e"]
Ids = Integer[Array | np.ndarray, " B"]


def softmax(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    *,
    ids: Ids | None = None,
    mesh: Mesh | None = None,
    impl: str = "auto",
) -> Float[Array, ""]:
    """The symmetric softmax contrastive loss (InfoNCE) of CLIP, over the global batch.

    The mean of two cross entropies: each image among all texts, and each text among all images.

    With l the logits and N(i) the negatives of pair i, the cross entropy -log p(i) is written
    softplus(logsumexp over N(i) of (l_ij - l_ii)). The same number, but a loss that is nearly zero
    keeps its digits, which lse(l_i) - l_ii loses to cancellation at scale 100.

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
      ids: which image each pair shows, integer [B]; without it all are different.
      mesh: the mesh that the batch is sharded over, by all of its axes. The matrix of logits is
        then sharded by rows in the same way, and never whole on a device.
      impl: "auto" or "dense" (one [B, B] matrix, sharded by rows).

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: an unknown `impl`, shapes that do not fit, or a batch that does not divide over
        the mesh.

    References:
      Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
      <https://arxiv.org/abs/2103.00020>`_, 2021 (figure 3).
    """
    _check(zimg, ztxt, ids, mesh, impl)
    cosines, negative = _cosines(zimg, ztxt, ids, mesh)
    positive = _diagonal(zimg, ztxt, mesh)
    return _cross_entropies(cosines, positive, jnp.asarray(scale, jnp.float32), negative)


def sigmoid(
    zimg: Embeddings,
    ztxt: Embeddings,
    scale: Scalar,
    bias: Scalar,
    *,
    ids: Ids | None = None,
    mesh: Mesh | None = None,
    impl: str = "auto",
) -> Float[Array, ""]:
    """The sigmoid contrastive loss of SigLIP, over the global batch.

    Every image with every text is one binary question, "are they a pair?"; the losses of all B^2
    questions are summed and divided by B. Questions between pairs that share an id are not asked.

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
      ids: which image each pair shows, integer [B]; without it all are different.
      mesh: as for `softmax`.
      impl: as for `softmax`.

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: an unknown `impl`, shapes that do not fit, or a batch that does not divide over
        the mesh.

    References:
      Zhai et al., `Sigmoid Loss for Language Image Pre-Training
      <https://arxiv.org/abs/2303.15343>`_, 2023 (section 3.2).
    """
    _check(zimg, ztxt, ids, mesh, impl)
    cosines, negative = _cosines(zimg, ztxt, ids, mesh)

    # Without the checkpoint a second [B, B] matrix, the sigmoid, is kept for the backward pass.
    @jax.checkpoint
    def unlike(cosines, scale, bias):
        return jnp.where(negative, jax.nn.softplus(cosines * scale + bias), 0).sum()

    alike = jax.nn.softplus(-(_diagonal(zimg, ztxt, mesh) * scale + bias)).sum()
    return (unlike(cosines, scale, bias) + alike) / len(zimg)


def softmax_reference(
    zimg: Embeddings, ztxt: Embeddings, scale: Scalar, *, ids: Ids | None = None
) -> Float[Array, ""]:
    """What `softmax` means: one device, two cross entropies, nothing clever. Args as there."""
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest")
    if ids is not None:
        excluded = (ids[:, None] == ids[None, :]) & ~jnp.eye(len(ids), dtype=bool)
        logits = jnp.where(excluded, -jnp.inf, logits)
    image_to_text = -jnp.diag(jax.nn.log_softmax(logits, axis=1)).mean()
    text_to_image = -jnp.diag(jax.nn.log_softmax(logits, axis=0)).mean()
    return (image_to_text + text_to_image) / 2


def sigmoid_reference(
    zimg: Embeddings, ztxt: Embeddings, scale: Scalar, bias: Scalar, *, ids: Ids | None = None
) -> Float[Array, ""]:
    """What `sigmoid` means: one device, one sum over pairs, nothing clever. Args as there."""
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest") + bias
    pair = jnp.eye(len(zimg), dtype=bool)
    terms = -jax.nn.log_sigmoid(jnp.where(pair, logits, -logits))
    if ids is not None:
        terms = jnp.where((ids[:, None] == ids[None, :]) & ~pair, 0, terms)
    return terms.sum() / len(zimg)


@jax.custom_vjp
def _cross_entropies(
    cosines: Float[Array, "B B"],
    positive: Float[Array, " B"],
    scale: Float[Array, ""],
    negative: Bool[Array, "B B"],
) -> Float[Array, ""]:
    """Mean cross entropy both ways, of the pairs' own cosines against those of their negatives.

    The derivative is written by hand because automatic differentiation keeps the exponentials of
    both directions, two more [B, B] matrices; here they are computed again in one fused pass.
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


_cross_entropies.defvjp(_cross_entropies_forward, _cross_entropies_backward)


def _cosines(
    zimg: Embeddings, ztxt: Embeddings, ids: Ids | None, mesh: Mesh | None
) -> tuple[Float[Array, "B B"], Bool[Array, "B B"]]:
    """The cosines of all images with all texts, and which of them are negatives."""
    if ids is None:
        ids = jnp.arange(len(zimg))
    # Without the constraints GSPMD is free to replicate the matrix; with them on the embeddings
    # too, their gradients come back sharded by rows as well.
    zimg, ztxt = _by_rows(zimg, mesh), _by_rows(ztxt, mesh)
    # HIGHEST: an f32 product on a TPU otherwise rounds its inputs to bf16. bf16 inputs have nothing
    # to lose, but are accumulated in f32.
    exact = zimg.dtype != jnp.bfloat16 or ztxt.dtype != jnp.bfloat16
    cosines = jnp.matmul(
        zimg,
        ztxt.T,
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
    return _by_rows(cosines, mesh), _by_rows(ids[:, None] != ids[None, :], mesh)


def _diagonal(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None) -> Float[Array, " B"]:
    """The cosines of the pairs; from the embeddings, as a slice of the matrix would move data."""
    zimg, ztxt = _by_rows(zimg, mesh), _by_rows(ztxt, mesh)
    return (zimg.astype(jnp.float32) * ztxt.astype(jnp.float32)).sum(axis=1)


def _lse(x: Float[Array, "B B"], where: Bool[Array, "B B"], axis: int) -> Float[Array, " B"]:
    """log(sum(exp(x))) over `where` along an axis; -inf where that is empty."""
    top = jnp.max(x, axis=axis, where=where, initial=-jnp.inf)
    safe = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.where(where, jnp.exp(x - jnp.expand_dims(safe, axis)), 0).sum(axis=axis)
    return jnp.log(total) + safe


def _by_rows(x: Array, mesh: Mesh | None) -> Array:
    """Shards the leading dimension over all axes of the mesh."""
    if mesh is None:
        return jnp.asarray(x)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.lax.with_sharding_constraint(jnp.asarray(x), sharding)


def _check(
    zimg: Embeddings, ztxt: Embeddings, ids: Ids | None, mesh: Mesh | None, impl: str
) -> None:
    if impl not in IMPLS:
        known = " or ".join(f'"{name}"' for name in IMPLS)
        raise UserError(f'impl="{impl}" is not an implementation of the loss; write {known}.')
    if zimg.ndim != 2 or zimg.shape != ztxt.shape:
        raise UserError(
            f"zimg has shape {zimg.shape} and ztxt {ztxt.shape}; both must be [B, e] alike."
        )
    if ids is not None and ids.shape != zimg.shape[:1]:
        raise UserError(f"ids has shape {ids.shape}; it needs one id a pair, [{len(zimg)}].")
    if mesh is not None and len(zimg) % mesh.size:
        raise UserError(
            f"the global batch has {len(zimg)} pairs, which do not divide over the mesh's "
            f"{mesh.size} devices; make it a multiple of {mesh.size}."
        )
