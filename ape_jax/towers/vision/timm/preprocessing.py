"""Images as `timm.data.create_transform` prepares them for evaluation, by `pretrained_cfg`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ape_jax.errors import UserError
from ape_jax.images.preprocessor import INTERPOLATIONS
from ape_jax.images.transforms import ImageTransform, Resize
from ape_jax.towers.family import Fields
from ape_jax.towers.vision.prepare import IMAGENET, ImagePrepare, triple
from ape_jax.towers.vision.timm.description import Description

_CROP = 0.875  # timm's, of the edge, where a file says none.
_MODES: Mapping[str, Resize] = {"center": "shortest", "squash": "exact", "border": "longest"}


def input_size(description: Description) -> int:
    """Pixels a side that images are made with, where no option says otherwise.

    Raises:
      UserError: images that are not square, or not RGB.
    """
    args, pretrained = description.args, description.pretrained
    resizable = args.flag("dynamic_img_size", False) or not args.flag("strict_img_size", True)
    fixed = pretrained.flag("fixed_input_size", False) and not resizable
    value = pretrained.values.get("input_size", [3, 224, 224])
    if fixed and args.values.get("img_size") is not None:
        return _side(args, "img_size", args.values["img_size"])
    if not isinstance(value, list | tuple) or len(value) != 3 or value[0] != 3:
        raise pretrained.error(f"'input_size' is {value!r}; write [3, height, width]")
    return _side(pretrained, "input_size", list(value[1:]))


def _side(fields: Fields, key: str, value: Any) -> int:
    sides = value if isinstance(value, list | tuple) else [value, value]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 8192 for n in sides)
    if len(sides) != 2 or not whole or sides[0] != sides[1]:
        raise fields.error(f"{key!r} is {value!r}; only square images are supported")
    return sides[0]


def transform(description: Description, size: int) -> ImageTransform:
    """The transform for evaluation.

    Args:
      description: of the model.
      size: pixels a side.

    Raises:
      UserError: a key of the wrong form.
    """
    fields = description.pretrained
    crop = fields.number("crop_pct", _CROP) or _CROP
    if not 0.05 <= crop <= 20:
        raise fields.error(f"'crop_pct' is {crop}; write the part of the edge that is kept")
    mode = fields.choice("crop_mode", _MODES, "center")
    mean = triple(fields, "mean", IMAGENET["image_mean"])
    std = triple(fields, "std", IMAGENET["image_std"])
    red, green, blue = (min(max(round(255 * value), 0), 255) for value in mean)
    return ImageTransform(
        size=size,
        resize_size=max(math.floor(size / crop), 1),
        resize=_MODES[mode],
        mean=mean,
        std=std,
        interpolation=fields.choice("interpolation", INTERPOLATIONS, "bicubic"),
        rounding="torchvision",
        fill=(red, green, blue) if mode == "border" else (0, 0, 0),
    )


def prepare(description: Description, config: Any, options: Mapping[str, Any]) -> ImagePrepare:
    """The `prepare` of a tower; `options["image_size"]` overrides the file's size."""
    size = options.get("image_size", input_size(description))
    if not isinstance(size, int):
        raise UserError(f"image_size is {size!r}; write a whole number of pixels")
    return ImagePrepare(transform(description, size))
