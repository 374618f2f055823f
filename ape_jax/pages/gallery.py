"""Gallery of the images that a model retrieves for a few captions of a data set."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from ape_jax.data.pairs import Pairs
from ape_jax.evaluators import tasks
from ape_jax.evaluators.ranks import first_hit_rank
from ape_jax.images.decode import load_image
from ape_jax.pages import html

_SHOWN = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a caption finds among some images.

    Attributes:
      text: the caption.
      rank: of the caption's own image, from 1.
      best: indices of the best images, the best first.
      cosines: of those.
      own: the index of the caption's own image.
    """

    text: str
    rank: int
    best: list[int]
    cosines: list[float]
    own: int


def sample(pairs: Pairs, count: int) -> Pairs:
    """Up to `count` records, evenly spaced."""
    indices = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int)
    return Pairs([pairs[i] for i in indices], pairs.spec)


def search(encoder: tasks.Encoder, pairs: Pairs, queries: int) -> list[Found]:
    """Looks for the first captions of evenly spaced records, among the images of all of them.

    Args:
      encoder: the model.
      pairs: what is searched.
      queries: how many captions to look for, at most.

    Returns:
      One entry a caption.
    """
    zimg = encoder.encode_image([pair.image for pair in pairs])
    image_index = np.linspace(0, len(pairs) - 1, min(queries, len(pairs))).astype(int)
    texts = [pairs[i].captions[0] for i in image_index]
    return _found(encoder.encode_text(texts), zimg, texts, image_index)


def _found(
    ztxt: Float[np.ndarray, "q e"],
    zimg: Float[np.ndarray, "n e"],
    texts: list[str],
    own: np.ndarray,
) -> list[Found]:
    scores = ztxt @ zimg.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_SHOWN]
    ranks = first_hit_rank(ztxt, zimg, own, np.arange(len(zimg)))
    return [
        Found(
            text=text,
            rank=int(rank),
            best=[int(index) for index in indices],
            cosines=[float(row[index]) for index in indices],
            own=int(own_index),
        )
        for text, own_index, rank, indices, row in zip(texts, own, ranks, best, scores)
    ]


def gallery(found: list[Found], pairs: Pairs, background: tuple[int, int, int]) -> str:
    """A line a caption: its best images as thumbnails, its own one framed.

    Args:
      found: what was found in `pairs`.
      pairs: where it was looked for.
      background: RGB under transparent pixels.
    """
    lines = []
    for entry in found:
        pictures = [
            html.picture(
                load_image(pairs[index].image, background=background),
                f"{pairs[index].captions[0]} ({cosine:.2f})",
                right=index == entry.own,
            )
            for index, cosine in zip(entry.best, entry.cosines)
        ]
        note = f"its image is in place {entry.rank} of {len(pairs)}"
        lines.append(html.query(entry.text, note, pictures))
    return "\n".join(lines)
