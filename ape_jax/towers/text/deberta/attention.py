"""Disentangled attention (DeBERTa, arXiv 2006.03654): positions meet contents in the logits.

To the logits of a query and a key come those of the query and the embedding of their distance
("c2p"), and of that embedding and the key ("p2c"). All blocks read one table of such embeddings.
"""

from __future__ import annotations

from typing import Any, SupportsInt

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Int64

from ape_jax.nn.layers import Dense
from ape_jax.nn.matmul import product
from ape_jax.nn.tree import Tree

CONTENT_TO_POSITION, POSITION_TO_CONTENT = TERMS = ("c2p", "p2c")


class Relative(Tree):
    """What the blocks read beside the residual stream.

    Attributes:
      bias: added to the logits, of masks.
      distances: the embeddings of key s seen from query t, for t - s from T - 1 down to 1 - T.
    """

    bias: Float[Array, "b 1 #t t"]
    distances: Float[Array, "n d"]


class Disentangled(nn.Module):
    """Attention of many heads whose logits have the terms of `terms`.

    Attributes:
      heads: attention heads.
      terms: out of `TERMS`.
      shared: the distances' keys and queries come from the layers of those of contents.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
    """

    heads: int
    terms: tuple[str, ...]
    shared: bool
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], context: Relative) -> Float[Array, "b t d"]:
        """Attend."""
        dense = {name: self._dense(name, x) for name in ("query", "key", "value", "out")}
        place = {
            term: dense[name] if self.shared else self._dense(f"pos_{name}", x)
            for term, name in zip(TERMS, ("key", "query"), strict=True)
            if term in self.terms
        }
        query, key, value = (self._split(dense[name](x)) for name in ("query", "key", "value"))
        logits = product(query, key.swapaxes(-1, -2), self.dtype)
        if CONTENT_TO_POSITION in place:
            logits = logits + self._met(query, place[CONTENT_TO_POSITION](context.distances))
        if POSITION_TO_CONTENT in place:
            # Key s meets its distance to query t, so that t - s ascends.
            embedded = place[POSITION_TO_CONTENT](context.distances[::-1])
            logits = logits + self._met(key, embedded).swapaxes(-1, -2)
        scale = (query.shape[-1] * (1 + len(self.terms))) ** -0.5
        weights = jax.nn.softmax(logits * scale + context.bias, axis=-1)
        y = product(weights, value, self.dtype)
        return dense["out"](y.transpose(0, 2, 1, 3).reshape(x.shape))

    def _dense(self, name: str, x: Array) -> Dense:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return Dense(x.shape[-1], **types, name=name)

    def _split(self, y: Float[Array, "b t d"]) -> Array:
        y = y.astype(self.dtype).reshape(*y.shape[:2], self.heads, -1)
        return y.transpose(0, 2, 1, 3)

    def _met(self, x: Array, embedded: Float[Array, "n d"]) -> Float[Array, "b h t t"]:
        """The products of queries or keys [B, H, T, c] with the embedding at each place."""
        batch, heads, length, size = x.shape
        embedded = embedded.reshape(-1, heads, size).transpose(1, 2, 0)
        rows = x.transpose(1, 0, 2, 3).reshape(heads, batch * length, size)
        met = product(rows, embedded, self.dtype).reshape(heads, batch, length, -1)
        return shifted(met.transpose(1, 0, 2, 3))


def shifted(x: Float[Array, "b h t n"]) -> Float[Array, "b h t t"]:
    """`out[t, s] = x[t, s - t + T - 1]`, for n = 2 T - 1 (Transformer-XL, arXiv 1901.02860)."""
    batch, heads, length, count = x.shape
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0)))
    x = x.reshape(batch, heads, count + 1, length)[:, :, 1:]
    return x.reshape(batch, heads, length, count)[..., :length]


def rows(length: SupportsInt, *, span: int, buckets: int, furthest: int) -> Int32[Array, " n"]:
    """The row of the table for each distance t - s, from T - 1 down to 1 - T.

    Args:
      length: T, an integer or a symbol of `jax.export`.
      span: half of the rows of the table.
      buckets: distances beyond half of it share rows, by their logarithm; 0: none do.
      furthest: where the last of these rows begins.
    """
    # From there on, the table's first or last row is meant.
    limit = 2 * max(furthest, span)
    offset = np.arange(-limit, limit + 1)
    bucket = log_buckets(offset, buckets, furthest) if buckets else offset
    row = np.clip(bucket + span, 0, 2 * span - 1).astype(np.int32)
    distance = jnp.arange(2 * length - 1)[::-1] - (length - 1)  # pyright: ignore[reportOperatorIssue]
    return jnp.asarray(row)[jnp.clip(distance, -limit, limit) + limit]


def log_buckets(
    offset: Int64[np.ndarray, " n"], buckets: int, furthest: int
) -> Int64[np.ndarray, " n"]:
    """Distances as they are up to half of `buckets`, and by their logarithm from there on."""
    middle = buckets // 2
    distance = np.maximum(np.abs(offset), middle - 1).astype(np.float32)
    # float32 throughout, as torch: a distance on the edge of a bucket must round the same way.
    ratio = np.log(distance / np.float32(middle)) / np.log(np.float32((furthest - 1) / middle))
    far = np.ceil(ratio * np.float32(middle - 1)) + middle
    return np.where(distance <= middle, offset, far * np.sign(offset)).astype(np.int64)
