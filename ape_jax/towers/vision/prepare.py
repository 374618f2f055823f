"""Raw images -> a tower's batch, by its own preprocessor_config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.images.decode import load_image
from ape_jax.images.transforms import ImageTransform
from ape_jax.towers.family import Fields
from ape_jax.towers.files import reading
from ape_jax.towers.files.sources import is_there, read_json

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # big_vision: value_range(-1, 1).
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP_STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
PROCESSORS: Mapping[str, str] = {
    "aimv2": "CLIP",
    "aimv2_vision_model": "CLIP",
    "altclip": "CLIP",
    "beit": "Beit",
    "blip": "Blip",
    "chinese_clip": "ChineseCLIP",
    "clip": "CLIP",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "data2vec-vision": "Beit",
    "deit": "DeiT",
    "dinov2": "Bit",
    "dinov3_vit": "DINOv3ViT",
    "hiera": "Bit",
    "ijepa": "ViT",
    "levit": "Levit",
    "metaclip_2": "CLIP",
    "mlcd": "CLIP",
    "pixio": "Bit",
    "pvt": "Pvt",
    "pvt_v2": "Pvt",
    "siglip": "Siglip",
    "siglip2": "Siglip2",
    "swin": "ViT",
    "swinv2": "ViT",
    "tipsv2": "Tipsv2",
    "vit": "ViT",
    "vit_mae": "ViT",
    "vit_msn": "ViT",
}
"""Transformers' image processors by `model_type`, for settings that do not name theirs."""
_PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}


def squashed(processor: str, size: int, **more: Any) -> dict[str, Any]:
    """A preprocessor_config.json that resizes to a square of `size` pixels a side.

    Args:
      processor: transformers' class.
      size: pixels a side.
      **more: further keys, `resample` and the mean and std of channels.
    """
    square = {"size": {"height": size, "width": size}, "do_center_crop": False}
    return {"image_processor_type": processor, **square, **_PLAIN, **more}


def cropped(processor: str, size: int, *, edge: float, **more: Any) -> dict[str, Any]:
    """A preprocessor_config.json that resizes the shortest edge and crops the centre.

    Args:
      processor: transformers' class.
      size: pixels a side of the crop.
      edge: the shortest edge by that of the crop.
      **more: as for `squashed`.
    """
    square = {"do_center_crop": True, "crop_size": {"height": size, "width": size}}
    shortest = {"size": {"shortest_edge": round(size * edge)}}
    return {"image_processor_type": processor, **shortest, **square, **_PLAIN, **more}


@dataclasses.dataclass(frozen=True)
class ImagePrepare:
    """Images -> {"image": f32 [B, S, S, 3]}.

    Attributes:
      transform: what turns one decoded image into the tower's input.
    """

    transform: ImageTransform

    def __call__(self, images: Any) -> dict[str, Float32[np.ndarray, "B S S 3"]]:
        """Decode, resize and normalise; each image is a path, bytes, PIL image or uint8 array."""
        if isinstance(images, str | bytes | Path) or not isinstance(images, Iterable):
            raise UserError(f"prepare takes a list of images, found one {type(images).__name__}")
        size = self.transform.size
        done = [self.transform(load_image(image)) for image in images]
        empty = np.zeros((0, size, size, 3), np.float32)
        return {"image": np.stack(done) if done else empty}


def image_prepare(
    directory: Path | None,
    config: Any,
    options: Mapping[str, Any],
    *,
    default: Callable[[int], dict[str, Any]],
) -> ImagePrepare:
    """The `prepare` of a vision tower; `options["image_size"]` overrides the file's size.

    Args:
      directory: of the tower; None for an .npz.
      config: of the tower.
      options: of `towers.load`.
      default: (pixels a side of the tower's position table) -> the preprocessor_config.json that
        the published towers of the family are used with, where the directory has none.
    """
    size = options.get("image_size")
    usual = default(config.image_size)
    settings, source = settings_of(directory)
    if settings is None:
        settings, source = usual, "the default preprocessing"
    transform = ImageTransform.from_preprocessor_config(
        settings, size=size, source=source, processor=_processor(directory, settings, usual)
    )
    if settings is usual and directory is not None:
        reading.assumed(f"no preprocessor_config.json; {_described(transform, config.family)}")
    return ImagePrepare(transform)


def settings_of(directory: Path | None) -> tuple[dict[str, Any] | None, str]:
    """The settings in a directory and where they are from, in the order of transformers."""
    if directory is None:
        return None, ""
    nested, own = directory / "processor_config.json", directory / "preprocessor_config.json"
    if is_there(nested):
        section = read_json(nested).get("image_processor")
        if isinstance(section, dict):
            return section, f"{nested}, section 'image_processor'"
        reading.whole(nested)  # Of what joins images and text, which no tower needs.
    return (read_json(own), str(own)) if is_there(own) else (None, "")


def _processor(
    directory: Path | None, settings: Mapping[str, Any], usual: Mapping[str, Any]
) -> str:
    """The image processor that the settings are for, where they name none."""
    both = ("image_processor_type", "feature_extractor_type")
    named = next((settings.get(key) for key in both if settings.get(key) is not None), None)
    if named is not None or directory is None or not is_there(directory / "config.json"):
        return str(usual["image_processor_type"] if named is None else named)
    config = read_json(directory / "config.json")
    if isinstance(config.get("image_processor_type"), str):
        return config["image_processor_type"]
    for section in (config, config.get("vision_config")):
        model_type = section.get("model_type") if isinstance(section, Mapping) else None
        if isinstance(model_type, str) and model_type in PROCESSORS:
            return f"{PROCESSORS[model_type]}ImageProcessor"
    processor = str(usual["image_processor_type"])
    reading.assumed(f"preprocessor_config.json names no image_processor_type; {processor} is taken")
    return processor


def _described(transform: ImageTransform, family: str) -> str:
    """How images are prepared where no file says it."""
    size, edge = transform.size, transform.resize_size
    how = {
        "exact": f"squashed to {edge} x {edge} pixels",
        "shortest": f"resized to a shortest edge of {edge} pixels",
        "none": "not resized",
    }[transform.resize]
    crop = f", cropped to {size} x {size}" if (transform.resize, edge) != ("exact", size) else ""
    mean = ", ".join(f"{m:.3g}" for m in transform.mean)
    return (
        f"images are {how}{crop}, with mean {mean}, as for most {family} towers; add the file of "
        "the published model where this one is another"
    )


def triple(fields: Fields, key: str, default: list[float]) -> tuple[float, float, float]:
    """Three numbers from 0 to 1, one a channel; one stands for all. For `std` they are above 0.

    A key that is left out has the default of the library that wrote the file; so has null, which is
    said.
    """
    value = fields.values.get(key, default)
    if value is None:
        reading.assumed(f"{fields.label}: {key!r} is null, so that {default} is taken")
        value = default
    value = [value] * 3 if isinstance(value, int | float) else value
    value = list(value) * 3 if isinstance(value, list | tuple) and len(value) == 1 else value
    numbers = isinstance(value, list | tuple) and all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in value
    )
    if not numbers or len(value) != 3:
        raise fields.error(f"{key!r} is {value!r}; write three numbers, one a channel")
    if not 0 <= min(value) <= max(value) <= 1:
        raise fields.error(f"{key!r} is {value!r}; write numbers from 0 to 1, as pixels are")
    red, green, blue = (float(n) for n in value)
    if key == "std" and min(red, green, blue) <= 0:
        raise fields.error(f"{key!r} is {value!r}; write numbers above 0")
    return red, green, blue
