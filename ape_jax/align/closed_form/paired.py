"""Texts and images that belong together, and the sums over them that linear closed forms need.

An image may have several captions and several views, and a caption several images: each caption of
each image is one row, and a row's image is the average over its views. No row is ever written out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Integer

from ape_jax.align.closed_form import folds
from ape_jax.errors import UserError

_BLOCK = 4096  # Rows that are in float64 at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paired:
    """Features of texts and images, and which belong to which.

    Attributes:
      text: one vector a distinct text, [m, d].
      image: one vector a view of an image, [n, V, k], in any float type.
      rows: the text of each pair, integer [p].
      owner: the image of each pair, integer [p], ascending.
      center: what is taken off every image vector, [k] or None.
      spread: what an image vector is then divided by, [k] or None.
    """

    text: Float[np.ndarray, "m d"]
    image: Float[np.ndarray, "n V k"]
    rows: Integer[np.ndarray, " p"]
    owner: Integer[np.ndarray, " p"]
    center: Float[np.ndarray, " k"] | None = None
    spread: Float[np.ndarray, " k"] | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image)

    def images(self, chosen: Integer[np.ndarray, " b"]) -> Float[np.ndarray, "b V k"]:
        """The chosen images, centred and scaled, in float64."""
        x = self.image[chosen].astype(np.float64)
        if self.center is not None:
            x -= self.center
        return x if self.spread is None else x / self.spread

    def groups(self) -> Integer[np.ndarray, " n"]:
        """Images of equal number share texts, and belong on one side of a fold."""
        return folds.linked(self.rows, self.owner, len(self))

    def check(self) -> None:
        """Refuses what nothing can be solved from.

        Raises:
          UserError: for shapes that do not fit, images out of order, or a value that is not finite.
        """
        fits = len(self.rows) == len(self.owner) and min(self.text.size, self.image.size) > 0
        if not fits or not len(self.rows):
            raise UserError(
                f"text {self.text.shape}, image {self.image.shape}, {len(self.rows)} rows and "
                f"{len(self.owner)} owners: expected at least one pair, and an owner for each row"
            )
        if (np.diff(self.owner) < 0).any() or not 0 <= self.owner[0] <= self.owner[-1] < len(self):
            raise UserError("owner: expected ascending places of images")
        for name, values in (("text", self.text), ("image", self.image)):
            for start in range(0, len(values), _BLOCK):
                finite = np.isfinite(values[start : start + _BLOCK].astype(np.float32))
                if not finite.all():
                    row = start + int(np.argmin(finite.reshape(len(finite), -1).all(1)))
                    raise UserError(
                        f"{name} is not finite in row {row}; encode the features again."
                    )


def from_rows(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"]) -> Paired:
    """Row i of `x` belongs to row i of `y`."""
    place = np.arange(len(x))
    return Paired(text=x, image=y[:, None], rows=place, owner=place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over rows in float64; those of parts add up to those of the whole.

    Attributes:
      count: rows.
      text_sum: [d].
      image_sum: [k], of the averages over views.
      text_text: sum of outer products, [d, d].
      image_image: [k, k], averaged over the views: what views differ by counts as variance.
      text_image: [d, k].
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
        """The same with texts in the place of images, and images in that of texts."""
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
        """The mean text."""
        return self.text_sum / self.count

    @property
    def image_mean(self) -> Float[np.ndarray, " k"]:
        """The mean image."""
        return self.image_sum / self.count

    def covariances(
        self,
    ) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "k k"], Float[np.ndarray, "d k"]]:
        """Of texts, of images, and of both, about the means; divided by `count`."""
        x, y, n = self.text_mean, self.image_mean, self.count
        return (
            self.text_text / n - np.outer(x, x),
            self.image_image / n - np.outer(y, y),
            self.text_image / n - np.outer(x, y),
        )


def moments(paired: Paired, among: Bool[np.ndarray, " n"] | None = None) -> Moments:
    """The sums over the pairs of all images, or of those that `among` marks.

    Costs one pass over the distinct texts and one over the views, in blocks.
    """
    owner, rows = paired.owner, paired.rows
    if among is not None:
        owner, rows = owner[among[owner]], rows[among[owner]]
    uses = np.bincount(rows, minlength=len(paired.text)).astype(np.float64)
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
    for chosen, begins, ends in _blocks(owner):
        y = paired.images(chosen)
        counts = (ends - begins).astype(np.float64)
        text = paired.text[rows[begins[0] : ends[-1]]].astype(np.float64)
        texts = np.add.reduceat(text, begins - begins[0], axis=0)
        mean = y.mean(axis=1)
        image_sum += counts @ mean
        text_image += texts.T @ mean
        flat = (y * np.sqrt(counts / y.shape[1])[:, None, None]).reshape(-1, k)
        image_image += flat.T @ flat
    return Moments(
        count=float(len(rows)),
        text_sum=text_sum,
        image_sum=image_sum,
        text_text=text_text,
        image_image=image_image,
        text_image=text_image,
    )


def _blocks(owner: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images with a pair, each with where its pairs begin and end; views are in no block twice."""
    chosen, begins = np.unique(owner, return_index=True)
    ends = np.append(begins[1:], len(owner))
    for start in range(0, len(chosen), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield chosen[part], begins[part], ends[part]


def by_fold(paired: Paired, fold: Integer[np.ndarray, " n"]) -> list[tuple[np.ndarray, Moments]]:
    """For each fold, the images it holds and its moments."""
    members = [fold == f for f in np.unique(fold)]
    return [(among, moments(paired, among)) for among in members]
