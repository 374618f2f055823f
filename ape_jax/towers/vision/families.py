"""The vision families: how their config.json reads.

CLIP: `tokens` at layer -1 are transformers' `last_hidden_state`, which has not passed
`post_layernorm`; `pooled` has (with "cls" it equals transformers' `pooler_output`). SigLIP's own
pooling is "map", transformers' `pooler_output`. The tanh poolers of ViT and DeiT are not used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.nn.layers import ACTIVATIONS
from ape_jax.nn.positions import resize_positions
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.vision.names import (
    CLIP_NAMES,
    DINOV2_NAMES,
    DINOV2_SWIGLU_NAMES,
    SIGLIP_NAMES,
    TIMM_NAMES,
    VIT_NAMES,
)
from ape_jax.towers.vision.prepare import image_prepare
from ape_jax.towers.vision.vit import ViT, ViTConfig


def square(fields: Fields, key: str, default: int) -> int:
    """A size in pixels: a number, or a list of the same number twice."""
    value = fields.values.get(key)
    if isinstance(value, list):
        if len(value) != 2 or value[0] != value[1] or not isinstance(value[0], int):
            raise fields.error(f"{key!r} is {value}; only square towers are supported")
        return value[0]
    return fields.integer(key, default)


def _sizes(fields: Fields, patch_size: int, **defaults: Any) -> dict[str, Any]:
    """The fields that every transformers vision config has, with its defaults."""
    if fields.integer("num_channels", 3) != 3:
        raise fields.error("'num_channels' is not 3; only RGB towers are supported")
    return {
        "kind": "image",
        "width": fields.integer("hidden_size", 768),
        "depth": fields.integer("num_hidden_layers", 12),
        "heads": fields.integer("num_attention_heads", 12),
        "activation": fields.choice("hidden_act", ACTIVATIONS, defaults.get("act", "gelu")),
        "norm_eps": fields.number("layer_norm_eps", defaults.get("eps", 1e-6)),
        "image_size": square(fields, "image_size", 224),
        "patch_size": square(fields, "patch_size", patch_size),
    }


def parse_vit(fields: Fields) -> ViTConfig:
    """google/vit-*: ViTConfig of transformers."""
    return ViTConfig(
        **_sizes(fields, 16, eps=1e-12),
        family="vit",
        mlp_width=fields.integer("intermediate_size", 3072),
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        prefix_tokens=1,
    )


def parse_deit(fields: Fields) -> ViTConfig:
    """facebook/deit-*-distilled-*: two prefix tokens, both with positions.

    The DeiT files without distillation say model_type "vit".
    """
    config = dataclasses.replace(parse_vit(fields), family="deit", distilled=True)
    return dataclasses.replace(config, position_prefix=2, prefix_tokens=2)


def parse_dinov2(fields: Fields) -> ViTConfig:
    """facebook/dinov2-*, with or without registers."""
    with_registers = fields.values.get("model_type") == "dinov2_with_registers"
    registers = fields.integer("num_register_tokens", 4, minimum=0) if with_registers else 0
    sizes = _sizes(fields, 16 if with_registers else 14)
    swiglu = fields.flag("use_swiglu_ffn", False)
    mlp_width = int(sizes["width"] * fields.number("mlp_ratio", 4.0))
    if swiglu:  # two thirds, rounded up to a multiple of 8
        mlp_width = (int(mlp_width * 2 / 3) + 7) // 8 * 8
    return ViTConfig(
        **sizes,
        family="dinov2",
        mlp_width=mlp_width,
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        prefix_tokens=1 + registers,
        registers=registers,
        # Only the registers class of transformers resizes its table with antialiasing.
        antialias=with_registers,
        layer_scale=True,
        swiglu=swiglu,
    )


def parse_clip(fields: Fields) -> ViTConfig:
    """The vision half of openai/clip-vit-*, or a CLIPVisionModel by itself."""
    return ViTConfig(
        **_sizes(fields, 32, eps=1e-5, act="quick_gelu"),
        family="clip",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="cls",
        prefix_tokens=1,
        patch_bias=False,
        pre_norm=True,
        norm_tokens=False,
    )


def parse_siglip(fields: Fields) -> ViTConfig:
    """The vision half of google/siglip-*, or a SiglipVisionModel by itself."""
    head = fields.flag("vision_use_head", True)
    return ViTConfig(
        **_sizes(fields, 16, act="gelu_pytorch_tanh"),
        family="siglip",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="map" if head else "mean",
        prefix_tokens=0,
        cls=False,
        position_prefix=0,
        map_head=head,
    )


def adapt(config: ViTConfig, options: Mapping[str, Any]) -> ViTConfig:
    """Apply `image_size`; refuse what only text towers have."""
    for key in ("max_length", "prefix"):
        if options.get(key) is not None:
            raise UserError(f"{key} is {options[key]!r}, but an image tower has none; leave it out")
    size = options.get("image_size", config.image_size)
    if not isinstance(size, int) or size < config.patch_size:
        raise UserError(
            f"image_size is {size!r}; write a whole number of pixels, "
            f"{config.patch_size} (one patch) or more"
        )
    return dataclasses.replace(config, image_size=size)


def resize(params: dict[str, Any], old: ViTConfig, new: ViTConfig) -> dict[str, Any]:
    """Interpolate the position table from the file's image size to another."""
    embed = dict(params["embed"])
    grid = (new.grid, new.grid)
    position = resize_positions(
        embed["position"], prefix=old.position_prefix, grid=grid, antialias=old.antialias
    )
    embed["position"] = np.asarray(position, embed["position"].dtype)
    return {**params, "embed": embed}


def _family(name: str, model_types: dict, parse: Any, *tables: NameTable) -> Family:
    return Family(
        name=name,
        kind="image",
        model_types=model_types,
        parse=parse,
        module=ViT,
        tables=tables,
        prepare=image_prepare,
        adapt=adapt,
        resize=resize,
    )


VISION: tuple[Family, ...] = (
    _family("vit", {"vit": None}, parse_vit, VIT_NAMES, TIMM_NAMES),
    _family("deit", {"deit": None}, parse_deit, VIT_NAMES),
    _family(
        "dinov2",
        {"dinov2": None, "dinov2_with_registers": None},
        parse_dinov2,
        DINOV2_NAMES,
        DINOV2_SWIGLU_NAMES,
    ),
    _family("clip", {"clip": "vision_config", "clip_vision_model": None}, parse_clip, CLIP_NAMES),
    _family(
        "siglip",
        {"siglip": "vision_config", "siglip_vision_model": None},
        parse_siglip,
        SIGLIP_NAMES,
    ),
)
