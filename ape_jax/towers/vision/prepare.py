"""Raw images -> a tower's batch, by its own preprocessor_config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.images.decode import load_image
from ape_jax.images.transforms import ImageTransform
from ape_jax.towers.files.sources import read_json

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # big_vision: value_range(-1, 1).
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP_STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}


def squashed(processor: str, size: int, **more: Any) -> dict[str, Any]:
    """A preprocessor_config.json that resizes to a square of `size` pixels a side.

    Args:
      processor: transformers' class.
      size: pixels a side.
      **more: further keys, `resample` and the mean and std of channels.
    """
    square = {"size": {"height": size, "width": size}, "do_center_crop": False}
    return {"image_processor_type": processor, **square, **more, **_PLAIN}


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
    return {"image_processor_type": processor, **shortest, **square, **more, **_PLAIN}


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
        settings = default(config.image_size)
    transform = ImageTransform.from_preprocessor_config(settings, size=size, source=source)
    return ImagePrepare(transform)
