"""Image-text retrieval: recall at 1, 5 and 10 both ways, and the median rank of the right image."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.errors import UserError
from ape_jax.evaluators.ranks import check_embeddings, first_hit_rank

RECALL_AT = (1, 5, 10)


def retrieval_metrics(
    zimg: Float[np.ndarray, "n e"],
    ztxt: Float[np.ndarray, "m e"],
    owner: Integer[np.ndarray, " m"],
) -> dict[str, float]:
    """Recall at k and the median rank, for images with any number of captions each.

    Image to text counts a hit if *any* caption of the image is among the first k captions; text to
    image one hit a caption. An image without captions is a miss, as in clip_benchmark; as a
    distractor it takes part in text to image. With fewer than k candidates all are looked at.

    Ties: candidates of equal score rank by index, the lower first (see `ranks`). clip_benchmark
    takes `torch.topk`, whose order of equal scores is left to C++'s `partial_sort` and
    `nth_element`: it varies with k, with the number of candidates and with the standard library.
    The two agree wherever clip_benchmark's figure does not hang on that order, which is always,
    unless equal scores, some of hits and some of misses, straddle the k-th place. They also agree
    for k = 1 from 64 candidates up, where torch too keeps the first of equals.

    Example:
      >>> zimg = np.eye(2, dtype=np.float32)
      >>> ztxt = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
      >>> metrics = retrieval_metrics(zimg, ztxt, np.array([0, 0, 1]))
      >>> metrics["i2t_r1"], round(metrics["t2i_r1"], 3), metrics["median_rank_t2i"]
      (1.0, 0.667, 1.0)

    Args:
      zimg: image embeddings, float32 [n, e], unit length.
      ztxt: caption embeddings, float32 [m, e], unit length.
      owner: the image that each caption belongs to, integer [m] in [0, n).

    Returns:
      `i2t_r1 i2t_r5 i2t_r10 t2i_r1 t2i_r5 t2i_r10` in [0, 1], and `median_rank_t2i`, 1-based.

    Raises:
      UserError: an array is empty, misshapen or not finite, or an owner is out of range.

    References:
      Karpathy, Fei-Fei, `Deep Visual-Semantic Alignments for Generating Image Descriptions
      <https://arxiv.org/abs/1412.2306>`_, 2015 (section 4.2: recall at k and median rank).
    """
    zimg, ztxt = np.asarray(zimg), np.asarray(ztxt)
    check_embeddings("zimg", zimg)
    check_embeddings("ztxt", ztxt, width=zimg.shape[1])
    owner = _checked_owner(owner, len(zimg), len(ztxt))
    images = np.arange(len(zimg))
    i2t = first_hit_rank(zimg, ztxt, images, owner)
    t2i = first_hit_rank(ztxt, zimg, owner, images)
    # A rank beyond the number of candidates marks an image without captions: a miss for every k.
    metrics = {f"i2t_r{k}": float(np.mean(i2t <= min(k, len(ztxt)))) for k in RECALL_AT}
    metrics |= {f"t2i_r{k}": float(np.mean(t2i <= k)) for k in RECALL_AT}
    return metrics | {"median_rank_t2i": float(np.median(t2i))}


def chance_metrics(n_images: int, owner: Integer[np.ndarray, " m"]) -> dict[str, float]:
    """What `retrieval_metrics` is expected to give when every ranking is uniformly random.

    Of m captions, c belong to an image: its k first ones miss them all with the hypergeometric
    probability C(m - c, k) / C(m, k). A caption finds its one image among n with probability k / n.
    The median rank is symmetric about (n + 1) / 2, which is therefore its mean.

    Example:
      >>> chance = chance_metrics(100, np.arange(100))
      >>> round(chance["i2t_r1"], 6), chance["t2i_r10"], chance["median_rank_t2i"]
      (0.01, 0.1, 50.5)

    Args:
      n_images: number of images n.
      owner: the image that each caption belongs to, integer [m] in [0, n).

    Returns:
      The keys of `retrieval_metrics`.

    Raises:
      UserError: there are no captions, or an owner is out of range.
    """
    owner = np.asarray(owner)
    owner = _checked_owner(owner, n_images, len(owner))
    m = len(owner)
    sizes, images = np.unique(np.bincount(owner, minlength=n_images), return_counts=True)
    metrics = {}
    for k in RECALL_AT:
        miss = [math.comb(m - int(c), min(k, m)) / math.comb(m, min(k, m)) for c in sizes]
        metrics[f"i2t_r{k}"] = float(1 - np.dot(miss, images) / n_images)
    metrics |= {f"t2i_r{k}": min(k, n_images) / n_images for k in RECALL_AT}
    return metrics | {"median_rank_t2i": (n_images + 1) / 2}


def _checked_owner(
    owner: Integer[np.ndarray, " m"], n_images: int, n_captions: int
) -> Integer[np.ndarray, " m"]:
    owner = np.asarray(owner)
    if owner.shape != (n_captions,) or not n_captions or not np.issubdtype(owner.dtype, np.integer):
        raise UserError(
            f"owner has shape {owner.shape} and type {owner.dtype}; it needs one integer, the "
            f"index of an image, for each of the {n_captions} captions (and at least one caption)"
        )
    bad = (owner < 0) | (owner >= n_images)
    if bad.any():
        raise UserError(
            f"owner[{bad.argmax()}] is {owner[bad.argmax()]}; it must name one of the {n_images} "
            f"images, 0 to {n_images - 1}"
        )
    return owner.astype(np.int64)
