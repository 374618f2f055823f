"""Which pairs of a batch are negatives of each other, and how their matrix lies on a mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Integer

from ape_jax.errors import UserError

Ids = Integer[Array | np.ndarray, " B"] | Integer[Array | np.ndarray, "B c"]


def which_negatives(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int, mesh: Mesh | None
) -> Bool[Array, "B B"]:
    """Whether image i and text j are told apart, [i, j]; never on the diagonal.

    Args:
      batch: B.
      ids: of the images, [B] or [B, c]; None where all are different.
      text_ids: of the texts, compared column by column with those of the images; None: the same.
      groups: of consecutive pairs, which see none of another group.
      mesh: the mesh that the matrix is sharded over by rows.
    """
    place = jnp.arange(batch)
    image = jnp.asarray(place if ids is None else ids).reshape(batch, -1)
    text = image if text_ids is None else jnp.asarray(text_ids).reshape(batch, -1)
    own, group = text_ids is not None, batch // groups if groups > 1 else 0
    return by_rows(apart((image, place), (text, place), own, group), mesh)


def apart(
    images: tuple[Array, Array], texts: tuple[Array, Array], own_texts: bool, group: int
) -> Bool[Array, "m n"]:
    """`which_negatives` for a part of the batch's images and a part of its texts.

    Args:
      images: ids [m, c] and places in the batch [m].
      texts: ids [n, c] and places [n].
      own_texts: whether the texts' ids are not their images'.
      group: pairs in a row that see none but each other; 0 for the global loss.
    """
    (ids, place), (text_ids, text_place) = images, texts
    found = ids[:, None, 0] != text_ids[None, :, 0]
    for k in range(1, ids.shape[1]):
        found &= ids[:, None, k] != text_ids[None, :, k]
    if own_texts:  # A pair need not agree with itself, and is no negative all the same.
        found &= place[:, None] != text_place[None, :]
    if group:
        found &= place[:, None] // group == text_place[None, :] // group
    return found


def not_negatives_reference(
    batch: int, ids: Ids | None, text_ids: Ids | None, groups: int
) -> Bool[Array, "B B"]:
    """What is left out of the loss, in the plainest terms; args as for `which_negatives`."""
    ids = jnp.arange(batch) if ids is None else jnp.asarray(ids)
    text_ids = ids if text_ids is None else jnp.asarray(text_ids)
    ids, text_ids = ids.reshape(batch, -1), text_ids.reshape(batch, -1)
    same = (ids[:, None, :] == text_ids[None, :, :]).any(axis=-1)
    group = jnp.repeat(jnp.arange(groups), batch // groups)
    return (same | (group[:, None] != group[None, :])) & ~jnp.eye(batch, dtype=bool)


def check_ids(batch: int, ids: Ids | None, text_ids: Ids | None, groups: int) -> None:
    """Raises UserError for ids that are not one a pair, or groups that the batch does not have."""
    if text_ids is not None and (ids is None or ids.shape != text_ids.shape):
        found = None if ids is None else ids.shape
        raise UserError(f"text_ids has shape {text_ids.shape} and ids {found}; make them alike.")
    if ids is not None and (ids.ndim not in (1, 2) or ids.shape[0] != batch or not ids.size):
        raise UserError(
            f"ids has shape {ids.shape}; it needs one id a pair, [{batch}], or c ids, [{batch}, c]."
        )
    if groups < 1 or batch % groups:
        raise UserError(
            f"groups is {groups}, which does not divide the batch of {batch} pairs; write one that "
            "does."
        )


def by_rows(x: Array | np.ndarray, mesh: Mesh | None) -> Array:
    """Shards the leading dimension over all axes of the mesh."""
    if mesh is None:
        return jnp.asarray(x)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.lax.with_sharding_constraint(jnp.asarray(x), sharding)
