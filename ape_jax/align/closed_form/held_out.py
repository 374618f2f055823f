"""How well maps that were fitted on some images find others: what closed forms are chosen by."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from ape_jax.align.closed_form.folds import draw
from ape_jax.align.closed_form.paired import Paired
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The images of a fold, or a sample of them, with their captions.

    Attributes:
      image: one view of each, the first, float64 [n, k]; a query is one image and no average.
      text: their distinct captions, float64 [m, d].
      rows: the text of each pair, integer [p].
      owner: the image of each pair, integer [p], ascending.
    """

    image: Float[np.ndarray, "n k"]
    text: Float[np.ndarray, "m d"]
    rows: Integer[np.ndarray, " p"]
    owner: Integer[np.ndarray, " p"]

    def score(self, zimg: Float[np.ndarray, "n e"], ztxt: Float[np.ndarray, "m e"]) -> float:
        """Mean reciprocal rank of the best match, both ways; smoother than recall.

        Args:
          zimg: the images mapped, of any length.
          ztxt: the texts mapped, of any length.
        """
        return self.score_similarities(_unit(zimg) @ _unit(ztxt).T)

    def score_similarities(self, scores: Float[np.ndarray, "n m"]) -> float:
        """The same from the similarity of each image to each text."""
        found = scores[self.owner, self.rows]
        images, texts = (np.full(size, -np.inf, scores.dtype) for size in scores.shape)
        np.maximum.at(images, self.owner, found)
        np.maximum.at(texts, self.rows, found)
        i2t = 1 / (1 + (scores > images[:, None]).sum(axis=1))
        t2i = 1 / (1 + (scores > texts).sum(axis=0))
        return float((i2t.mean() + t2i.mean()) / 2)


def folds(
    paired: Paired, count: int | Integer[np.ndarray, " n"], seed: int
) -> Integer[np.ndarray, " n"]:
    """The fold of each image; those that share a text are in one."""
    groups = paired.groups()
    if isinstance(count, int):
        count = min(count, len(np.unique(groups)))
    return draw(len(paired), count, groups, seed)


def sample(paired: Paired, among: Bool[np.ndarray, " n"], limit: int, seed: int) -> HeldOut:
    """At most `limit` of the images of a fold that have a caption."""
    images = np.flatnonzero(among & (np.bincount(paired.owner, minlength=len(paired)) > 0))
    if len(images) > limit:
        images = np.sort(np.random.default_rng(seed).choice(images, limit, replace=False))
    kept = np.isin(paired.owner, images)
    texts, rows = np.unique(paired.rows[kept], return_inverse=True)
    return HeldOut(
        image=paired.images(images)[:, 0],
        text=paired.text[texts].astype(np.float64),
        rows=rows,
        owner=np.searchsorted(images, paired.owner[kept]),
    )


def simplest(scores: Float[np.ndarray, "folds *grid"]) -> tuple[int, ...]:
    """The first place of a grid that does as well as the best, as far as the folds can tell.

    As well means: its shortfall, averaged over the folds, is within one standard error of itself. A
    grid that begins with what is simplest then gives maps that carry further than these pairs.

    References:
      Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3 (the 1 SE rule).
    """
    mean = scores.mean(axis=0)
    best = np.unravel_index(np.argmax(mean), mean.shape)
    short = scores[(slice(None), *best)].reshape(-1, *[1] * mean.ndim) - scores
    error = short.std(axis=0, ddof=1) / np.sqrt(len(scores))
    return tuple(int(i) for i in np.argwhere(short.mean(axis=0) <= error)[0])


def widths(most: int, dims: Sequence[int] | None) -> list[int]:
    """Joint widths to try: those given, or 32, 64, 128 and so on up to `most`.

    Raises:
      UserError: for a width that there is not.
    """
    if dims is None:
        return [32 << i for i in range(12) if 32 << i < most] + [most]
    if bad := [dim for dim in dims if not 1 <= dim <= most]:
        raise UserError(f"dims holds {bad[0]}; write numbers from 1 to {most}.")
    return list(dims)


def _unit(x: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
