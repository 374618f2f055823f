"""The image tower of SigLIP 2 NaFlex (arXiv 2502.14786): images keep their aspect ratio.

`prepare` packs an image's patches (`images/packed.py`), as many at most as `max_num_patches` in
preprocessor_config.json says, or as an image of `image_size` has; the rest is padding, which the
mask hides from attention and pooling. A plain batch [B, H, W, 3] is encoded in the shape that it
has. SigLIP 2 of one image size comes as model_type "siglip", and is read by that family.

`top:K` and 'append' keep hidden states of images without a mask, and are refused; so is an export.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.images.packed import PackedTransform, cells
from ape_jax.images.transforms import ImageTransform
from ape_jax.towers.family import TORCH_ROUTE, Fields
from ape_jax.towers.files import reading
from ape_jax.towers.files.names import Form, Rule
from ape_jax.towers.vision import family
from ape_jax.towers.vision.clip import siglip
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import HALF, ImagePrepare, settings_of, squashed

_MAX_PATCHES = 256  # Of transformers' image processor.
_KEYS = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


def _cut(a: np.ndarray) -> np.ndarray:
    side = math.isqrt(a.shape[1] // 3)
    return a.T.reshape(side, side, 3, -1)


_PATCHES = Form(
    "torch linear on patches [out, h w in]", _cut, lambda a, h: a.reshape(-1, a.shape[-1]).T
)
_KERNEL = "embeddings.patch_embedding.weight"
_NAMES = dataclasses.replace(
    siglip.NAMES,
    rules=(
        *(rule for rule in siglip.NAMES.rules if rule.file != _KERNEL),
        Rule(_KERNEL, "embed/kernel", _PATCHES),
    ),
)


def _parse(fields: Fields) -> ViTConfig:
    head = fields.flag("vision_use_head", True)
    rows = fields.integer("num_patches", _MAX_PATCHES)
    grid = math.isqrt(rows)
    if grid * grid != rows:
        raise fields.unsupported(
            f"'num_patches' is {rows}; only a square position table is supported"
        )
    sizes = family.sizes(fields, patch_size=16, act="gelu_pytorch_tanh")
    return ViTConfig(
        **{**sizes, "image_size": grid * sizes["patch_size"]},
        family="siglip2",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="map" if head else "mean",
        prefix_tokens=0,
        cls=False,
        position_prefix=0,
        antialias=True,
        bilinear=True,
        map_head=head,
        max_patches=_most(fields.directory),
    )


def _most(directory: Path | None) -> int:
    """The largest number of patches by the settings of the image processor."""
    settings, source = settings_of(directory)
    found = (settings or {}).get("max_num_patches", _MAX_PATCHES)
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= 1 << 16:
        raise UserError(
            f"{source}: 'max_num_patches' is {found!r}; write a whole number from 1 to {1 << 16}"
        )
    return found


def _adapt(config: ViTConfig, options: Mapping[str, Any]) -> ViTConfig:
    """As many patches as an image of `image_size` has; the position table stays as it is."""
    size = family.adapt(config, options).image_size
    if options.get("image_size") is None:
        return config
    return dataclasses.replace(config, max_patches=(size // config.patch_size) ** 2)


def _prepare(directory: Path | None, config: ViTConfig, options: Mapping[str, Any]) -> ImagePrepare:
    """Packed images; how they are resized and normalised the directory says."""
    settings, source = settings_of(directory)
    source = source or "the default preprocessing"
    usual = squashed("SiglipImageProcessor", config.image_size, resample=2, **HALF)
    plain = ImageTransform.from_preprocessor_config(
        # All but the size, which this processor computes for each image.
        {**usual, **{k: v for k, v in (settings or {}).items() if k in _KEYS}},
        source=source,
    )
    named = (settings or {}).get("image_processor_type") or "Siglip2ImageProcessor"
    if not str(named).startswith("Siglip2ImageProcessor"):
        raise UserError(
            f"{source}: 'image_processor_type' is {named!r}, and a tower of packed images takes "
            "'Siglip2ImageProcessor'; write that, or torch:hf:NAME_OR_DIR in image.tower"
        )
    for key, own in (("patch_size", config.patch_size), ("do_resize", True)):
        found = (settings or {}).get(key, own)
        if found != own:
            raise UserError(
                f"{source}: {key!r} is {found!r}; only {own!r} is supported; {TORCH_ROUTE}"
            )
    if settings is None and directory is not None:
        reading.assumed(
            f"no preprocessor_config.json; images keep their aspect ratio in at most "
            f"{config.max_patches} patches, with mean 0.5, as for most siglip2 towers"
        )
    side = cells(config.max_patches) * config.patch_size
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    sizes = {"patch_size": config.patch_size, "max_patches": config.max_patches}
    return ImagePrepare(PackedTransform(**{**fields, "size": side, "resize_size": side, **sizes}))


SIGLIP2 = dataclasses.replace(
    siglip.SIGLIP,
    name="siglip2",
    title="SigLIP 2 NaFlex",
    models="google/siglip2-base-patch16-naflex",
    licence="Apache-2.0",
    model_types={"siglip2": "vision_config", "siglip2_vision_model": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=_prepare,
    adapt=_adapt,
    resize=lambda params, old, new: params,
    torch="packs images of any shape, for which no export has a processor",
)
