"""Poolings that need no parameters: tokens [B, T, d] and their mask to one vector each.

They are sentence-transformers' (its `Pooling` module): what the mask leaves out is not read, on
whichever side it lies.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ape_jax.config import poolings

OWN = ("map", "head")
"""Poolings that a trained part of the tower computes, its parameters being "head" in the tree:
attention with a probe (SigLIP), and the modules behind a sentence-transformers pooling."""


def joined(
    tokens: Float[Array | np.ndarray, "b t d"],
    mask: Bool[Array | np.ndarray, "b t"],
    pooling: str,
    *,
    skip: int = 0,
    counted: Bool[Array | np.ndarray, "b t"] | None = None,
    cls: tuple[int, ...] = (0,),
    cls_mean: bool = False,
) -> Float[Array, "b e"]:
    """Pools tokens by one mode, or by several whose vectors are joined end to end.

    "cls" is the first real token and "last" the last one; "mean_sqrt_len" is the sum over the root
    of the number of tokens; in "weightedmean" the n-th token from the first real one weighs n.

    Args:
      tokens: f32 [B, T, d].
      mask: bool [B, T], True at real tokens.
      pooling: see `config.poolings`.
      skip: tokens at the front, always there, that only "cls" reads (those of an image that are no
        patches).
      counted: bool [B, T], the tokens that "weightedmean" counts; None is `mask`.
      cls: those of them that it reads.
      cls_mean: as their mean; if not, they are joined.

    Raises:
      ValueError: for a pooling that is none of these.
    """
    parts = poolings.parts(pooling)
    if not parts:
        raise ValueError(f"pooling {pooling!r} must be computed by the module itself")
    tokens, mask = jnp.asarray(tokens), jnp.asarray(mask)
    counted = mask if counted is None else jnp.asarray(counted)
    behind = tokens[:, skip:], mask[:, skip:], counted[:, skip:]
    pooled = [
        _front(tokens, cls, cls_mean) if skip and part == "cls" else _one(*behind, part)
        for part in parts
    ]
    return pooled[0] if len(pooled) == 1 else jnp.concatenate(pooled, axis=-1)


def _front(tokens: Array, places: tuple[int, ...], mean: bool) -> Array:
    """The class tokens, of which there may be several."""
    found = [tokens[:, place] for place in places]
    if len(found) == 1:
        return found[0]
    return jnp.stack(found).mean(0) if mean else jnp.concatenate(found, axis=-1)


def _one(tokens: Array, mask: Array, counted: Array, mode: str) -> Array:
    if mode == "cls":
        return _at(tokens, jnp.argmax(mask, axis=1))
    if mode == "last":
        # argmax finds the first maximum: of the flipped mask that is the last real token.
        return _at(tokens, mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1))
    if mode == "max":
        least = jnp.where(mask[..., None], tokens, -jnp.inf).max(axis=1)
        return jnp.where(mask.any(axis=1)[:, None], least, 0.0)
    weight = mask[..., None].astype(jnp.float32)
    if mode == "weightedmean":
        place = jnp.arange(1, mask.shape[1] + 1) - jnp.argmax(counted, axis=1)[:, None]
        weight = weight * place[..., None].astype(jnp.float32)
    total = jnp.maximum(weight.sum(1), 1.0)
    total = jnp.sqrt(total) if mode == "mean_sqrt_len" else total
    return (tokens * weight).sum(1) / total


def _at(tokens: Array, place: Array) -> Array:
    return jnp.take_along_axis(tokens, place[:, None, None], axis=1)[:, 0]
