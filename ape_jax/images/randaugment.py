"""RandAugment (Cubuk et al., arXiv 1909.13719) on PIL operations.

Ranges and signs are those of `torchvision.transforms.RandAugment` with its magnitude 0-30 written
as 0-10, so that (2, 10) is its strongest setting and magnitude 0 is nearly the identity. What
rotation, shear and translation uncover is mid-grey, as in AutoAugment.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 10
_FILL = (128, 128, 128)
# torchvision shifts by up to 150 pixels of ImageNet's 331.
_MAX_SHIFT = 150 / 331

# An operation takes the image, the strength in [0, 1] and a random sign.
Operation = Callable[[Image.Image, float, int], Image.Image]


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BILINEAR,
        fillcolor=_FILL,
    )


def _shear_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    shear = 0.3 * strength * sign
    return _affine(image, (1, shear, -shear * image.height / 2, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    shear = 0.3 * strength * sign
    return _affine(image, (1, 0, 0, shear, 1, -shear * image.width / 2))


def _translate_x(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, sign * int(_MAX_SHIFT * strength * image.width), 0, 1, 0))


def _translate_y(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, sign * int(_MAX_SHIFT * strength * image.height)))


def _rotate(image: Image.Image, strength: float, sign: int) -> Image.Image:
    return image.rotate(30 * strength * sign, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength, sign: kind(image).enhance(1 + 0.9 * strength * sign)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, sign: image,
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "rotate": _rotate,
    "posterize": lambda image, strength, sign: ImageOps.posterize(image, 8 - round(4 * strength)),
    "solarize": lambda image, strength, sign: ImageOps.solarize(image, round(255 * (1 - strength))),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


def randaugment(
    image: UInt8[np.ndarray, "H W 3"], n: int, magnitude: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Applies `n` operations, sampled uniformly with replacement, at a magnitude from 0 to 10."""
    operations = list(OPERATIONS.values())
    chosen = rng.integers(len(operations), size=n)
    signs = rng.integers(2, size=n) * 2 - 1
    out = Image.fromarray(image)
    for index, sign in zip(chosen, signs):
        out = operations[index](out, magnitude / MAX_MAGNITUDE, int(sign))
    return np.asarray(out)
