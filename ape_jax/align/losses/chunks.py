"""Gradient caching: exact large batches with the activations of one chunk in memory.

The contrastive loss needs the embeddings of the whole batch, but a tower needs its activations only
while its gradient is computed. Chunks are embedded one after the other and only embeddings are
kept; the loss is computed over the whole batch; the backward pass embeds each chunk again and sums
the gradients. It costs a second forward pass.

References:
  Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
  arXiv 2101.06983. Here the second pass is `jax.checkpoint` under a scan: the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

Features = TypeVar("Features")
Embed = Callable[[Features, Array | None], Any]


def embed_in_chunks(
    embed: Embed[Features],
    features: Features,
    rng: Array | None,
    chunks: int,
    mesh: Mesh | None = None,
) -> Any:
    """Computes `embed(features, rng)` with the activations of one chunk at a time.

    Example:
      >>> embed_in_chunks(lambda x, rng: 2 * x, jax.numpy.ones((4, 1)), None, chunks=2).shape
      (4, 1)

    Args:
      embed: function of features (any number of rows) and a random key that returns a tree of
        arrays [b, ...], embeddings say: one per row or, with mixup, one per two adjacent rows.
      features: a tree of arrays [B, ...].
      rng: random key for dropout, split over the chunks; None for no dropout.
      chunks: number of chunks, a divisor of B / devices; 1 for a single call.
      mesh: mesh over which rows are sharded; None for one device. A chunk takes a part of the rows
        of every device, so that no row moves.

    Returns:
      The same tree with arrays [B, ...], in the order of the rows.

    Raises:
      ValueError: if chunks and devices do not divide the rows; the rules of the config prevent it.
    """
    if chunks == 1:
        return embed(features, rng)
    devices = 1 if mesh is None else mesh.size
    sharding = None if mesh is None else NamedSharding(mesh, P(None, mesh.axis_names))

    def split(x: Array) -> Array:
        if x.shape[0] % (devices * chunks):
            raise ValueError(f"{x.shape[0]} rows, {devices} devices and {chunks} chunks")
        cut = x.reshape(devices, chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        cut = cut.reshape(chunks, -1, *x.shape[1:])
        return cut if sharding is None else jax.lax.with_sharding_constraint(cut, sharding)

    # In a scan, common subexpressions are not merged across passes anyway.
    one = jax.checkpoint(lambda chunk: embed(*chunk), prevent_cse=False)
    keys = None if rng is None else jax.random.split(rng, chunks)

    def join(z: Array) -> Array:
        rest = z.shape[2:]
        return z.reshape(chunks, devices, -1, *rest).swapaxes(0, 1).reshape(-1, *rest)

    return jax.tree.map(join, jax.lax.map(one, (jax.tree.map(split, features), keys)))
