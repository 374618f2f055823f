"""Features of texts and images in pairs, and the sums over pairs that linear closed forms need.

An image may have several captions and several views, and a caption several images. Each caption of
each image is one pair, and a pair's image is the mean over its views. The [p, d] arrays of pairs
are never made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Integer

from ape_jax.align.closed_form import paired
from ape_jax.errors import UserError

_BLOCK = 4096  # Rows that are converted to float64 at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paired:
    """Features of distinct texts and images, and the indices of both in each pair.

    Attributes:
      text: one vector per distinct text, float [m, d].
      image: one vector per view of an image, float [n, V, k].
      text_index: the text of each pair, integer [p].
      image_index: the image of each pair, integer [p], ascending.
      mean: subtracted from every image vector, [k]; None for zero.
      std: every image vector is then divided by it, [k]; None for one.
    """

    text: Float[np.ndarray, "m d"]
    image: Float[np.ndarray, "n V k"]
    text_index: Integer[np.ndarray, " p"]
    image_index: Integer[np.ndarray, " p"]
    mean: Float[np.ndarray, " k"] | None = None
    std: Float[np.ndarray, " k"] | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image)

    def images(self, chosen: Integer[np.ndarray, " b"]) -> Float[np.ndarray, "b V k"]:
        """Returns the chosen images, standardised, in float64."""
        x = self.image[chosen].astype(np.float64)
        if self.mean is not None:
            x -= self.mean
        return x if self.std is None else x / self.std

    def groups(self) -> Integer[np.ndarray, " n"]:
        """Numbers the images so that images that share texts have one number (`paired.linked`)."""
        return paired.linked(self.text_index, self.image_index, len(self))

    def check(self) -> None:
        """Checks shapes, order and values.

        Raises:
          UserError: for shapes that do not fit, images out of order, or a value that is not finite.
        """
        texts, images = len(self.text_index), len(self.image_index)
        if texts != images or not min(texts, self.text.size, self.image.size):
            raise UserError(
                f"text {self.text.shape}, image {self.image.shape}, {texts} indices of texts and "
                f"{images} of images: expected at least one pair, with an index of each"
            )
        first, last = self.image_index[0], self.image_index[-1]
        if (np.diff(self.image_index) < 0).any() or not 0 <= first <= last < len(self):
            raise UserError(f"image_index: expected ascending numbers from 0 to {len(self) - 1}")
        for name, values in (("text", self.text), ("image", self.image)):
            for start in range(0, len(values), _BLOCK):
                finite = np.isfinite(values[start : start + _BLOCK].astype(np.float32))
                if not finite.all():
                    row = start + int(np.argmin(finite.reshape(len(finite), -1).all(1)))
                    raise UserError(f"{name} is not finite in row {row}; encode the features again")


def from_rows(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> Paired:
    """Pairs row i of texts `x` with row i of images `y`."""
    index = np.arange(len(x))
    return Paired(text=x, image=y[:, None], text_index=index, image_index=index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over pairs in float64; sums over disjoint sets of pairs can be added and subtracted.

    Attributes:
      count: number of pairs.
      text_sum: sum of texts, [d].
      image_sum: sum of images, each the mean over its views, [k].
      text_text: sum of outer products of texts, [d, d].
      image_image: sum of outer products of views, averaged over the views of an image, [k, k];
        differences between views count as variance.
      text_image: sum of outer products of texts and images, [d, k].
    """

    count: float
    text_sum: Float[np.ndarray, " d"]
    image_sum: Float[np.ndarray, " k"]
    text_text: Float[np.ndarray, "d d"]
    image_image: Float[np.ndarray, "k k"]
    text_image: Float[np.ndarray, "d k"]

    def __add__(self, other: Moments) -> Moments:
        names = (field.name for field in dataclasses.fields(self))
        return Moments(**{n: getattr(self, n) + getattr(other, n) for n in names})

    def __sub__(self, other: Moments) -> Moments:
        names = (field.name for field in dataclasses.fields(self))
        return Moments(**{n: getattr(self, n) - getattr(other, n) for n in names})

    def turned(self) -> Moments:
        """Swaps texts and images."""
        return Moments(
            count=self.count,
            text_sum=self.image_sum,
            image_sum=self.text_sum,
            text_text=self.image_image,
            image_image=self.text_text,
            text_image=self.text_image.T,
        )

    @property
    def text_mean(self) -> Float[np.ndarray, " d"]:
        """Mean of the texts."""
        return self.text_sum / self.count

    @property
    def image_mean(self) -> Float[np.ndarray, " k"]:
        """Mean of the images."""
        return self.image_sum / self.count

    def covariances(
        self,
    ) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "k k"], Float[np.ndarray, "d k"]]:
        """Covariances of texts, of images, and of texts with images; divided by `count`."""
        x, y, n = self.text_mean, self.image_mean, self.count
        return (
            self.text_text / n - np.outer(x, x),
            self.image_image / n - np.outer(y, y),
            self.text_image / n - np.outer(x, y),
        )


def moments(paired: Paired, members: Bool[np.ndarray, " n"] | None = None) -> Moments:
    """Sums over the pairs of all images, or of some, in one pass over texts and views.

    Args:
      paired: the features.
      members: true at the images to sum over, bool [n]; None for all.
    """
    image_index, text_index = paired.image_index, paired.text_index
    if members is not None:
        kept = members[image_index]
        image_index, text_index = image_index[kept], text_index[kept]
    uses = np.bincount(text_index, minlength=len(paired.text)).astype(np.float64)
    used = np.flatnonzero(uses)
    d, k = paired.text.shape[1], paired.image.shape[2]
    text_text, text_sum = np.zeros((d, d)), np.zeros(d)
    for start in range(0, len(used), _BLOCK):
        block = used[start : start + _BLOCK]
        x = paired.text[block].astype(np.float64)
        text_sum += uses[block] @ x
        x *= np.sqrt(uses[block])[:, None]
        text_text += x.T @ x
    image_image, image_sum, text_image = np.zeros((k, k)), np.zeros(k), np.zeros((d, k))
    for chosen, begins, ends in _blocks(image_index):
        y = paired.images(chosen)
        counts = (ends - begins).astype(np.float64)
        text = paired.text[text_index[begins[0] : ends[-1]]].astype(np.float64)
        texts = np.add.reduceat(text, begins - begins[0], axis=0)
        mean = y.mean(axis=1)
        image_sum += counts @ mean
        text_image += texts.T @ mean
        flat = (y * np.sqrt(counts / y.shape[1])[:, None, None]).reshape(-1, k)
        image_image += flat.T @ flat
    return Moments(
        count=float(len(text_index)),
        text_sum=text_sum,
        image_sum=image_sum,
        text_text=text_text,
        image_image=image_image,
        text_image=text_image,
    )


def _blocks(image_index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields blocks of images that have a pair, with the first and last index of their pairs."""
    chosen, begins = np.unique(image_index, return_index=True)
    ends = np.append(begins[1:], len(image_index))
    for start in range(0, len(chosen), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield chosen[part], begins[part], ends[part]


def by_fold(paired: Paired, fold: Integer[np.ndarray, " n"]) -> list[tuple[np.ndarray, Moments]]:
    """Returns the members, bool [n], and the moments of each fold.

    Args:
      paired: the features.
      fold: the fold of each image.
    """
    masks = [fold == f for f in np.unique(fold)]
    return [(members, moments(paired, members)) for members in masks]


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
