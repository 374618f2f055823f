"""Held-out retrieval of CCA: how well what two readings have in common finds unseen pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from ape_jax.align.closed_form import held_out
from ape_jax.align.closed_form.held_out import HeldOut
from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.layers.halves import Half, Memory, halves, solved

L2S = (0.03, 0.3, 1.0, 3.0)
POWERS = (1.0, 2.0)
_LIMIT = 1000  # Images of a split that are scored.
_DOMAIN_SPLITS = 6  # About so many splits over domains.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images to fit on and images to score, which share no concept.

    Attributes:
      fit: bool [n].
      score: bool [n].
      crosses: whether the domain of what is scored is none of those that are fitted on.
    """

    fit: Bool[np.ndarray, " n"]
    score: Bool[np.ndarray, " n"]
    crosses: bool = False


def concept_splits(
    paired: Paired,
    domain: Integer[np.ndarray, " n"] | None = None,
    *,
    count: int = 5,
    seed: int = 0,
) -> list[Split]:
    """Splits by concept: images that share a text are on one side (`Paired.groups`).

    With domains there are splits beside them that leave a domain out as well: what is scored is of
    a domain and of concepts that were not fitted on.

    Args:
      paired: the features.
      domain: of each image; None for one and the same.
      count: folds of concepts.
      seed: seed of the folds.

    Raises:
      UserError: where the images are of fewer than two concepts.
    """
    fold = held_out.folds(paired, count, seed)
    values = np.unique(fold)
    splits = [Split(fit=fold != value, score=fold == value) for value in values]
    domains = [] if domain is None else np.unique(domain)
    if domain is None or len(domains) < 2:
        return splits
    folds_each = max(2, min(len(values), _DOMAIN_SPLITS // len(domains)))
    for place, own in enumerate(domains):
        for turn in range(folds_each):
            out = fold == values[(place + turn) % len(values)]
            fit, score = ~out & (domain != own), out & (domain == own)
            if fit.any() and score.any():
                splits.append(Split(fit=fit, score=score, crosses=True))
    return splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Held-out retrieval, the mean of both directions, of each split.

    Attributes:
      mrr: mean reciprocal rank.
      recall: R@10.
      crosses: whether a split leaves out a domain.
      l2, power: of the CCA whose scores these are.
    """

    mrr: Float[np.ndarray, " s"]
    recall: Float[np.ndarray, " s"]
    crosses: Bool[np.ndarray, " s"]
    l2: float = 0.0
    power: float = 0.0

    @property
    def both(self) -> Float[np.ndarray, " s"]:
        """The mean of both figures, by which readings are compared."""
        return (self.mrr + self.recall) / 2


def held_out_cca(
    paired: Paired,
    splits: Sequence[Split],
    *,
    l2s: Sequence[float] = L2S,
    powers: Sequence[float] = POWERS,
    seed: int = 0,
    memory: Memory | None = None,
    keys: tuple[object, object] = ("text", "image"),
) -> Scores:
    """Fits CCA on one part of each split, and retrieves among the other.

    Args:
      paired: vectors of texts and images, in memory; with `parts` the covariance of images is taken
        as block-diagonal.
      splits: of its images.
      l2s: regularisers; of these and `powers` the combination with the best mean is taken.
      powers: exponents of the correlations that weight the directions.
      seed: seed of the sample of a large part that is scored.
      memory: of halves that were made before, for the same splits.
      keys: names of the texts and of the images in it.

    Returns:
      The scores at the best combination; zero where a side does not vary (a class token before the
      first block).
    """
    memory = memory or Memory()
    kept = [np.flatnonzero(split.fit[paired.image_index]) for split in splits]

    def make(x: np.ndarray, of_pair: np.ndarray, parts: tuple[int, ...] = ()) -> list[Half | None]:
        return halves(x, [np.bincount(of_pair[pairs], minlength=len(x)) for pairs in kept], parts)

    images = paired.images(np.arange(len(paired)))[:, 0]
    text = memory.get(keys[0], lambda: make(np.asarray(paired.text[:]), paired.text_index))
    image = memory.get(keys[1], lambda: make(images, paired.image_index, paired.parts))
    mrr = np.zeros((len(splits), len(l2s), len(powers)))
    recall = np.zeros_like(mrr)
    for n, (split, x, y) in enumerate(zip(splits, text, image, strict=True)):
        if x is None or y is None:
            continue
        at = paired.text_index[kept[n]], paired.image_index[kept[n]]
        cross = x.coordinates[at[0]].T @ y.coordinates[at[1]] / len(at[0])
        out, texts, rows = _sample(paired, split.score, seed)
        for i, l2 in enumerate(l2s):
            ztxt, zimg, correlations = solved(x, y, cross, l2)
            for j, power in enumerate(powers):
                weights = correlations**power
                scores = _unit(zimg[rows] * weights) @ _unit(ztxt[texts] * weights).T
                mrr[n, i, j] = out.score_similarities(scores)
                recall[n, i, j] = out.recall(scores, 10)
    i, j = np.unravel_index(np.argmax(mrr.mean(axis=0)), mrr.shape[1:])
    crosses = np.array([split.crosses for split in splits])
    best = {"l2": float(l2s[int(i)]), "power": float(powers[int(j)])}
    return Scores(mrr=mrr[:, i, j], recall=recall[:, i, j], crosses=crosses, **best)


def _sample(
    paired: Paired, members: Bool[np.ndarray, " n"], seed: int
) -> tuple[HeldOut, Integer[np.ndarray, " m"], Integer[np.ndarray, " b"]]:
    """What is scored of a split, with the numbers of its texts and of its images."""
    numbers = dataclasses.replace(
        paired,
        text=np.arange(float(len(paired.text)))[:, None],
        image=np.arange(float(len(paired)))[:, None, None],
        mean=None,
        std=None,
    )
    out = held_out.sample(numbers, members, _LIMIT, seed)
    return out, out.text[:, 0].astype(np.int64), out.image[:, 0].astype(np.int64)


def _unit(x: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
