"""What a model finds among the images and captions of a data set, in both directions."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.data.pairs import Pairs
from ape_jax.evaluators import tasks
from ape_jax.evaluators.ranks import first_hit_rank

_CAPTIONS = 1200  # Of more, each image gives its first ones.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched:
    """Images and captions, the model's cosines between them, and where the right ones stand.

    Attributes:
      pairs: the n images.
      captions: m texts.
      image_index: the image of each caption, integer [m].
      cosines: of captions (rows) and images, float [m, n].
      caption_ranks: the place of each caption's own image among the images, from 1, integer [m].
      image_ranks: the place of each image's best own caption among the captions, integer [n].
    """

    pairs: Pairs
    captions: list[str]
    image_index: Integer[np.ndarray, " m"]
    cosines: Float[np.ndarray, "m n"]
    caption_ranks: Integer[np.ndarray, " m"]
    image_ranks: Integer[np.ndarray, " n"]

    def best_images(self, caption: int, count: int) -> list[int]:
        """Indices of the images that a caption finds first."""
        return [int(i) for i in np.argsort(-self.cosines[caption], kind="stable")[:count]]

    def best_captions(self, image: int, count: int) -> list[int]:
        """Indices of the captions that an image finds first."""
        return [int(i) for i in np.argsort(-self.cosines[:, image], kind="stable")[:count]]

    def own_caption(self, image: int) -> int:
        """The index of an image's own caption of the highest cosine."""
        own = np.flatnonzero(self.image_index == image)
        return int(own[self.cosines[own, image].argmax()])

    def is_right(self, caption: int, image: int) -> bool:
        """Whether an image is a caption's own, or another image has the very same caption."""
        if self.image_index[caption] == image:
            return True
        return self.captions[caption] in self.pairs[image].captions


def sample(pairs: Pairs, count: int) -> Pairs:
    """Up to `count` records, evenly spaced."""
    indices = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int)
    return pairs.take(indices)


def search(encoder: tasks.Encoder, pairs: Pairs) -> Searched:
    """Compares all images with all captions, or where there are many with the first of each.

    Args:
      encoder: the model.
      pairs: what is searched.

    Raises:
      UserError: for an image that cannot be read.
    """
    each = max(1, _CAPTIONS // len(pairs))
    texts = [pair.captions[:each] for pair in pairs]
    image_index = np.repeat(np.arange(len(pairs)), [len(some) for some in texts])
    captions = [text for some in texts for text in some]
    zimg = encoder.encode_image([pair.image for pair in pairs])
    ztxt = encoder.encode_text(captions)
    images = np.arange(len(pairs))
    return Searched(
        pairs=pairs,
        captions=captions,
        image_index=image_index,
        cosines=ztxt @ zimg.T,
        caption_ranks=first_hit_rank(ztxt, zimg, image_index, images),
        image_ranks=first_hit_rank(zimg, ztxt, images, image_index),
    )


def spaced(count: int, shown: int) -> list[int]:
    """Up to `shown` of `count` indices, evenly spaced.

    Example:
      >>> spaced(10, 3)
      [0, 4, 9]
    """
    return sorted({int(i) for i in np.linspace(0, count - 1, min(shown, count))})
