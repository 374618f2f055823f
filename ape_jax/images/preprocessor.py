"""Reads `preprocessor_config.json`, with the defaults of the processor class that it names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from PIL import Image

from ape_jax.errors import UserError

# PIL's own numbers (Image.Resampling), which is also what the configuration files hold.
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_HALF = (0.5, 0.5, 0.5)
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
# What a processor class assumes for a key that the file leaves out (transformers 5.23,
# models/*/image_processing_pil_*.py), and whether a bare integer `size` means a square.
_VIT = {
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "image_mean": _HALF,
    "image_std": _HALF,
    "do_center_crop": False,
    "square": True,
}
_CLIP_DEFAULTS = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    **_CLIP,
    "do_center_crop": True,
    "square": False,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": _VIT,
    "DeiT": _VIT
    | {
        "size": {"height": 256, "width": 256},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "do_center_crop": True,
    },
    "Beit": _VIT | {"crop_size": {"height": 224, "width": 224}, "resample": 3},
    "Bit": _CLIP_DEFAULTS,
    "CLIP": _CLIP_DEFAULTS,
    "ChineseCLIP": _CLIP_DEFAULTS,
    "Blip": _VIT | {"size": {"height": 384, "width": 384}, "resample": 3, **_CLIP},
    "Siglip": _VIT | {"resample": 3, "square": False},
    "Tipsv2": _VIT | {"size": {"height": 448, "width": 448}, "do_normalize": False},
    "Pvt": _VIT | {"resample": 3, **_IMAGENET},
    "ConvNext": _VIT
    | {"size": {"shortest_edge": 384}, "crop_pct": 224 / 256, "resample": 3, "square": False},
    "Levit": _CLIP_DEFAULTS | _IMAGENET,
    # Only torchvision-backed in transformers; PIL's resize differs from it by rounding.
    "DINOv3ViT": _VIT | _IMAGENET,
}
_OF_STEPS = (
    "size",
    "crop_size",
    "resample",
    "image_mean",
    "image_std",
    "rescale_factor",
    "crop_pct",
)
# What these resize the shortest edge to, of images that are cropped to less (transformers 5.23).
_LEVIT_EDGE = 256 / 224
_CONVNEXT_WARPS = 384


def has_defaults(processor: str) -> bool:
    """Whether images are prepared as a class of transformers does it, by its name.

    >>> has_defaults("CLIPImageProcessorFast"), has_defaults("YolosImageProcessor")
    (True, False)

    Args:
      processor: name of the class, as `image_processor_type` has it.
    """
    return _plain(processor) in _DEFAULTS


def _plain(processor: str) -> str:
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        processor = processor.removesuffix(suffix)
    return processor


def read_settings(
    config: Mapping[str, Any], size: int | None, source: str, processor: str
) -> dict[str, Any]:
    """Reads the fields of an `ImageTransform`; see `ImageTransform.from_preprocessor_config`."""
    read = _ConfigReader(config, source, processor)
    crop = read.square("crop_size") if read.flag("do_center_crop") else None
    if read.processor == "ConvNext":
        mode, resize_size, crop = read.convnext(crop)
    else:
        mode, resize_size = read.resize(crop)
    if crop is None and mode != "exact":
        found = f"'size' {read.get('size')!r} without 'do_center_crop' leaves images of many shapes"
        raise read.unsupported(found)
    own = crop or resize_size
    if size is not None and size != own:
        resize_size = round(resize_size * size / own)
    normalize = read.flag("do_normalize")
    return dict(
        size=own if size is None else size,
        resize_size=resize_size,
        resize=mode,
        mean=read.triple("image_mean") if normalize else (0.0, 0.0, 0.0),
        std=read.triple("image_std") if normalize else (1.0, 1.0, 1.0),
        interpolation="bilinear" if mode == "none" else read.interpolation(),
        rescale=read.factor() if read.flag("do_rescale") else 1.0,
    )


class _ConfigReader:
    """Typed access to a preprocessor_config.json, with the processor class's own defaults."""

    def __init__(self, config: Mapping[str, Any], source: str, processor: str):
        self._source = source
        if not isinstance(config, Mapping):
            raise self.error(f"found {type(config).__name__}", "a JSON object")
        self._config = config
        both = ("image_processor_type", "feature_extractor_type")
        named = next((config.get(key) for key in both if config.get(key) is not None), processor)
        name = str(named)
        self.processor = _plain(name)
        if self.processor not in _DEFAULTS:
            raise self.unsupported(f"'image_processor_type' {name[:80]!r} is not supported")
        self._defaults = _DEFAULTS[self.processor]
        for key in _OF_STEPS:  # Also those of a step that is off count as read.
            config.get(key)
        if self.get("do_pad"):
            raise self.unsupported("'do_pad' is true, and padding is not supported")

    def error(self, found: str, write: str) -> UserError:
        return UserError(f"{self._source}: {found}; write {write}")

    def unsupported(self, found: str) -> UserError:
        """For right settings, which must not be changed: they are those of the training."""
        return UserError(
            f"{self._source}: {found}; write torch:hf:NAME_OR_DIR in image.tower, so that "
            "transformers prepares the images"
        )

    def get(self, key: str, default: Any = None) -> Any:
        value = self._config.get(key)
        if value is None and key in self._config and key in _OF_STEPS:
            raise self.error(f"{key!r} is null", "its value, or leave the key out for the default")
        return self._defaults.get(key, default) if value is None else value

    def flag(self, key: str) -> bool:
        if key in self._config and self._config[key] is None:
            return False  # As transformers reads null; a key that is absent has its default.
        value = self.get(key, True)
        if not isinstance(value, bool):
            raise self.error(f"{key!r} is {value!r}", "true or false")
        return value

    def _side(self, key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 8192:
            raise self.error(f"{key!r} is {str(value)[:80]}", "pixels, an integer from 1 to 8192")
        return value

    def square(self, key: str) -> int:
        value = self.get(key)
        if isinstance(value, list | tuple) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        if not isinstance(value, Mapping):
            return self._side(key, value)
        if set(value) & {"shortest_edge", "longest_edge", "max_height", "max_width"}:
            raise self.unsupported(f"{key!r} is {str(dict(value))[:80]}, and is not supported")
        if set(value) != {"height", "width"}:
            raise self.error(f"{key!r} is {str(dict(value))[:80]}", "{'height': n, 'width': n}")
        height, width = (self._side(key, value[name]) for name in ("height", "width"))
        if height != width:
            raise self.unsupported(f"{key!r} is {dict(value)!r}, and only squares are supported")
        return height

    def resize(self, crop: int | None) -> tuple[Literal["exact", "shortest", "none"], int]:
        if not self.flag("do_resize"):
            if crop is None:
                found = "'do_resize' and 'do_center_crop' are both false, which leaves many shapes"
                raise self.unsupported(found)
            return "none", crop
        value = self.get("size")
        if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
            return "shortest", self._edge(value["shortest_edge"])
        if isinstance(value, int) and not self._square():
            return "shortest", self._edge(value)
        return "exact", self.square("size")

    def _square(self) -> bool:
        """Whether a bare integer means a square; a file may say so itself."""
        own = self.get("default_to_square")
        return own if isinstance(own, bool) else self._defaults["square"]

    def _edge(self, value: Any) -> int:
        edge = self._side("size", value)
        return int(_LEVIT_EDGE * edge) if self.processor == "Levit" else edge

    def convnext(self, crop: int | None) -> tuple[Literal["exact", "shortest"], int, int | None]:
        """Small images are cropped out of larger ones, large ones are squashed."""
        if not self.flag("do_resize") or crop is not None:
            raise self.unsupported("ConvNextImageProcessor without resizing, or with a crop beside")
        value = self.get("size")
        value = value.get("shortest_edge") if isinstance(value, Mapping) else value
        edge = self._side("size", value)
        if edge >= _CONVNEXT_WARPS:
            return "exact", edge, None
        part = self._number("crop_pct", self.get("crop_pct"))
        if not 0.1 <= part <= 1:
            raise self.error(f"'crop_pct' is {part}", "a number from 0.1 to 1, such as 0.875")
        return "shortest", int(edge / part), edge

    def _number(self, key: str, value: Any) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self.error(f"{key!r} holds {value!r}", "a finite number")
        return float(value)

    def triple(self, key: str) -> tuple[float, float, float]:
        value = self.get(key)
        value = [value] * 3 if isinstance(value, int | float) else value
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise self.error(f"{key!r} is {value!r}", "three numbers, one a channel")
        red, green, blue = (self._number(key, v) for v in value)
        if key == "image_std" and min(red, green, blue) <= 0:
            raise self.error(f"{key!r} is {value!r}", "numbers above 0")
        # Of what pixels are after rescaling; a little more, for what rounding does to 1/255. A std
        # of 1 changes nothing, and goes with a factor of 1/256 too.
        most = max(255.1 * (self.factor() if self.flag("do_rescale") else 1), 1)
        if not 0 <= min(red, green, blue) <= max(red, green, blue) <= most:
            raise self.error(
                f"{key!r} is {value!r}", f"numbers from 0 to {most:.0f}, as pixels are"
            )
        return red, green, blue

    def factor(self) -> float:
        value = self._number("rescale_factor", self.get("rescale_factor", 1 / 255))
        if not 0 < value <= 1:
            raise self.error(f"'rescale_factor' is {value}", "a number above 0, such as 1/255")
        return value

    def interpolation(self) -> str:
        value = self.get("resample")
        for name, number in INTERPOLATIONS.items():
            if value == int(number) and type(value) is int:
                return name
        # Of a name and of 3.0 transformers makes bilinear, whatever they say.
        numbers = "an integer from 0 to 5: 2 for bilinear, 3 for bicubic"
        raise self.error(f"'resample' is {value!r}", numbers)
