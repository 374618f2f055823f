"""Knowledge that training leaves in a tower: Khan and Fu's "conservation of knowledge", measured.

* how far each group of parameters moved from where pretraining left it;
* how alike the tower's features are before and after, on the same inputs: linear CKA (Kornblith et
  al., "Similarity of Neural Network Representations Revisited", arXiv 1905.00414, section 3);
* whether the text tower still judges the same captions alike: Spearman's correlation of the cosines
  of all pairs of captions before and after.

A frozen tower moved nowhere and is at 1 in both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.stats
from jaxtyping import Float, PyTree

from ape_jax.align.tuning import selection
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import tasks

FRESH = frozenset({"adapter", "LoRA", "appended block"})
"""Groups that pretraining knows nothing of."""

_MOST_TEXTS = 2000  # Two million pairs of captions.


def conservation(
    pretrained: tasks.Encoder, trained: tasks.Encoder, pairs: Pairs
) -> dict[str, float]:
    """The features of both towers before and after, on one set of pairs.

    Args:
      pretrained: gives the towers' own pooled features, unit length, as they were.
      trained: gives them as they are.
      pairs: images and captions; of the distinct captions the first two thousand.

    Returns:
      `image_cka`, `text_cka` and `text_judgements`.

    Raises:
      UserError: for fewer than three images or distinct captions.
    """
    images = [pairs[i].image for i in range(len(pairs))]
    texts = list(dict.fromkeys(t for i in range(len(pairs)) for t in pairs[i].captions))
    texts = texts[:_MOST_TEXTS]
    if min(len(images), len(texts)) < 3:
        raise UserError(
            f"--data: conservation needs 3 images and 3 distinct captions, found {len(images)} and "
            f"{len(texts)}"
        )
    both = (pretrained, trained)
    image = [e.encode_image(images) for e in both]
    text = [e.encode_text(texts) for e in both]
    return {
        "image_cka": linear_cka(*image),
        "text_cka": linear_cka(*text),
        "text_judgements": judgements(*text),
    }


def linear_cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Linear centred kernel alignment of two sets of features of the same n inputs, in [0, 1].

    It is 1 where one is the other turned, shifted or scaled as a whole.
    """
    x, y = (z.astype(np.float64) - z.mean(axis=0, dtype=np.float64) for z in (x, y))
    between = np.linalg.norm(x.T @ y) ** 2
    return float(between / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def judgements(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Spearman's correlation of the cosines of all pairs of inputs; rows have unit length."""
    upper = np.triu_indices(len(x), 1)
    return float(scipy.stats.spearmanr((x @ x.T)[upper], (y @ y.T)[upper]).statistic)


def movement(
    before: Mapping[str, PyTree], after: Mapping[str, PyTree]
) -> dict[tuple[str, str], float]:
    """Distance that each trained group of a tower moved, relative to its norm, by (side, group).

    Args:
      before: the trained parameters of a model at its start, `image_tower` and `text_tower`.
      after: the same tree after training.

    Returns:
      |after - before| / |before| over all leaves of a group; nothing for what was fresh.
    """
    sums: dict[tuple[str, str], np.ndarray] = {}
    for side in ("image", "text"):
        start = selection.flatten(before.get(f"{side}_tower", {}))
        end = selection.flatten(after.get(f"{side}_tower", {}))
        for name, value in start.items():
            group = selection.group(name)
            if group not in FRESH:
                a, b = np.asarray(value, np.float64), np.asarray(end[name], np.float64)
                entry = sums.setdefault((side, group), np.zeros(2))
                entry += ((b - a) ** 2).sum(), (a**2).sum()
    return {key: float(np.sqrt(moved / norm)) for key, (moved, norm) in sums.items() if norm}
