"""Raw images -> a tower's batch, by its own preprocessor_config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.images.decode import load_image
from ape_jax.images.transforms import ImageTransform
from ape_jax.towers.files.sources import read_json

# What the published towers of a family are used with, for directories without a
# preprocessor_config.json and for .npz files (big_vision: value_range(-1, 1)).
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}


def default_settings(family: str, size: int) -> dict[str, Any]:
    """A preprocessor_config.json for a family whose directory has none.

    Args:
      family: `TowerConfig.family`.
      size: pixels a side that the tower's position table is for.
    """
    if family == "dinov2":
        size = min(size, 224)  # published with crops of 224, though the table is for 518
    exact = {"size": {"height": size, "width": size}, "do_center_crop": False}
    # The published DeiT and DINOv2 recipes resize to 256 and crop 224.
    larger = {
        "size": {"shortest_edge": round(size * 256 / 224)},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
    }
    crop = {**larger, "size": {"shortest_edge": size}}
    bicubic, bilinear = {"resample": 3}, {"resample": 2}
    return {
        "vit": {"image_processor_type": "ViTImageProcessor", **exact, **bilinear, **_HALF},
        "deit": {"image_processor_type": "BitImageProcessor", **larger, **bicubic, **_IMAGENET},
        "dinov2": {"image_processor_type": "BitImageProcessor", **larger, **bicubic, **_IMAGENET},
        "clip": {"image_processor_type": "CLIPImageProcessor", **crop, **bicubic, **_CLIP},
        "siglip": {"image_processor_type": "SiglipImageProcessor", **exact, **bicubic, **_HALF},
    }[family] | _PLAIN


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


def image_prepare(directory: Path | None, config: Any, options: Mapping[str, Any]) -> ImagePrepare:
    """The `prepare` of a vision tower; `options["image_size"]` overrides the file's size."""
    size = options.get("image_size")
    source, settings = "the default preprocessing", None
    if directory is not None:
        for name, section in (
            ("preprocessor_config.json", None),
            ("processor_config.json", "image_processor"),
        ):
            if settings is None and (directory / name).is_file():
                source, settings = str(directory / name), read_json(directory / name)
                settings = settings if section is None else settings.get(section)
    if settings is None:
        settings = default_settings(config.family, config.image_size)
    transform = ImageTransform.from_preprocessor_config(settings, size=size, source=source)
    return ImagePrepare(transform)
