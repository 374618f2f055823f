"""Sums over pairs in float64, in one pass: all that linear closed forms need of the features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Integer

from ape_jax.align.closed_form.paired import Paired
from ape_jax.errors import UserError
from ape_jax.storage.row_array import blocks
from ape_jax.terminal.progress import track

_BLOCK = 4096  # Rows that are summed together, in float64.
# A side varies where its variance is more than rounding errors of its mean square.
_VARIES = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over pairs in float64; sums over disjoint sets of pairs can be added and subtracted.

    Attributes:
      count: number of pairs, or the sum of their weights.
      text_sum: sum of texts, [d].
      image_sum: sum of images, each the mean over its views, [k].
      text_text: sum of outer products of texts, [d, d].
      image_image: sum of outer products of views, averaged over the views of an image, [k, k];
        differences between views count as variance.
      text_image: sum of outer products of texts and images, [d, k].
      view_noise: sum of the unbiased covariances of the views of an image, [k, k]; zero for one
        view.
      view_count: number of the pairs whose images have views of their own, or the sum of their
        weights: `count` without the pairs of extra images.
    """

    count: float
    text_sum: Float[np.ndarray, " d"]
    image_sum: Float[np.ndarray, " k"]
    text_text: Float[np.ndarray, "d d"]
    image_image: Float[np.ndarray, "k k"]
    text_image: Float[np.ndarray, "d k"]
    view_noise: Float[np.ndarray, "k k"]
    view_count: float

    def __add__(self, other: Moments) -> Moments:
        names = (field.name for field in dataclasses.fields(self))
        return Moments(**{n: getattr(self, n) + getattr(other, n) for n in names})

    def __sub__(self, other: Moments) -> Moments:
        names = (field.name for field in dataclasses.fields(self))
        return Moments(**{n: getattr(self, n) - getattr(other, n) for n in names})

    def turned(self) -> Moments:
        """Swaps texts and images; texts have no views."""
        return Moments(
            count=self.count,
            text_sum=self.image_sum,
            image_sum=self.text_sum,
            text_text=self.image_image,
            image_image=self.text_text,
            text_image=self.text_image.T,
            view_noise=np.zeros_like(self.text_text),
            view_count=self.view_count,
        )

    @property
    def text_mean(self) -> Float[np.ndarray, " d"]:
        """Mean of the texts."""
        return self.text_sum / self.count

    @property
    def image_mean(self) -> Float[np.ndarray, " k"]:
        """Mean of the images."""
        return self.image_sum / self.count

    @property
    def noise(self) -> Float[np.ndarray, "k k"]:
        """Mean covariance of the views of an image."""
        return self.view_noise / self.view_count

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

    Raises:
      UserError: for features that are not finite.
    """
    everywhere = np.ones(len(paired), bool) if members is None else members
    return _sum(paired, np.where(everywhere, 0, -1), 1)[0]


def by_fold(paired: Paired, fold: Integer[np.ndarray, " n"]) -> list[tuple[np.ndarray, Moments]]:
    """Returns the members, bool [n], and the moments of each fold, in one pass for all folds.

    Args:
      paired: the features.
      fold: the fold of each image.

    Raises:
      UserError: for features that are not finite.
    """
    values, number = np.unique(fold, return_inverse=True)
    sums = _sum(paired, number, len(values))
    return [(fold == value, part) for value, part in zip(values, sums, strict=True)]


def text_mean(paired: Paired) -> Float[np.ndarray, " d"]:
    """`Moments.text_mean` of all pairs, from one pass over the texts alone."""
    uses = np.bincount(paired.text_index, paired.weights, len(paired.text)).astype(np.float64)
    used, total = np.flatnonzero(uses), np.zeros(paired.text.shape[1])
    for block in blocks(len(used), _BLOCK):
        total += uses[used[block]] @ paired.text[used[block]].astype(np.float64)
    return total / uses.sum()


def check_varies(part: Moments) -> None:
    """Checks that neither side is the same in all pairs.

    Raises:
      UserError: where the captions, or the images, all have the same vector.
    """
    sides = {
        "captions": (part.text_text, part.text_mean),
        "images": (part.image_image, part.image_mean),
    }
    for name, (squares, mean) in sides.items():
        square = np.trace(squares) / part.count
        require_variance(name, int(part.count), square - mean @ mean, square)


def require_variance(name: str, pairs: int, variance: float, square: float) -> None:
    """Checks that vectors are not all the same.

    Args:
      name: what they are, "captions" or "images".
      pairs: number of pairs, for the message.
      variance: mean squared distance from their mean.
      square: their mean square.

    Raises:
      UserError: where they are.
    """
    if variance <= _VARIES * square:
        raise UserError(
            f"the {name} of these {pairs} pairs all have the same vector: nothing varies that "
            f"could be aligned; take pairs of different {name}"
        )


def _sum(paired: Paired, fold: np.ndarray, folds: int) -> list[Moments]:
    """Moments of each fold, in one pass over the images that are in a fold at all (not -1).

    Each fold sums blocks of its own rows: its moments do not depend on the other folds.
    """
    of_pair = fold[paired.image_index]
    image_index, text_index = paired.image_index[of_pair >= 0], paired.text_index[of_pair >= 0]
    weights = None if paired.weights is None else paired.weights[of_pair >= 0].astype(np.float64)
    of_pair = of_pair[of_pair >= 0]
    sums = []
    for number in range(folds):
        here = of_pair == number
        some = None if weights is None else weights[here]
        sums.append(_Sums(paired, text_index[here], image_index[here], some))
    images, begins = np.unique(image_index, return_index=True)
    bounds = np.append(begins, len(image_index))
    first = _first_uses(text_index)
    for block in track(
        blocks(len(images), _BLOCK), "summing pairs", -(-len(images) // _BLOCK), "blocks of 4096"
    ):
        pairs = slice(bounds[block.start], bounds[block.stop])
        texts = paired.text[text_index[pairs]]
        if first is not None:
            chosen = np.flatnonzero(first[pairs])
            _each_fold(sums, text_index[pairs][chosen], texts[chosen])
        x, starts = texts.astype(np.float64), bounds[block] - bounds[block.start]
        counts = np.diff(bounds[block.start : block.stop + 1])
        if weights is not None:
            x *= weights[pairs, None]
            counts = np.add.reduceat(weights[pairs], starts)
        of_image, views = np.add.reduceat(x, starts, axis=0), paired.image[images[block]]
        for number, part in enumerate(sums):
            part.images.put(fold[images[block]] == number, views, counts, of_image)
    if first is None:  # The order of pairs is not that of texts.
        used = np.unique(text_index)
        for block in blocks(len(used), _BLOCK):
            _each_fold(sums, used[block], paired.text[used[block]])
    return [part.end() for part in sums]


def _each_fold(sums: list[_Sums], numbers: np.ndarray, texts: np.ndarray) -> None:
    """Adds texts to the folds that use them."""
    for part in sums:
        uses = part.uses[numbers]
        part.texts.put(uses > 0, texts, uses)


def _first_uses(text_index: np.ndarray) -> np.ndarray | None:
    """Whether each pair is the first with its text; None unless first uses are in order of texts.

    In that order, which the captions of a data set have, texts are read once, beside their images.
    """
    before = np.concatenate([[-1], np.maximum.accumulate(text_index)[:-1]])
    first = text_index > before
    return first if first.sum() == len(np.unique(text_index)) else None


class _Blocks:
    """Hands rows on in blocks of `_BLOCK`, however they come in."""

    def __init__(self, add: Callable[..., None]):
        self._add, self._held, self._count = add, [], 0

    def put(self, chosen: np.ndarray, *arrays: np.ndarray) -> None:
        """Takes the chosen rows of arrays of one length."""
        if not chosen.any():
            return
        self._held.append(arrays if chosen.all() else tuple(x[chosen] for x in arrays))
        self._count += int(chosen.sum())
        while self._count >= _BLOCK:
            self._hand_on(_BLOCK)

    def _hand_on(self, size: int) -> None:
        columns: list[tuple[np.ndarray, ...]] = list(zip(*self._held, strict=True))
        arrays = [np.concatenate(x) for x in columns]
        self._add(*(x[:size] for x in arrays))
        self._count -= size
        self._held = [tuple(x[size:] for x in arrays)] if self._count else []

    def end(self) -> None:
        """Hands on what is left."""
        if self._count:
            self._hand_on(self._count)


class _Sums:
    """The sums of one fold."""

    def __init__(
        self,
        paired: Paired,
        text_index: np.ndarray,
        image_index: np.ndarray,
        weights: np.ndarray | None,
    ):
        d, k = paired.text.shape[1], paired.image.shape[2]
        own = image_index < paired.own
        self._view_count = own.sum() if weights is None else weights[own].sum()
        self._paired = paired
        self._count = len(text_index) if weights is None else weights.sum()
        self.uses = np.bincount(text_index, weights, len(paired.text))
        if weights is None:
            self.uses = self.uses.astype(np.int32)
        self.texts, self.images = _Blocks(self._add_texts), _Blocks(self._add_images)
        self._text_sum, self._image_sum = np.zeros(d), np.zeros(k)
        self._text_text, self._image_image = np.zeros((d, d)), np.zeros((k, k))
        self._text_image, self._view_noise = np.zeros((d, k)), np.zeros((k, k))

    def _add_texts(self, texts: np.ndarray, uses: np.ndarray) -> None:
        x, weights = texts.astype(np.float64), uses.astype(np.float64)
        self._text_sum += weights @ x
        self._check(self._text_sum)
        x *= np.sqrt(weights)[:, None]
        self._text_text += x.T @ x

    def _add_images(self, views: np.ndarray, counts: np.ndarray, texts: np.ndarray) -> None:
        y, weights = self._paired.standardised(views), counts.astype(np.float64)
        mean = y.mean(axis=1)
        self._image_sum += weights @ mean
        self._check(self._image_sum)
        self._text_image += texts.T @ mean
        flat = (y * np.sqrt(weights / y.shape[1])[:, None, None]).reshape(-1, y.shape[2])
        views_views = flat.T @ flat
        self._image_image += views_views
        if (count := y.shape[1]) > 1:
            mean *= np.sqrt(weights)[:, None]
            self._view_noise += (views_views - mean.T @ mean) * (count / (count - 1))

    def _check(self, total: np.ndarray) -> None:
        """What is not finite makes its sum so; the row is looked for only then."""
        if not np.isfinite(total).all():
            self._paired.check_values()
            raise UserError("the features are too large to be summed; scale them down")

    def end(self) -> Moments:
        """The moments, once all rows are in."""
        self.texts.end()
        self.images.end()
        self._check(np.append(np.diag(self._text_text), np.diag(self._image_image)))
        return Moments(
            count=float(self._count),
            text_sum=self._text_sum,
            image_sum=self._image_sum,
            text_text=self._text_text,
            image_image=self._image_image,
            text_image=self._text_image,
            view_noise=self._view_noise,
            view_count=float(self._view_count),
        )
