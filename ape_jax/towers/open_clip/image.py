"""Image towers of open_clip: its own vision transformer, or a trunk of timm."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from ape_jax.errors import UserError
from ape_jax.images.transforms import ImageTransform, Resize
from ape_jax.towers.family import FAMILIES, Fields
from ape_jax.towers.files.names import CONV, NameTable, Rule, Shape, Tensors, fused, linear, norm
from ape_jax.towers.files.sections import Prefixed
from ape_jax.towers.layout import Found
from ape_jax.towers.open_clip.description import Description, activation, norm_eps
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import (
    CLIP_STATISTICS,
    ImagePrepare,
    cropped,
    image_prepare,
    triple,
)
from ape_jax.towers.vision.timm import layout as timm
from ape_jax.towers.vision.timm.description import Description as TimmDescription

TRUNK = "visual.trunk."
_OWN = "visual."
_BLOCK = "transformer.resblocks.{i}"
_MODES: Mapping[str, Resize] = {"shortest": "shortest", "squash": "exact", "longest": "longest"}
BLOCKS = (
    *fused(f"{_BLOCK}.attn.in_proj", joint="_"),
    *linear(f"{_BLOCK}.attn.out_proj", "blocks/attention/out"),
    *norm(f"{_BLOCK}.ln_1", "blocks/norm1"),
    *norm(f"{_BLOCK}.ln_2", "blocks/norm2"),
    *linear(f"{_BLOCK}.mlp.c_fc", "blocks/mlp/fc1"),
    *linear(f"{_BLOCK}.mlp.c_proj", "blocks/mlp/fc2"),
    Rule(f"{_BLOCK}.ls_1.gamma", "blocks/scale1/scale"),
    Rule(f"{_BLOCK}.ls_2.gamma", "blocks/scale2/scale"),
)
"""Names of the blocks of open_clip's own towers."""
NAMES = NameTable(
    rules=(
        Rule("class_embedding", "embed/cls"),
        Rule("positional_embedding", "embed/position"),
        Rule("conv1.weight", "embed/kernel", CONV),
        *norm("ln_pre", "pre_norm"),
        *BLOCKS,
        *norm("ln_post", "norm"),
    ),
    ignore=("proj",),
)


def find(described: Description) -> Found:
    """The image tower of a model.

    Raises:
      UserError: it is of a kind that is not read, or something is said nowhere.
    """
    whole = described.tensors()
    architecture = described.vision.values.get("timm_model_name")
    prepare = partial(_prepare, described)
    if architecture is not None:
        return _trunk(described, Prefixed(whole, TRUNK), prepare)
    tensors = Prefixed(whole, _OWN)
    config = _config(described, tensors.shapes)
    return Found(
        family=FAMILIES[config.family],
        config=config,
        tables=(NAMES,),
        tensors=tensors,
        prepare=prepare,
    )


def _trunk(described: Description, tensors: Tensors, prepare: Any) -> Found:
    fields = described.vision
    size = image_size(described)
    pretrained = Fields({"input_size": [3, size, size]}, fields.label)
    pool = pooling_of_trunk(described)
    found = timm.tower(
        TimmDescription(
            label=fields.label,
            architecture=fields.choice("timm_model_name", [fields.values["timm_model_name"]]),
            args=Fields({}, fields.label),
            pretrained=pretrained,
            pool=pool,
        ),
        tensors,
    )
    return dataclasses.replace(found, prepare=prepare)


def pooling_of_trunk(described: Description) -> str | None:
    """`global_pool` of a trunk of timm; None where its name decides."""
    fields = described.vision
    pool = fields.choice("timm_pool", ("", "avg", "map", "token"), "avg")
    return pool or None


def _config(described: Description, shapes: Mapping[str, Shape]) -> ViTConfig:
    fields = described.vision
    if isinstance(fields.values.get("layers"), list):
        raise fields.error("'layers' is a list, so this is a ResNet, which is not read")
    width = fields.integer("width", 768)
    head = fields.integer("head_width", 64)
    if width % head:
        raise fields.error(f"'head_width' is {head}, which does not divide the width of {width}")
    scaled = any(re.fullmatch(r".*\.ls_1\.gamma", name) for name in shapes)
    config = ViTConfig(
        kind="image",
        family="clip",
        width=width,
        depth=fields.integer("layers", 12),
        heads=width // head,
        mlp_width=int(width * fields.number("mlp_ratio", 4.0)),
        activation=activation(described, fields),
        norm_eps=norm_eps(fields),
        image_size=image_size(described),
        patch_size=fields.integer("patch_size", 16),
        pooling={"tok": "cls", "avg": "mean"}[fields.choice("pool_type", ("tok", "avg"), "tok")],
        prefix_tokens=1,
        antialias=True,
        patch_bias=False,
        layer_scale=scaled,
        pre_norm=not fields.flag("no_ln_pre", False),
        norm_tokens=False,
        norm_pooled=fields.flag("final_ln_after_pool", False),
    )
    # What transformers' CLIP has too is of that family, and is exported as such.
    clip = config.pooling == "cls" and config.pre_norm and not (scaled or config.norm_pooled)
    return config if clip else dataclasses.replace(config, family="open_clip")


def image_size(described: Description) -> int:
    """Pixels a side.

    Raises:
      UserError: images that are not square.
    """
    fields = described.vision
    value = fields.values.get("image_size", 224)
    sides = value if isinstance(value, list) else [value, value]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 8192 for n in sides)
    if len(sides) != 2 or not whole or sides[0] != sides[1]:
        raise fields.error(f"'image_size' is {value!r}; only square images are supported")
    return sides[0]


def _prepare(described: Description, config: Any, options: Mapping[str, Any]) -> ImagePrepare:
    """Images as open_clip prepares them for evaluation, by `preprocess_cfg`."""
    fields = described.preprocessing
    mode = fields.choice("resize_mode", _MODES, "shortest")
    interpolation = fields.choice("interpolation", ("bicubic", "bilinear", "random"), "bicubic")
    fields.choice("mode", ("RGB",), "RGB")
    fields.values.get("size")  # open_clip takes the model's.
    fill = fields.integer("fill_color", 0, minimum=0) if mode == "longest" else 0
    if fill > 255:
        raise fields.error(f"'fill_color' is {fill}; write a number from 0 to 255")
    size = options.get("image_size") or image_size(described)
    if not isinstance(size, int):
        raise UserError(f"image_size is {size!r}; write a whole number of pixels")
    return ImagePrepare(
        ImageTransform(
            size=size,
            resize_size=size,
            resize=_MODES[mode],
            mean=triple(fields, "mean", CLIP_STATISTICS["image_mean"]),
            std=triple(fields, "std", CLIP_STATISTICS["image_std"]),
            interpolation="bicubic" if interpolation == "random" else interpolation,
            rounding="torchvision",
            fill=(fill, fill, fill),
        )
    )


def _no_section(fields: Fields) -> ViTConfig:
    raise fields.error("open_clip's models are described by open_clip_config.json")


OPEN_CLIP = family.declare(
    name="open_clip",
    title="open_clip",
    models="UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B",
    model_types={},
    parse=_no_section,
    tables=(NAMES,),
    prepare=partial(
        image_prepare,
        default=partial(cropped, "CLIPImageProcessor", edge=1, resample=3, **CLIP_STATISTICS),
    ),
    torch="has a class of open_clip, and none of transformers; export with --format jax",
)
