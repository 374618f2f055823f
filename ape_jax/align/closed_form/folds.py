"""Which rows are held out together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from ape_jax.errors import UserError


def draw(
    n: int,
    folds: int | Integer[np.ndarray, " n"],
    groups: Integer[np.ndarray, " n"] | None,
    seed: int,
) -> Integer[np.ndarray, " n"]:
    """Which fold each row is held out in: as given, or drawn so that folds are of equal size.

    Args:
      n: rows.
      folds: how many to draw, or the fold of each row.
      groups: rows of equal value are held out together; None for each by itself.
      seed: of the draw.

    Raises:
      UserError: for folds that leave nothing to hold out or to fit on.
    """
    if not isinstance(folds, int | np.integer):
        fold = np.asarray(folds)
        if fold.shape != (n,) or len(np.unique(fold)) < 2:
            raise UserError(
                f"folds has shape {fold.shape} and {len(np.unique(fold))} different values; it "
                f"needs one integer for each of the {n} rows, and at least two different ones."
            )
        return fold
    groups = np.arange(n) if groups is None else np.asarray(groups)
    if groups.shape != (n,):
        raise UserError(f"groups has shape {groups.shape}; it needs one for each of the {n} rows.")
    unique, group = np.unique(groups, return_inverse=True)
    if not 2 <= folds <= len(unique):
        raise UserError(
            f"folds is {folds}; with {len(unique)} rows or groups of rows to hold out, write a "
            f"number from 2 to {len(unique)}."
        )
    return (np.random.default_rng(seed).permutation(len(unique)) % folds)[group]


def linked(
    rows: Integer[np.ndarray, " p"], owner: Integer[np.ndarray, " p"], images: int
) -> Integer[np.ndarray, " n"]:
    """A number for each image, equal for images that are linked by texts they share.

    An image whose very caption was trained on says little about captions that were not. Where
    sharing links more than half of all images there is nothing to keep apart: then each image has
    its own number.

    Args:
      rows: the text of each pair.
      owner: the image of each pair.
      images: how many there are.
    """
    group = np.arange(images)
    while True:  # The smallest number spreads along the links; a few rounds do for short chains.
        lowest = np.full(int(rows.max()) + 1, images)
        np.minimum.at(lowest, rows, group[owner])
        spread = group.copy()
        np.minimum.at(spread, owner, lowest[rows])
        spread = spread[spread]
        if np.array_equal(spread, group):
            break
        group = spread
    return np.arange(images) if np.bincount(group).max() > max(images // 2, 1) else group
