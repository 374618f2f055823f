"""TIPSv2 (arXiv 2604.12012): DINOv2 with one register, which serves as a second class token."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import (
    CONV,
    LEAD1,
    LEAD11,
    NameTable,
    Rule,
    fused,
    gated,
    linear,
    norm,
)
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import image_prepare, squashed
from ape_jax.towers.vision.vit.dinov2 import mlp_width

_BLOCK = "blocks.{i}"
# The names of its own files, which transformers writes as well.
_NAMES = NameTable(
    rules=(
        Rule("cls_token", "embed/cls", LEAD11),
        Rule("register_tokens", "embed/registers", LEAD1),
        Rule("pos_embed", "embed/position", LEAD1),
        Rule("patch_embed.proj.weight", "embed/kernel", CONV),
        Rule("patch_embed.proj.bias", "embed/bias"),
        *fused(f"{_BLOCK}.attn.qkv"),
        *linear(f"{_BLOCK}.attn.proj", "blocks/attention/out"),
        *norm(f"{_BLOCK}.norm1", "blocks/norm1"),
        *norm(f"{_BLOCK}.norm2", "blocks/norm2"),
        Rule(f"{_BLOCK}.ls1.gamma", "blocks/scale1/scale"),
        Rule(f"{_BLOCK}.ls2.gamma", "blocks/scale2/scale"),
        *linear(f"{_BLOCK}.mlp.c_fc", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.c_proj", "blocks/mlp/fc2"),
        *norm("norm", "norm"),
    ),
    prefixes=("vision_encoder.", ""),
    ignore=(r"(vision_encoder\.)?mask_token", r"text_encoder\..*", r"temperature"),
    renames=((r"\.mlp\.fc1\.", ".mlp.c_fc."), (r"\.mlp\.fc2\.", ".mlp.c_proj.")),
)
_GATED_NAMES = dataclasses.replace(
    _NAMES,
    rules=(
        *(rule for rule in _NAMES.rules if ".mlp." not in rule.file),
        *gated(f"{_BLOCK}.mlp.w12", "blocks/mlp"),
        *linear(f"{_BLOCK}.mlp.w3", "blocks/mlp/fc2"),
    ),
)


def _parse(fields: Fields) -> ViTConfig:
    registers = fields.integer("num_register_tokens", 1, minimum=0)
    sizes = family.sizes(fields, patch_size=14, image_size=448)
    gated = fields.flag("use_swiglu_ffn", False)
    return ViTConfig(
        **sizes,
        family="tipsv2",
        mlp_width=mlp_width(int(sizes["width"] * fields.number("mlp_ratio", 4.0)), gated),
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        prefix_tokens=1 + registers,
        registers=registers,
        antialias=True,
        bilinear=True,
        layer_scale=True,
        swiglu=gated,
    )


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    # Half a column more, since transformers rounds the product down.
    ratio = (config.mlp_width * (1.5 if config.swiglu else 1) + 0.5) / config.width
    return family.describe(
        config,
        "tipsv2_vision_model",
        num_register_tokens=config.registers,
        mlp_ratio=ratio,
        use_swiglu_ffn=config.swiglu,
        qkv_bias=config.qkv_bias,
    )


TIPSV2 = family.declare(
    name="tipsv2",
    title="TIPSv2",
    models="google/tipsv2-b14",
    model_types={"tipsv2": "vision_config", "tipsv2_vision_model": None},
    parse=_parse,
    tables=(_NAMES, _GATED_NAMES),
    prepare=partial(
        image_prepare,
        default=partial(squashed, "Tipsv2ImageProcessor", resample=2, do_normalize=False),
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _GATED_NAMES if config.swiglu else _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="norm.bias"),
        unused={"mask_token": 1},
        resizes=True,
    ),
)
