"""Turns a decoded image into a tower's input, as the tower's files say.

`ImageTransform` computes what the PIL-backed image processor of Hugging Face `transformers` does
with the same `preprocessor_config.json`, bit for bit, without importing it. (The torchvision-backed
"fast" processors resize differently, by up to a few levels of 255.) With `rounding="torchvision"`
it computes what timm's and open_clip's transforms for evaluation do with a Pillow image.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from ape_jax.errors import UserError
from ape_jax.images.preprocessor import INTERPOLATIONS, read_settings

Resize = Literal["exact", "shortest", "longest", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """Resizes, crops at the centre, rescales and normalises as the tower's image processor does.

    Example:
      >>> ImageTransform(size=4, resize_size=4)(np.full((9, 9, 3), 255, np.uint8))[0, 0]
      array([1., 1., 1.], dtype=float32)

    Attributes:
      size: side of the square that comes out.
      resize_size: side (`exact`), shortest edge (`shortest`) or longest edge (`longest`) before
        the centre crop to `size`.
      resize: `exact` (to a square, changing the aspect ratio), `shortest`, `longest`, or `none`.
      mean, std: per channel, applied after `rescale`.
      interpolation: a PIL filter; reducing filters widen with the factor (antialiased).
      rescale: what the 0-255 values are multiplied with.
      rounding: the library whose centre crop this is: where a margin is odd, they differ by a
        pixel.
      fill: what an image that is smaller than the crop is padded with, a channel each.
    """

    size: int
    resize_size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Resize = "exact"
    interpolation: str = "bilinear"
    rescale: float = 1 / 255
    rounding: Literal["transformers", "torchvision"] = "transformers"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self):
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if self.size < 1 or self.resize_size < 1:
            raise UserError(
                f"Image size must be at least 1, found size {self.size} and resize_size "
                f"{self.resize_size}; write for example 224"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f"Image interpolation {self.interpolation!r} is unknown; write one of "
                f"{', '.join(INTERPOLATIONS)}"
            )

    @classmethod
    def from_preprocessor_config(
        cls,
        config: Mapping[str, Any],
        *,
        size: int | None = None,
        source: str = "preprocessor_config.json",
        processor: str = "ViTImageProcessor",
    ) -> ImageTransform:
        """Reads the settings of an image processor of transformers.

        Args:
          config: the parsed `preprocessor_config.json`.
          size: another input size; the resize before the crop is scaled with it.
          source: the file to name in messages.
          processor: transformers' class, where the file names none.

        Raises:
          UserError: an unknown processor class, a key of the wrong form, or settings whose output
            is not one square size for every image.
        """
        return cls(**read_settings(config, size, source, processor))

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "S S 3"]:
        """Computes the tower's input from one decoded image."""
        return self.normalize(self.crop(image))

    def crop(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """Resizes and crops at the centre (padded where it is smaller); values stay 0-255."""
        height, width = image.shape[:2]
        if self.resize == "exact":
            image = self.resize_to(image, self.resize_size, self.resize_size)
        elif self.resize == "shortest":
            # int(), not round(): transformers.image_transforms.get_resize_output_image_size.
            long = int(self.resize_size * max(height, width) / min(height, width))
            tall = height >= width
            image = self.resize_to(
                image, long if tall else self.resize_size, self.resize_size if tall else long
            )
        elif self.resize == "longest":
            ratio = max(height / self.resize_size, width / self.resize_size)
            image = self.resize_to(image, round(height / ratio), round(width / ratio))
        if self.rounding == "torchvision":
            return _center_crop_of_torchvision(image, self.size, self.fill)
        return _center_crop(image, self.size)

    def whole(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """Resizes to the tower's input size, changing the aspect ratio and cropping nothing."""
        return self.resize_to(image, self.size, self.size)

    def resize_to(
        self, image: UInt8[np.ndarray, "H W 3"], height: int, width: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Resizes with this transform's filter."""
        if image.shape[:2] == (height, width):
            return image
        resample = INTERPOLATIONS[self.interpolation]
        return np.asarray(Image.fromarray(image).resize((width, height), resample=resample))

    def normalize(self, image: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
        """Computes `(image * rescale - mean) / std` by table, exactly and fast."""
        table = _normalize_table(self.rescale, self.mean, self.std)
        out = np.empty(image.shape, np.float32)
        for c in range(3):
            np.take(table[c], image[..., c], out=out[..., c])
        return out


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsDecoded:
    """Leaves a decoded image as it is, for a tower whose own library prepares it.

    Augmentation works on it as on an `ImageTransform`: it changes the image before the library's
    preparation, and a crop stays as many pixels as it has.

    Example:
      >>> AsDecoded()(np.zeros((3, 5, 3), np.uint8)).shape
      (3, 5, 3)

    Attributes:
      size: side of a usual image, from which follows how many may wait in memory.
    """

    size: int = 512

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The image itself."""
        return image

    def crop(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The image itself."""
        return image

    def whole(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The image itself: the library resizes it."""
        return image

    def normalize(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The image itself."""
        return image


Transform = ImageTransform | AsDecoded
"""What turns one decoded image into the input of a tower, or of the library that runs it."""


@functools.cache
def _normalize_table(
    rescale: float, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float32[np.ndarray, "3 256"]:
    # transformers rescales in f64, rounds to f32 and normalises in f32; so do we, once per level.
    levels = (np.arange(256, dtype=np.float64) * rescale).astype(np.float32)
    return (levels - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]


def _center_crop(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The crop of transformers.image_transforms.center_crop, its rounding of odd pads included."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if height < size or width < size:
        big = np.zeros((max(height, size), max(width, size), 3), np.uint8)
        top, left = math.ceil((big.shape[0] - height) / 2), math.ceil((big.shape[1] - width) / 2)
        big[top : top + height, left : left + width] = image
        # Offsets of the reference: floor((H - S) / 2) of the small image, moved by the pad.
        top, left = (height - size) // 2 + top, (width - size) // 2 + left
        return big[max(0, top) : top + size, max(0, left) : left + size]
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def _center_crop_of_torchvision(
    image: UInt8[np.ndarray, "H W 3"], size: int, fill: tuple[int, int, int]
) -> UInt8[np.ndarray, "S S 3"]:
    """The crop of torchvision.transforms.functional.center_crop, and of timm's CenterCropOrPad."""
    missing = [max(size - n, 0) for n in image.shape[:2]]
    if any(missing):
        (above, below), (left, right) = ((n // 2, (n + 1) // 2) for n in missing)
        height, width = image.shape[0] + above + below, image.shape[1] + left + right
        big = np.full((height, width, 3), fill, np.uint8)
        big[above : height - below, left : width - right] = image
        image = big
    # A half is rounded to the even number.
    top, left = (round((n - size) / 2) for n in image.shape[:2])
    return image[top : top + size, left : left + size]
