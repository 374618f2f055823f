"""Common parts of the contrastive losses: input checks, cosines, and the choice of implementation.

All pairs of the global batch are negatives of each other, on whichever device they are. A loss has
two implementations: `dense` makes one [B, B] matrix, `ring` (`ring_losses.py`) one tile of it at a
time. Tests compare value and gradients with the `*_reference` of the loss.

Pairs that share an id (several captions of one image, for example) are not negatives of each other:
their off-diagonal entries are excluded from every sum. `negatives` computes the mask.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer

from ape_jax import arguments
from ape_jax.errors import UserError, whole_number

_NUMBERS = {jnp.floating: "numbers", jnp.integer: "whole numbers"}
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


def cosines_of(
    zimg: Embeddings, ztxt: Float[Array | np.ndarray, "n e"], mesh: Mesh | None
) -> Float[Array, "B n"]:
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


def check(
    zimg: Embeddings, ztxt: Embeddings, mesh: Mesh | None = None, impl: str = "auto"
) -> tuple[Embeddings, Embeddings]:
    """Checks embeddings, mesh and implementation of a loss.

    Returns:
      The embeddings; lists of numbers as arrays.

    Raises:
      UserError: if `impl` is unknown, something is no array, or shapes do not match.
    """
    zimg = checked_array(zimg, "zimg", jnp.floating)
    ztxt = checked_array(ztxt, "ztxt", jnp.floating)
    if not isinstance(impl, str) or impl not in IMPLS:
        known = " or ".join(f'"{name}"' for name in IMPLS)
        raise UserError(f'impl="{impl}" is not an implementation of the loss; write {known}')
    if zimg.ndim != 2 or zimg.shape != ztxt.shape or not zimg.size:
        raise UserError(f"zimg has shape {zimg.shape} and ztxt {ztxt.shape}; both must be [B, e]")
    check_mesh(mesh, len(zimg), f"the global batch has {len(zimg)} pairs")
    return zimg, ztxt


def check_mesh(mesh: Mesh | None, rows: int, found: str) -> None:
    """Checks that a mesh is one, and that rows divide over its devices.

    Args:
      mesh: the argument; None is one device.
      rows: number of rows.
      found: what the rows are and how many, for the message.

    Raises:
      UserError: where it is none, or they do not.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise UserError(f"mesh: expected a jax.sharding.Mesh or None, found {mesh!r}")
    if mesh is not None and rows % mesh.size:
        raise UserError(
            f"{found}, which do not divide over the mesh's {mesh.size} devices; make it a multiple "
            f"of {mesh.size}"
        )


def check_scalar(value: Scalar, name: str) -> Scalar:
    """Checks a factor or summand of the logits, a real number or an array of one.

    Raises:
      UserError: for anything else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    array = checked_array(value, name, jnp.floating)
    if array.ndim:
        raise UserError(f"{name} has shape {array.shape}; expected one number")
    return array


def checked_array(value: Any, name: str, kind: Any) -> Any:
    """Checks for an array of real numbers, or of whole ones; what is traced stays as it is.

    Args:
      value: an array, or a list of numbers.
      name: the argument, for messages.
      kind: `jnp.floating` or `jnp.integer`.

    Raises:
      UserError: for anything else.
    """
    if not isinstance(value, jax.Array):
        value = arguments.real_array(value, name)
    whole = jnp.issubdtype(value.dtype, jnp.integer)
    if not whole and (kind is jnp.integer or not jnp.issubdtype(value.dtype, jnp.floating)):
        raise UserError(f"{name}: expected an array of {_NUMBERS[kind]}, found {value.dtype}")
    return value


Ids = Integer[Array | np.ndarray, " B"] | Integer[Array | np.ndarray, "B c"]


def negative_mask(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int, mesh: Mesh | None
) -> Bool[Array, "B B"]:
    """Makes the mask that is true where text j is a negative of image i; false on the diagonal.

    Args:
      batch: number of pairs B.
      ids: ids of the images, [B] or [B, c]; None if all are different.
      text_ids: ids of the texts, compared with those of the images by column; None for `ids`.
      groups: number of equal, contiguous groups; pairs are negatives only within their group.
      mesh: mesh over which the rows of the mask are sharded; None for one device.
    """
    index = jnp.arange(batch)
    image = jnp.asarray(index if ids is None else ids).reshape(batch, -1)
    text = image if text_ids is None else jnp.asarray(text_ids).reshape(batch, -1)
    own, group = text_ids is not None, batch // groups if groups > 1 else 0
    return by_rows(tile_mask((image, index), (text, index), own, group), mesh)


def tile_mask(
    images: tuple[Array, Array], texts: tuple[Array, Array], own_texts: bool, group: int
) -> Bool[Array, "m n"]:
    """Computes one tile of `negative_mask`.

    Args:
      images: ids [m, c] of the tile's images, and their indices in the batch [m].
      texts: ids [n, c] of the tile's texts, and their indices in the batch [n].
      own_texts: true if texts have ids of their own, which may differ from those of their images.
      group: number of pairs in each negative group; 0 for the global loss.
    """
    (ids, index), (text_ids, text_index) = images, texts
    mask = ids[:, None, 0] != text_ids[None, :, 0]
    for k in range(1, ids.shape[1]):
        mask &= ids[:, None, k] != text_ids[None, :, k]
    if own_texts:  # The ids of a pair may differ; its text is not a negative of its image.
        mask &= index[:, None] != text_index[None, :]
    if group:
        mask &= index[:, None] // group == text_index[None, :] // group
    return mask


def hard_tile_mask(
    images: tuple[Array, Array], texts: tuple[Array, Array], group: int
) -> Bool[Array, "m n"]:
    """Computes one tile of the mask of negative captions (`losses.hard`).

    Args:
      images: ids [m, c] of the captions of the tile's images, and the images' indices [m].
      texts: ids [n, 1] of the tile's negative captions, -1 for none, and their images' indices [n].
      group: number of pairs in each negative group; 0 for the global loss.
    """
    (captions, index), (ids, text_index) = images, texts
    mask = (ids >= 0)[None, :, 0]
    for k in range(captions.shape[1]):
        mask &= captions[:, None, k] != ids[None, :, 0]
    if group:
        mask &= index[:, None] // group == text_index[None, :] // group
    return mask


def excluded_reference(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int
) -> Bool[Array, "B B"]:
    """Reference for the complement of `negative_mask` off the diagonal. Same arguments."""
    ids = jnp.arange(batch) if ids is None else jnp.asarray(ids)
    text_ids = ids if text_ids is None else jnp.asarray(text_ids)
    ids, text_ids = ids.reshape(batch, -1), text_ids.reshape(batch, -1)
    same = (ids[:, None, :] == text_ids[None, :, :]).any(axis=-1)
    group = jnp.repeat(jnp.arange(groups), batch // groups)
    return (same | (group[:, None] != group[None, :])) & ~jnp.eye(batch, dtype=bool)


def check_ids(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int
) -> tuple[Ids | None, Ids | None]:
    """Checks that ids have one row per pair and `groups` divides the batch.

    Returns:
      The ids; lists of numbers as arrays.

    Raises:
      UserError: where it is not so.
    """
    groups = whole_number(groups, "groups")
    ids = None if ids is None else checked_array(ids, "ids", jnp.integer)
    text_ids = None if text_ids is None else checked_array(text_ids, "text_ids", jnp.integer)
    if text_ids is not None and (ids is None or ids.shape != text_ids.shape):
        shape = None if ids is None else ids.shape
        raise UserError(f"text_ids has shape {text_ids.shape} and ids {shape}; make them the same")
    if ids is not None and (ids.ndim not in (1, 2) or ids.shape[0] != batch or not ids.size):
        raise UserError(
            f"ids has shape {ids.shape}; expected [{batch}] or [{batch}, c], one row per pair"
        )
    if groups < 1 or batch % groups:
        raise UserError(
            f"groups is {groups}, which does not divide the batch of {batch} pairs; write a divisor"
        )
    return ids, text_ids


def by_rows(x: Array | np.ndarray, mesh: Mesh | None) -> Array:
    """Shards the leading axis over all axes of the mesh."""
    if mesh is None:
        return jnp.asarray(x)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.lax.with_sharding_constraint(jnp.asarray(x), sharding)
