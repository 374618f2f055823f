"""Exact large batches on little memory: embed chunk by chunk, compare all with all.

The contrastive loss needs the embeddings of the whole batch, and a tower needs its activations only
while its own gradient is computed. So chunks are embedded one after the other, keeping nothing but
the embeddings; the loss is that of the whole batch; and on the way back each chunk is embedded once
more and its gradient added up. One more forward pass buys activations of one chunk instead of all.

References:
  Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
  arXiv 2101.06983. Here the second pass is `jax.checkpoint` under a scan: the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

Features = TypeVar("Features")
Embed = Callable[[Features, Array | None], Float[Array, "b E"]]


def embed_in_chunks(
    embed: Embed[Features],
    features: Features,
    rng: Array | None,
    chunks: int,
    mesh: Mesh | None = None,
) -> Float[Array, "B E"]:
    """`embed(features, rng)`, keeping the activations of one chunk at a time for the gradient.

    Args:
      embed: maps features of any number of rows, and a key, to one embedding a row; or to one for
        every two neighbours, as mixup does.
      features: a tree of arrays [B, ...].
      rng: for dropout, None for none; each chunk has a key of its own.
      chunks: how many, 1 for the plain call. B / devices must be a multiple of it.
      mesh: the devices that rows are sharded over. A chunk takes a part of every device's rows, so
        that all of them work on all chunks and no row moves.

    Raises:
      ValueError: for rows that cannot be cut like this; the config's rules see to it.
    """
    if chunks == 1:
        return embed(features, rng)
    devices = 1 if mesh is None else mesh.size
    sharding = None if mesh is None else NamedSharding(mesh, P(None, mesh.axis_names))

    def cut(x: Array) -> Array:
        if x.shape[0] % (devices * chunks):
            raise ValueError(f"{x.shape[0]} rows, {devices} devices and {chunks} chunks")
        parts = x.reshape(devices, chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        parts = parts.reshape(chunks, -1, *x.shape[1:])
        return parts if sharding is None else jax.lax.with_sharding_constraint(parts, sharding)

    # In a scan nothing is merged across passes anyway.
    one = jax.checkpoint(lambda part: embed(*part), prevent_cse=False)
    keys = None if rng is None else jax.random.split(rng, chunks)
    z = jax.lax.map(one, (jax.tree.map(cut, features), keys))
    return z.reshape(chunks, devices, -1, z.shape[-1]).swapaxes(0, 1).reshape(-1, z.shape[-1])
