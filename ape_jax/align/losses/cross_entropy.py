"""Softmax loss of a matrix of cosines, with a memory-efficient derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


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
