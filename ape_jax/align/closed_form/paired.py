"""Features of texts and images in pairs, read by blocks of rows, and which images belong together.

An image may have several captions and several views, and a caption several images. Each caption of
each image is one pair, and a pair's image is the mean over its views. The [p, d] arrays of pairs
are never made.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form import paired
from ape_jax.errors import UserError
from ape_jax.storage.row_array import RowArray, blocks

_BLOCK = 4096  # Rows that are looked at together.
NEVER = -1
"""The fold of images that are never held out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paired:
    """Features of distinct texts and images, and the indices of both in each pair.

    Features may lie on disk: they are read by blocks of rows, and never as a whole.

    Attributes:
      text: one vector per distinct text, float [m, d], an array or what is read like one.
      image: one vector per view of an image, float [n, V, k], likewise.
      text_index: the text of each pair, integer [p].
      image_index: the image of each pair, integer [p], ascending.
      weights: how much each pair counts, float [p]; None for all alike.
      mean: subtracted from every image vector, [k]; None for zero.
      std: every image vector is then divided by it, [k]; None for one.
      parts: widths of the vectors that are joined in one of an image, in order; () for one.
      extra: number of images at the end that are fitted to and never held out: those of free pairs
        (`appended`), whose views are all the same.
    """

    text: RowArray
    image: RowArray
    text_index: Integer[np.ndarray, " p"]
    image_index: Integer[np.ndarray, " p"]
    weights: Float[np.ndarray, " p"] | None = None
    mean: Float[np.ndarray, " k"] | None = None
    std: Float[np.ndarray, " k"] | None = None
    parts: tuple[int, ...] = ()
    extra: int = 0

    @property
    def own(self) -> int:
        """The number of images that are no extra ones."""
        return len(self) - self.extra

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image)

    def images(self, chosen: Integer[np.ndarray, " b"]) -> Float[np.ndarray, "b V k"]:
        """Returns the chosen images, standardised, in float64."""
        return self.standardised(self.image[chosen])

    def standardised(self, image: Float[np.ndarray, "b V k"]) -> Float[np.ndarray, "b V k"]:
        """Standardises rows of `image`, in float64."""
        x = image.astype(np.float64)
        if self.mean is not None:
            x -= self.mean
        return x if self.std is None else x / self.std

    def groups(self) -> Integer[np.ndarray, " n"]:
        """Numbers its own images so that those that share texts have one number (`linked`)."""
        pairs = int(np.searchsorted(self.image_index, self.own))
        return paired.linked(self.text_index[:pairs], self.image_index[:pairs], self.own)

    def with_extra(self, fold: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " m"]:
        """The fold of each image, from those of its own ones: extra images are in `NEVER`."""
        return np.append(fold, np.full(self.extra, NEVER, fold.dtype)) if self.extra else fold

    def check(self) -> None:
        """Checks shapes and order; `check_values` looks at the features.

        Raises:
          UserError: for shapes that do not fit, or images out of order.
        """
        texts, images = len(self.text_index), len(self.image_index)
        if texts != images or not min(texts, *self.text.shape, *self.image.shape):
            raise UserError(
                f"text {self.text.shape}, image {self.image.shape}, {texts} indices of texts and "
                f"{images} of images: expected at least one pair, with an index of each"
            )
        first, last = self.image_index[0], self.image_index[-1]
        if (np.diff(self.image_index) < 0).any() or not 0 <= first <= last < len(self):
            raise UserError(f"image_index: expected ascending numbers from 0 to {len(self) - 1}")

    def check_values(self) -> None:
        """Looks for features that are not finite in f32, in all rows.

        Raises:
          UserError: naming the first row.
        """
        for name, values in (("text", self.text), ("image", self.image)):
            for block in blocks(len(values), _BLOCK):
                finite = np.isfinite(values[block].astype(np.float32))
                if not finite.all():
                    row = block.start + int(np.argmin(finite.reshape(len(finite), -1).all(1)))
                    raise UserError(f"{name} is not finite in row {row}; encode the features again")


def from_rows(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> Paired:
    """Pairs row i of texts `x` with row i of images `y`."""
    index = np.arange(len(x))
    return Paired(text=x, image=y[:, None], text_index=index, image_index=index)


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
