"""Images of any shape in one array of one shape: patches in reading order on a square canvas.

NaFlex (SigLIP 2, arXiv 2502.14786) keeps the aspect ratio of an image: it is resized to as many
patches as fit into a given number. Here they lie one after the other in the cells of a canvas, of
which there is one row and one column more than that number needs. The rest is zero, but for the
first pixel of the last cell, which holds how many patches the image has down and across. So one
array is all that a tower needs, and every batch of them has the same shape.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float32, UInt8

from ape_jax.images.transforms import ImageTransform

# Of the search for the largest scale (transformers 5.23, image_processing_pil_siglip2.py).
_STEP, _LARGEST = 1e-5, 100.0


def cells(patches: int) -> int:
    """Cells a side of the canvas for images of at most so many patches.

    >>> cells(256)
    17
    """
    return math.isqrt(patches - 1) + 2


def capacity(side: int) -> int:
    """Patches for which a canvas of so many cells a side has room.

    >>> capacity(17)
    256
    """
    return (side - 1) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedTransform(ImageTransform):
    """Resizes to at most `max_patches` patches, keeping the aspect ratio, normalises and packs.

    Example:
      >>> transform = PackedTransform(size=12, resize_size=12, patch_size=4, max_patches=4)
      >>> packed = transform(np.full((8, 20, 3), 255, np.uint8))
      >>> packed.shape, packed[8, 8].tolist()
      ((12, 12, 3), [1.0, 3.0, 0.0])

    Attributes:
      patch_size: pixels a side of a patch.
      max_patches: of an image.
    """

    patch_size: int
    max_patches: int

    def crop(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Resizes to whole patches; nothing is cropped, values stay 0-255."""
        size = _fitted(*image.shape[:2], self.patch_size, self.max_patches)
        return self.resize_to(image, *size)

    def whole(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """As `crop`."""
        return self.crop(image)

    def normalize(self, image: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "S S 3"]:
        """Normalises an image of whole patches, and puts it on the canvas."""
        size, side = self.patch_size, cells(self.max_patches)
        down, across = (n // size for n in image.shape[:2])
        patches = super().normalize(image).reshape(down, size, across, size, 3)
        packed = np.zeros((side * side, size, size, 3), np.float32)
        packed[: down * across] = patches.swapaxes(1, 2).reshape(-1, size, size, 3)
        packed[-1, 0, 0, :2] = down, across
        canvas = packed.reshape(side, side, size, size, 3).swapaxes(1, 2)
        return np.ascontiguousarray(canvas).reshape(side * size, side * size, 3)


@functools.lru_cache(maxsize=4096)
def _fitted(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The largest height and width in whole patches that hold no more than `most` of them."""

    def at(scale: float) -> tuple[int, int]:
        down, across = (max(math.ceil(n * scale / patch), 1) * patch for n in (height, width))
        return down, across

    low, high = _STEP / 10, _LARGEST
    while high - low >= _STEP:
        middle = (low + high) / 2
        down, across = at(middle)
        fits = down * across <= most * patch**2
        low, high = (middle, high) if fits else (low, middle)
    return at(low)
