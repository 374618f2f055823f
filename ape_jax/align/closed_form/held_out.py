"""Retrieval scores on held-out images, by which the hyperparameters of closed forms are chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from ape_jax.align.closed_form.paired import NEVER, Paired, assign
from ape_jax.align.closed_form.sums import Moments, by_fold, check_varies
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Images of a fold, or a sample of them, with their captions.

    Attributes:
      image: the first view of each image, float64 [n, k]; a query is one image, not a mean.
      text: their distinct captions, float64 [m, d].
      text_index: the text of each pair, integer [p].
      image_index: the image of each pair, integer [p], ascending.
    """

    image: Float[np.ndarray, "n k"]
    text: Float[np.ndarray, "m d"]
    text_index: Integer[np.ndarray, " p"]
    image_index: Integer[np.ndarray, " p"]

    def score(self, zimg: Float[np.ndarray, "n e"], ztxt: Float[np.ndarray, "m e"]) -> float:
        """Mean reciprocal rank of the best match, over both directions; smoother than recall.

        Args:
          zimg: embeddings of `image`, of any length.
          ztxt: embeddings of `text`, of any length.

        Returns:
          A score in (0, 1].
        """
        return self.score_similarities(_unit(zimg) @ _unit(ztxt).T)

    def score_similarities(self, scores: Float[np.ndarray, "n m"]) -> float:
        """`score` from the similarity of each image to each text."""
        i2t, t2i = self.ranks(scores)
        return float(((1 / i2t).mean() + (1 / t2i).mean()) / 2)

    def recall(self, scores: Float[np.ndarray, "n m"], k: int) -> float:
        """Share of queries with a match among the best `k`, the mean over both directions."""
        i2t, t2i = self.ranks(scores)
        return float(((i2t <= k).mean() + (t2i <= k).mean()) / 2)

    def ranks(
        self, scores: Float[np.ndarray, "n m"]
    ) -> tuple[Integer[np.ndarray, " n"], Integer[np.ndarray, " m"]]:
        """Ranks from 1 of the best match of each image, and of each text."""
        found = scores[self.image_index, self.text_index]
        images, texts = (np.full(size, -np.inf, scores.dtype) for size in scores.shape)
        np.maximum.at(images, self.image_index, found)
        np.maximum.at(texts, self.text_index, found)
        return 1 + (scores > images[:, None]).sum(axis=1), 1 + (scores > texts).sum(axis=0)


def folds(
    paired: Paired, count: int | Integer[np.ndarray, " n"], seed: int
) -> Integer[np.ndarray, " n"]:
    """Assigns each image to a fold; images that share a text are in one fold.

    Args:
      paired: the features.
      count: number of folds, or the fold of each image that is no extra one.
      seed: seed of the random assignment.
    """
    groups = paired.groups()
    if isinstance(count, int):
        count = min(count, len(np.unique(groups)))
    return paired.with_extra(assign(paired.own, count, groups, seed))


def split(
    paired: Paired, fold: Integer[np.ndarray, " n"]
) -> tuple[list[tuple[Bool[np.ndarray, " n"], Moments]], Moments]:
    """The members and the moments of each fold, and the moments of all pairs.

    Images that are never held out are in no fold, and count among all.

    Args:
      paired: the features.
      fold: the fold of each image, as `folds` gives it.

    Raises:
      UserError: for features that are not finite; where nothing varies.
    """
    parts = by_fold(paired, fold)
    total = sum((part for _, part in parts[1:]), parts[0][1])
    check_varies(total)
    return [(members, part) for members, part in parts if (fold[members] != NEVER).all()], total


def sample(paired: Paired, members: Bool[np.ndarray, " n"], limit: int, seed: int) -> HeldOut:
    """Samples at most `limit` of the images of a fold that have a caption.

    Args:
      paired: the features.
      members: true at the images of the fold.
      limit: maximum number of images.
      seed: seed of the sampling.
    """
    images = np.flatnonzero(members & (np.bincount(paired.image_index, minlength=len(paired)) > 0))
    if len(images) > limit:
        images = np.sort(np.random.default_rng(seed).choice(images, limit, replace=False))
    kept = np.isin(paired.image_index, images)
    texts, text_index = np.unique(paired.text_index[kept], return_inverse=True)
    return HeldOut(
        image=paired.images(images)[:, 0],
        text=paired.text[texts].astype(np.float64),
        text_index=text_index,
        image_index=np.searchsorted(images, paired.image_index[kept]),
    )


def simplest(scores: Float[np.ndarray, "folds *grid"]) -> tuple[int, ...]:
    """Returns the first grid index that is within one standard error of the best.

    The difference to the best, averaged over the folds, must not exceed its own standard error. A
    grid ordered from simple to complex then yields maps that generalise beyond these pairs.

    Args:
      scores: held-out score of each fold at each grid point.

    Returns:
      The index of the grid point, one number per axis of the grid.

    References:
      Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3 (the 1 SE rule).
    """
    mean = scores.mean(axis=0)
    best = np.unravel_index(np.argmax(mean), mean.shape)
    short = scores[(slice(None), *best)].reshape(-1, *[1] * mean.ndim) - scores
    error = short.std(axis=0, ddof=1) / np.sqrt(len(scores))
    return tuple(int(i) for i in np.argwhere(short.mean(axis=0) <= error)[0])


def widths(most: int, dims: Sequence[int] | None) -> list[int]:
    """Joint widths to try: `dims`, or 32, 64, 128 and so on up to `most`.

    Raises:
      UserError: for a width below 1 or above `most`.
    """
    if dims is None:
        return [32 << i for i in range(12) if 32 << i < most] + [most]
    if bad := [dim for dim in dims if not 1 <= dim <= most]:
        raise UserError(f"dims holds {bad[0]}; write numbers from 1 to {most}")
    return list(dims)


def _unit(x: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
