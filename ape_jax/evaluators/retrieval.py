"""Image-text retrieval: recall at 1, 5 and 10 both ways, and the median rank of the right image."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Integer

from ape_jax import arguments
from ape_jax.errors import UserError, whole_number
from ape_jax.evaluators.ranks import check_embeddings, first_hit_rank

RECALL_AT = (1, 5, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """The 1-based rank of the first hit of every query, both ways.

    Attributes:
      i2t: rank of each image's best caption among m, int64 [n]; m + 1 for one without captions.
      t2i: rank of each caption's image among n, int64 [m].
      image_index: the image of each caption, int64 [m].
    """

    i2t: Integer[np.ndarray, " n"]
    t2i: Integer[np.ndarray, " m"]
    image_index: Integer[np.ndarray, " m"]

    def metrics(self) -> dict[str, float]:
        """The metrics of these ranks; see `retrieval_metrics`."""
        # A rank beyond the number of candidates marks an image without captions: always a miss.
        metrics = {
            f"i2t_r{k}": float(np.mean(self.i2t <= min(k, len(self.t2i)))) for k in RECALL_AT
        }
        metrics |= {f"t2i_r{k}": float(np.mean(self.t2i <= k)) for k in RECALL_AT}
        return metrics | {"median_rank_t2i": float(np.median(self.t2i))}


def retrieval_metrics(
    zimg: Float[np.ndarray, "n e"],
    ztxt: Float[np.ndarray, "m e"],
    image_index: Integer[np.ndarray, " m"],
) -> dict[str, float]:
    """Computes recall at k and the median rank, for images with any number of captions.

    Image to text has one query per image, and a hit if *any* of its captions is among the first k.
    Text to image has one query per caption. An image without captions is a miss, as in
    clip_benchmark, and a distractor in text to image. With fewer than k candidates all count.

    Ties: candidates of equal score rank by index, the lower first (see `ranks`). clip_benchmark
    uses `torch.topk`, whose order of equal scores is left to C++'s `partial_sort` and
    `nth_element`: it varies with k, with the number of candidates and with the standard library.
    The results differ only if equal scores of hits and misses straddle rank k; for k = 1 they agree
    from 64 candidates up, where torch also keeps the first of equal scores.

    Example:
      >>> import numpy as np
      >>> zimg = np.eye(2, dtype=np.float32)
      >>> ztxt = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
      >>> metrics = retrieval_metrics(zimg, ztxt, np.array([0, 0, 1]))
      >>> metrics["i2t_r1"], round(metrics["t2i_r1"], 3), metrics["median_rank_t2i"]
      (1.0, 0.667, 1.0)

    Args:
      zimg: image embeddings of unit length, float32 [n, e].
      ztxt: caption embeddings of unit length, float32 [m, e].
      image_index: the image of each caption, integer [m] in [0, n).

    Returns:
      `i2t_r1 i2t_r5 i2t_r10 t2i_r1 t2i_r5 t2i_r10` in [0, 1], and `median_rank_t2i`, 1-based.

    Raises:
      UserError: if an array is empty, misshapen or not finite, or an index is out of range.

    References:
      Karpathy, Fei-Fei, `Deep Visual-Semantic Alignments for Generating Image Descriptions
      <https://arxiv.org/abs/1412.2306>`_, 2015 (section 4.2: recall at k and median rank).
    """
    return retrieval_ranks(zimg, ztxt, image_index).metrics()


def retrieval_ranks(
    zimg: Float[np.ndarray, "n e"],
    ztxt: Float[np.ndarray, "m e"],
    image_index: Integer[np.ndarray, " m"],
) -> Ranks:
    """Computes the ranks that `retrieval_metrics` sums up; same arguments.

    Example:
      >>> import numpy as np
      >>> zimg = np.eye(2, dtype=np.float32)
      >>> ztxt = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
      >>> ranks = retrieval_ranks(zimg, ztxt, np.array([0, 0, 1]))
      >>> ranks.i2t.tolist(), ranks.t2i.tolist()
      ([1, 1], [1, 2, 1])

    Args:
      zimg: image embeddings of unit length, float32 [n, e].
      ztxt: caption embeddings of unit length, float32 [m, e].
      image_index: the image of each caption, integer [m] in [0, n).

    Raises:
      UserError: if an array is empty, misshapen or not finite, or an index is out of range.
    """
    zimg = check_embeddings("zimg", zimg)
    ztxt = check_embeddings("ztxt", ztxt, width=zimg.shape[1])
    image_index = _checked_index(image_index, len(zimg), len(ztxt))
    images = np.arange(len(zimg))
    return Ranks(
        i2t=first_hit_rank(zimg, ztxt, images, image_index),
        t2i=first_hit_rank(ztxt, zimg, image_index, images),
        image_index=image_index,
    )


def chance_metrics(n_images: int, image_index: Integer[np.ndarray, " m"]) -> dict[str, float]:
    """Expected value of `retrieval_metrics` when every ranking is uniformly random.

    For an image with c of the m captions, the first k ranks miss all of them with the
    hypergeometric probability C(m - c, k) / C(m, k). A caption finds its image among n with
    probability k / n. The median rank is distributed symmetrically about (n + 1) / 2, its mean.

    Example:
      >>> import numpy as np
      >>> chance = chance_metrics(100, np.arange(100))
      >>> round(chance["i2t_r1"], 6), chance["t2i_r10"], chance["median_rank_t2i"]
      (0.01, 0.1, 50.5)

    Args:
      n_images: number of images n.
      image_index: the image of each caption, integer [m] in [0, n).

    Returns:
      The keys of `retrieval_metrics`.

    Raises:
      UserError: if there are no captions, or an index is out of range.
    """
    n_images = whole_number(n_images, "n_images")
    image_index = arguments.real_array(image_index, "image_index")
    image_index = _checked_index(image_index, n_images, image_index.size)
    m = len(image_index)
    sizes, images = np.unique(np.bincount(image_index, minlength=n_images), return_counts=True)
    metrics = {}
    for k in RECALL_AT:
        miss = [math.comb(m - int(c), min(k, m)) / math.comb(m, min(k, m)) for c in sizes]
        metrics[f"i2t_r{k}"] = float(1 - np.dot(miss, images) / n_images)
    metrics |= {f"t2i_r{k}": min(k, n_images) / n_images for k in RECALL_AT}
    return metrics | {"median_rank_t2i": (n_images + 1) / 2}


def _checked_index(
    image_index: Integer[np.ndarray, " m"], n_images: int, n_captions: int
) -> Integer[np.ndarray, " m"]:
    index = arguments.real_array(image_index, "image_index")
    if index.shape != (n_captions,) or not n_captions or not np.issubdtype(index.dtype, np.integer):
        raise UserError(
            f"image_index has shape {index.shape} and type {index.dtype}; it needs the "
            f"integer index of an image for each of the {n_captions} captions, and at least one"
        )
    bad = (index < 0) | (index >= n_images)
    if bad.any():
        raise UserError(
            f"image_index[{bad.argmax()}] is {index[bad.argmax()]}; it must name one of the "
            f"{n_images} images, 0 to {n_images - 1}"
        )
    return index.astype(np.int64)
