"""Common parts of the contrastive losses: input checks, cosines, and the choice of implementation.

All pairs of the global batch are negatives of each other, on whichever device they are. A loss has
two implementations: `dense` makes one [B, B] matrix, `ring` (`ring_losses.py`) one tile of it at a
time. Tests compare value and gradients with the `*_reference` of the loss.

Pairs that share an id (several captions of one image, for example) are not negatives of each other:
their off-diagonal entries are excluded from every sum. `negatives` computes the mask.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ape_jax.align.losses.negatives import Ids, by_rows
from ape_jax.align.losses.ring import Ring
from ape_jax.errors import UserError

IMPLS = ("auto", "dense", "ring")
# Bytes of the f32 [B, B] matrix per device; a dense loss holds about four of them at its peak.
_DENSE_BYTES = 64 << 20

Scalar = Float[Array | np.ndarray, ""] | np.floating | float | int
Embeddings = Float[Array | np.ndarray, "B e"]


def chosen(impl: str, batch: int, mesh: Mesh | None) -> str:
    """Resolves "auto" to "dense" or "ring" for a global batch on a mesh."""
    if impl != "auto":
        return impl
    devices = 1 if mesh is None else mesh.size
    return "ring" if 4 * batch * batch // devices > _DENSE_BYTES else "dense"


def cosines_of(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None) -> Float[Array, "B B"]:
    """Cosines of all images with all texts."""
    # Without the constraints GSPMD may replicate the matrix. With constraints on the embeddings
    # their gradients are sharded by rows, too.
    zimg, ztxt = by_rows(zimg, mesh), by_rows(ztxt, mesh)
    # HIGHEST: an f32 product on a TPU otherwise rounds its inputs to bf16. bf16 inputs lose nothing
    # by the default precision; the sum is in f32 in any case.
    exact = zimg.dtype != jnp.bfloat16 or ztxt.dtype != jnp.bfloat16
    cosines = jnp.matmul(
        zimg,
        ztxt.T,
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
    return by_rows(cosines, mesh)


def diagonal(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None) -> Float[Array, " B"]:
    """Cosines of the pairs, computed from embeddings: a slice of the matrix would move data."""
    zimg, ztxt = by_rows(zimg, mesh), by_rows(ztxt, mesh)
    return (zimg.astype(jnp.float32) * ztxt.astype(jnp.float32)).sum(axis=1)


def ring_of(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int, mesh: Mesh | None
) -> tuple[Ring, tuple[Ids, Ids] | None]:
    """Makes the ring, and the ids of images and texts as integer [B, c]."""
    group = batch // groups if groups > 1 else 0
    ring = Ring(mesh=mesh, own_texts=text_ids is not None, group=group)
    if ids is None:
        return ring, None
    images = jnp.asarray(ids).reshape(batch, -1)
    return ring, (images, images if text_ids is None else jnp.asarray(text_ids).reshape(batch, -1))


def check(zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None, impl: str) -> None:
    """Raises UserError if `impl` is unknown or shapes do not match."""
    if impl not in IMPLS:
        known = " or ".join(f'"{name}"' for name in IMPLS)
        raise UserError(f'impl="{impl}" is not an implementation of the loss; write {known}')
    if zimg.ndim != 2 or zimg.shape != ztxt.shape:
        raise UserError(f"zimg has shape {zimg.shape} and ztxt {ztxt.shape}; both must be [B, e]")
    if mesh is not None and len(zimg) % mesh.size:
        raise UserError(
            f"the global batch has {len(zimg)} pairs, which do not divide over the mesh's "
            f"{mesh.size} devices; make it a multiple of {mesh.size}"
        )
