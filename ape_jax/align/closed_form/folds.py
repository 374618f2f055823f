"""Assignment of rows to folds, and of images that share texts to one group."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from ape_jax.errors import UserError


def assign(
    n: int,
    folds: int | Integer[np.ndarray, " n"],
    groups: Integer[np.ndarray, " n"] | None,
    seed: int,
) -> Integer[np.ndarray, " n"]:
    """Assigns each row to a fold, at random with folds of equal size or as the caller chose.

    Args:
      n: number of rows.
      folds: number of folds, or the fold of each row.
      groups: rows of equal value are held out together, integer [n]; None for single rows.
      seed: seed of the random assignment.

    Returns:
      The fold of each row, integer [n].

    Raises:
      UserError: if nothing is left to hold out or to fit on.
    """
    if not isinstance(folds, int | np.integer):
        fold = np.asarray(folds)
        if fold.shape != (n,) or len(np.unique(fold)) < 2:
            raise UserError(
                f"folds has shape {fold.shape} and {len(np.unique(fold))} different values; it "
                f"needs one integer for each of the {n} rows, and at least two different ones"
            )
        return fold
    groups = np.arange(n) if groups is None else np.asarray(groups)
    if groups.shape != (n,):
        raise UserError(f"groups has shape {groups.shape}; it needs one for each of the {n} rows")
    unique, group = np.unique(groups, return_inverse=True)
    if not 2 <= folds <= len(unique):
        raise UserError(
            f"folds is {folds}; with {len(unique)} rows or groups of rows to hold out, write a "
            f"number from 2 to {len(unique)}"
        )
    return (np.random.default_rng(seed).permutation(len(unique)) % folds)[group]


def linked(
    text_index: Integer[np.ndarray, " p"], image_index: Integer[np.ndarray, " p"], images: int
) -> Integer[np.ndarray, " n"]:
    """Numbers the images so that images linked by shared texts, also in chains, have one number.

    A held-out image is a poor test if its caption was in the training part. If shared texts link
    more than half of all images, they cannot be separated and each image has its own number.

    Args:
      text_index: the text of each pair.
      image_index: the image of each pair.
      images: number of images n.
    """
    group = np.arange(images)
    while True:  # The smallest number moves along the links; short chains take a few rounds.
        lowest = np.full(int(text_index.max()) + 1, images)
        np.minimum.at(lowest, text_index, group[image_index])
        linked_group = group.copy()
        np.minimum.at(linked_group, image_index, lowest[text_index])
        linked_group = linked_group[linked_group]
        if np.array_equal(linked_group, group):
            break
        group = linked_group
    return np.arange(images) if np.bincount(group).max() > max(images // 2, 1) else group
