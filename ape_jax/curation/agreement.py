"""How well an image and its captions agree, judged by a fit that did not see them."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ape_jax.align.closed_form import Affine, Paired, cca, held_out
from ape_jax.align.closed_form.sums import by_fold, check_varies
from ape_jax.curation.vectors import BLOCK, unit
from ape_jax.errors import UserError
from ape_jax.storage.row_array import blocks
from ape_jax.terminal.progress import track

FOLDS = 5
OTHERS = 1000
# As few_pairs starts: what carries over to other pairs.
_L2, _POWER = 1.0, 1.0
_FEWEST = 4 * FOLDS


@dataclasses.dataclass(frozen=True)
class _Fold:
    """A fit, and what the pairs that it did not see are compared with.

    Attributes:
      text, image: its maps.
      texts: other captions of the fold, unit vectors [r, e].
      images: other images of the fold, likewise.
      text_index: the caption of each of `texts`.
      image_index: the image of each of `images`.
    """

    text: Affine
    image: Affine
    texts: Float32[np.ndarray, "r e"]
    images: Float32[np.ndarray, "q e"]
    text_index: Int[np.ndarray, " r"]
    image_index: Int[np.ndarray, " q"]


def agreement(paired: Paired, *, seed: int = 0) -> Float32[np.ndarray, " n"]:
    """Computes the share of other captions and images that suit a pair better than its own.

    CCA is fitted on four fifths of the images; on the last fifth, each caption is compared with
    captions of other images, and each image with images of other captions. Images that share a
    caption are in one fold. A caption that has nothing to do with its image has a share drawn
    evenly from 0 to 1.

    Args:
      paired: the features.
      seed: seed of the folds and of the samples of others.

    Returns:
      The share of each image in [0, 1], the mean over both directions and its captions; 0.5 is
      chance, 0 is best. 0 for an image without a caption.

    Raises:
      UserError: for too few pairs, or a side that does not vary.
    """
    if len(paired) < _FEWEST:
        raise UserError(
            f"--pairs: {len(paired)} pairs are too few to find mismatched ones among them; give at "
            f"least {_FEWEST}, or write --mismatched=1 to keep all"
        )
    fold = held_out.folds(paired, FOLDS, seed)
    split = by_fold(paired, fold)
    total = sum((part for _, part in split[1:]), split[0][1])
    check_varies(total)
    rng, fits = np.random.default_rng(seed), {}
    for members, part in split:
        fit = cca(total - part, _L2, power=_POWER)
        number = int(fold[members][0])
        fits[number] = _with_others(paired, fit.text, fit.image, members, rng)
    shares = np.zeros(len(paired), np.float32)
    places = blocks(len(paired), BLOCK)
    for block in track(places, "comparing captions", len(places), f"blocks of {BLOCK}"):
        for number in np.unique(fold[block]):
            rows = block.start + np.flatnonzero(fold[block] == number)
            shares[rows] = _shares(paired, rows, fits[int(number)])
    return shares


def unrelated(shares: Float32[np.ndarray, " n"]) -> float:
    """Estimates which share of pairs have a caption that is not about their image.

    Of these, shares are even over 0 to 1, and of the others few lie in the upper half.

    Example:
      >>> unrelated(np.linspace(0, 1, 101, dtype=np.float32)) > 0.9
      True
      >>> unrelated(np.full(100, 0.1, np.float32))
      0.0

    References:
      Storey, "A Direct Approach to False Discovery Rates", 2002 (section 2, lambda = 1/2).
    """
    return float(min(1.0, 2 * (shares > 0.5).mean())) if len(shares) else 0.0


def _with_others(
    paired: Paired,
    text: Affine,
    image: Affine,
    members: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
) -> _Fold:
    pairs = np.flatnonzero(members[paired.image_index])
    chosen = np.sort(rng.choice(pairs, min(OTHERS, len(pairs)), replace=False))
    texts = np.unique(paired.text_index[chosen])
    images = np.unique(paired.image_index[chosen])
    return _Fold(
        text=text,
        image=image,
        texts=unit(text(paired.text[texts].astype(np.float64))),
        images=unit(image(paired.images(images).mean(axis=1))),
        text_index=texts,
        image_index=images,
    )


def _shares(paired: Paired, rows: Int[np.ndarray, " b"], fit: _Fold) -> Float[np.ndarray, " b"]:
    """The share of each of these images, all of the fold of `fit`."""
    start = np.searchsorted(paired.image_index, rows)
    counts = np.searchsorted(paired.image_index, rows, "right") - start
    first = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(rows)), counts)
    pairs = np.arange(len(owner)) - np.repeat(first, counts) + np.repeat(start, counts)
    texts = paired.text_index[pairs]
    zimg = unit(fit.image(paired.images(rows).mean(axis=1)))
    ztxt = unit(fit.text(paired.text[texts].astype(np.float64)))
    own = (zimg[owner] * ztxt).sum(axis=1)
    # A caption does not stand against itself, nor an image.
    other = fit.text_index != texts[:, None]
    better = ((zimg @ fit.texts.T)[owner] > own[:, None]) & other
    by_text = better.sum(axis=1) / np.maximum(other.sum(axis=1), 1)
    other = fit.image_index != rows[owner, None]
    better = (ztxt @ fit.images.T > own[:, None]) & other
    by_image = better.sum(axis=1) / np.maximum(other.sum(axis=1), 1)
    total = np.bincount(owner, (by_text + by_image) / 2, len(rows))
    return total / np.maximum(counts, 1)
