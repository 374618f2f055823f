"""Augmentation of images: RandomResizedCrop, a horizontal flip and RandAugment, in this order."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ape_jax.errors import UserError
from ape_jax.images.randaugment import MAX_MAGNITUDE, randaugment
from ape_jax.images.transforms import Transform

_TRIES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Augmentation of a training image, before the tower's own normalisation.

    Example:
      augment = Augment(crop=(0.2, 1.0), flip=True, randaugment=(2, 7))
      augment(image, np.random.default_rng(0), transform)

    Attributes:
      crop: range of the area of a random crop, as a share of the image; None keeps the tower's own
        resize and centre crop.
      ratio: range of width / height of a crop, sampled log-uniformly.
      flip: whether half of the views are mirrored left to right.
      randaugment: (number of operations, magnitude from 0 to 10).
    """

    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    randaugment: tuple[int, float] | None = None

    def __post_init__(self):
        if self.crop is not None:
            crop = _range("augment.crop", self.crop, "[0.2, 1.0]")
            if crop[1] > 1:
                raise UserError(
                    f"augment.crop: {list(crop)} goes above 1, the whole image; "
                    "write for example [0.2, 1.0]"
                )
            object.__setattr__(self, "crop", crop)
        object.__setattr__(self, "ratio", _range("augment.ratio", self.ratio, "[0.75, 1.33]"))
        if not isinstance(self.flip, bool):
            raise UserError(f"augment.flip: found {self.flip!r}; write true or false")
        if self.randaugment is not None:
            object.__setattr__(self, "randaugment", _check_randaugment(self.randaugment))

    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        rng: np.random.Generator,
        transform: Transform,
    ) -> Float32[np.ndarray, "S S 3"] | UInt8[np.ndarray, "_ _ 3"]:
        """Makes one random view, ready for the tower or for the library that runs it.

        How much of `rng` is used depends on the image; give every view its own generator.
        """
        if self.crop is None:
            view = transform.crop(image)
        else:
            height, width = image.shape[:2]
            top, left, height, width = crop_box(rng, height, width, self.crop, self.ratio)
            # Crop, then resize: the filter must not see beyond the box.
            part = image[top : top + height, left : left + width]
            view = transform.whole(part)
        if self.flip and rng.random() < 0.5:
            view = np.ascontiguousarray(view[:, ::-1])
        if self.randaugment is not None:
            view = randaugment(view, *self.randaugment, rng)
        return transform.normalize(view)


def crop_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Samples a crop as `torchvision.transforms.RandomResizedCrop.get_params` does.

    Tries up to ten times to find a box of a random area and ratio that fits; then takes the largest
    centred box with a ratio within the range.

    Returns:
      (top, left, height, width) in pixels.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        target = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return top, left, h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = min(height, max(1, round(width / ratio[0])))
    elif width / height > ratio[1]:
        w = min(width, max(1, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range(key: str, value: Any, example: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        raise UserError(f"{key}: found {value!r}; write two numbers, for example {example}")
    low, high = float(value[0]), float(value[1])
    if not 0 < low <= high:
        raise UserError(
            f"{key}: {[low, high]} is not a range above 0 with the smaller number first; "
            f"write for example {example}"
        )
    return low, high


def _check_randaugment(value: Any) -> tuple[int, float]:
    key = "augment.randaugment"
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        raise UserError(f"{key}: found {value!r}; write two numbers, for example [2, 7]")
    n, magnitude = value
    if n != int(n) or not 0 <= n <= 16:
        raise UserError(f"{key}: {n} operations are not an integer from 0 to 16; write [2, 7]")
    if not 0 <= magnitude <= MAX_MAGNITUDE:
        raise UserError(f"{key}: the magnitude {magnitude} is outside 0 to 10; write [2, 7]")
    return int(n), magnitude
