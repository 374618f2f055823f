"""Common parts of vision families: config keys, names, load options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from ape_jax.errors import UserError
from ape_jax.nn.positions import resize_positions
from ape_jax.towers.family import NORMS, Family, Fields
from ape_jax.towers.files.names import CONV, LEAD1, LEAD11, Rule, linear, norm
from ape_jax.towers.tower import TowerConfig
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.transformer import ViT


def declare(**declared: Any) -> Family:
    """A family whose module is `ViT`."""
    common = {"module": ViT, "adapt": adapt, "resize": resize, "adapters": NORMS}
    return Family(kind="image", **{**common, **declared})


# Transformers' names. Files have had them since transformers 4, and transformers 5 still writes
# them, whatever it calls the modules in memory.
EMBED = (
    Rule("embeddings.cls_token", "embed/cls", LEAD11),
    Rule("embeddings.distillation_token", "embed/distillation", LEAD11),
    Rule("embeddings.register_tokens", "embed/registers", LEAD1),
    Rule("embeddings.position_embeddings", "embed/position", LEAD1),
    Rule("embeddings.patch_embeddings.projection.weight", "embed/kernel", CONV),
    Rule("embeddings.patch_embeddings.projection.bias", "embed/bias"),
)
BLOCK = "encoder.layer.{i}"
ATTENTION = (
    *linear(f"{BLOCK}.attention.attention.query", "blocks/attention/query"),
    *linear(f"{BLOCK}.attention.attention.key", "blocks/attention/key"),
    *linear(f"{BLOCK}.attention.attention.value", "blocks/attention/value"),
    *linear(f"{BLOCK}.attention.output.dense", "blocks/attention/out"),
)
# CLIP's and SigLIP's, of both towers.
_LAYER = "encoder.layers.{i}"
CLIP_BLOCKS = (
    *linear(f"{_LAYER}.self_attn.q_proj", "blocks/attention/query"),
    *linear(f"{_LAYER}.self_attn.k_proj", "blocks/attention/key"),
    *linear(f"{_LAYER}.self_attn.v_proj", "blocks/attention/value"),
    *linear(f"{_LAYER}.self_attn.out_proj", "blocks/attention/out"),
    *norm(f"{_LAYER}.layer_norm1", "blocks/norm1"),
    *norm(f"{_LAYER}.layer_norm2", "blocks/norm2"),
    *linear(f"{_LAYER}.mlp.fc1", "blocks/mlp/fc1"),
    *linear(f"{_LAYER}.mlp.fc2", "blocks/mlp/fc2"),
)
# What stands beside the image tower in files of two towers.
BESIDE = (
    r"text_model\..*",
    r"(text_projection|visual_projection|classifier)\..*",
    r"logit_(scale|bias)",
    r"(vision_model\.)?embeddings\.position_ids",
)


def sizes(
    fields: Fields,
    *,
    patch_size: int,
    act: str = "gelu",
    eps: float = 1e-6,
    image_size: int = 224,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    eps_key: str = "layer_norm_eps",
) -> dict[str, Any]:
    """The keys that every transformers vision config has, with its defaults."""
    if fields.integer("num_channels", 3) != 3:
        raise fields.unsupported("'num_channels' is not 3; only RGB towers are supported")
    return {
        "kind": "image",
        "width": fields.integer("hidden_size", width),
        "depth": fields.integer("num_hidden_layers", depth),
        "heads": fields.integer("num_attention_heads", heads),
        "activation": fields.activation("hidden_act", act),
        "norm_eps": fields.number(eps_key, eps),
        "image_size": square(fields, "image_size", image_size),
        "patch_size": square(fields, "patch_size", patch_size),
    }


_MOST_PIXELS = 16384


def square(fields: Fields, key: str, default: int) -> int:
    """A size in pixels: a number, or a list of the same number twice."""
    value = fields.values.get(key)
    if isinstance(value, list) and (len(value) != 2 or value[0] != value[1]):
        raise fields.unsupported(f"{key!r} is {str(value)[:60]}; only square towers are supported")
    if isinstance(value, list):
        fields = Fields({key: value[0]}, fields.label)
    found = fields.integer(key, default)
    if found > _MOST_PIXELS:  # A table of so many positions fills the memory.
        raise fields.error(f"{key!r} is {found}; write pixels a side, {_MOST_PIXELS} or fewer")
    return found


def describe(config: ViTConfig, model_type: str, **more: Any) -> dict[str, Any]:
    """The way back from `sizes`: a config.json for transformers."""
    return {
        "model_type": model_type,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        **more,
        "num_hidden_layers": config.depth,
    }


C = TypeVar("C", bound=TowerConfig)


def adapt(config: C, options: Mapping[str, Any]) -> C:
    """Apply `image_size`; refuse what only text towers have."""
    for key in ("max_length", "prefix"):
        if options.get(key) is not None:
            raise UserError(f"{key} is {options[key]!r}, but an image tower has none; leave it out")
    own: dict[str, Any] = vars(config)  # Every image tower's has these two.
    size = options.get("image_size", own["image_size"])
    if not isinstance(size, int) or size < own["patch_size"]:
        raise UserError(
            f"image_size is {size!r}; write a whole number of pixels, "
            f"{own['patch_size']} (one patch) or more"
        )
    return dataclasses.replace(config, **{"image_size": size})


def resize(params: dict[str, Any], old: ViTConfig, new: ViTConfig) -> dict[str, Any]:
    """Interpolate the position table, where there is one, from the file's image size to another."""
    embed = dict(params["embed"])
    if not new.position_table or new.table_size:
        return params
    grid = (new.grid, new.grid)
    position = resize_positions(
        embed["position"],
        prefix=old.position_prefix,
        grid=grid,
        antialias=old.antialias,
        bilinear=old.bilinear,
    )
    embed["position"] = np.asarray(position, embed["position"].dtype)
    return {**params, "embed": embed}
