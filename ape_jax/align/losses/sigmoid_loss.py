"""Sigmoid contrastive loss of SigLIP, with its reference implementation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

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
from ape_jax.align.losses.ring import ring_of
from ape_jax.config.components import LossSpec
from ape_jax.config.fields import choice, number
from ape_jax.errors import UserError

NORMALIZATIONS = ("batch", "square")


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
    """Computes the sigmoid contrastive loss of SigLIP over the global batch.

    Each image with each text is one binary classification: are they a pair? The B^2 losses are
    summed and divided by B (SigLIP) or by B^2 (SAIL). Pairs that share an id are excluded from the
    sum but not from the divisor.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.eye(4)
      >>> round(float(sigmoid(z, z, 20.0, -10.0)), 5)
      0.00018

    Args:
      zimg: image embeddings of unit length, f32 or bf16 [B, e]. B is the global batch; on a mesh
        the array may be sharded by rows.
      ztxt: text embeddings of the same pairs, unit length, f32 or bf16 [B, e].
      scale: factor of the cosines (the inverse of the temperature), a scalar.
      bias: added to the scaled cosines, a scalar; SigLIP starts from -10.
      ids: the image of each pair, integer [B] or [B, c], as for `softmax`.
      text_ids: ids of the texts, if they differ from those of their images, as for `softmax`.
      groups: number of equal, contiguous groups of pairs; pairs are negatives only within their
        group, and "square" divides by B^2 / groups.
      normalize: "batch" divides the sum by B, "square" by B^2.
      mesh: mesh over all of whose axes the batch is sharded; None for one device.
      impl: "dense", "ring" or "auto", as for `softmax`.

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: if `impl` or `normalize` is unknown, shapes do not match, or the batch is not
        divisible by the mesh or by the groups.

    References:
      Zhai et al., `Sigmoid Loss for Language Image Pre-Training
      <https://arxiv.org/abs/2303.15343>`_, 2023 (section 3.2).
    """
    zimg, ztxt = check(zimg, ztxt, mesh, impl)
    scale, bias = check_scalar(scale, "scale"), check_scalar(bias, "bias")
    ids, text_ids = check_ids(len(zimg), ids, text_ids, groups)
    divisor = _divisor(len(zimg), normalize, groups)
    if chosen(impl, len(zimg), mesh) == "ring":
        ring, both = ring_of(len(zimg), ids, text_ids, groups, mesh)
        scalars = jnp.float32(scale), jnp.float32(bias)
        return ring_losses.sigmoid(ring, divisor, zimg, ztxt, *scalars, both)
    negative = negative_mask(len(zimg), ids, text_ids, groups, mesh)
    cosines = cosines_of(zimg, ztxt, mesh)

    # Without the checkpoint a second [B, B] matrix, the sigmoid, is kept for the backward pass.
    @jax.checkpoint
    def unlike(cosines: Array, scale: Array, bias: Array) -> Array:
        return jnp.where(negative, jax.nn.softplus(cosines * scale + bias), 0).sum()

    alike = jax.nn.softplus(-(diagonal(zimg, ztxt, mesh) * scale + bias)).sum()
    return (unlike(cosines, scale, bias) + alike) / divisor


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
    """Reference implementation: one device, dense. Same arguments as `sigmoid`."""
    zimg, ztxt = check(zimg, ztxt)
    scale, bias = check_scalar(scale, "scale"), check_scalar(bias, "bias")
    ids, text_ids = check_ids(len(zimg), ids, text_ids, groups)
    logits = scale * jnp.matmul(zimg, ztxt.T, precision="highest") + bias
    terms = -jax.nn.log_sigmoid(jnp.where(jnp.eye(len(zimg), dtype=bool), logits, -logits))
    terms = jnp.where(excluded_reference(len(zimg), ids, text_ids, groups), 0, terms)
    return terms.sum() / _divisor(len(zimg), normalize, groups)


def _divisor(batch: int, normalize: str, groups: int) -> int:
    """Divisor of the sum over all image-text combinations of a batch."""
    if not isinstance(normalize, str) or normalize not in NORMALIZATIONS:
        known = " or ".join(f'"{name}"' for name in NORMALIZATIONS)
        raise UserError(f'normalize="{normalize}" is not known; write {known}')
    return batch if normalize == "batch" else batch * (batch // groups)


SIGMOID = LossSpec(
    name="sigmoid",
    title="sigmoid (SigLIP)",
    function=sigmoid,
    keys={
        "bias": number(0.0, -100.0, 100.0).explained(
            "Added to logits at first; SigLIP starts from -10."
        ),
        "normalize": choice(*NORMALIZATIONS).explained(
            "What the sum over all pairs of the batch is divided by."
        ),
    },
    bias=True,
)
