"""DINOv2 (arXiv 2304.07193), with or without registers (arXiv 2309.16588)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, gated, linear, norm
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.family import BLOCK
from ape_jax.towers.vision.prepare import IMAGENET, cropped, image_prepare

_NAMES = NameTable(
    rules=(
        *family.EMBED,
        *family.ATTENTION,
        *norm(f"{BLOCK}.norm1", "blocks/norm1"),
        *norm(f"{BLOCK}.norm2", "blocks/norm2"),
        Rule(f"{BLOCK}.layer_scale1.lambda1", "blocks/scale1/scale"),
        Rule(f"{BLOCK}.layer_scale2.lambda1", "blocks/scale2/scale"),
        *linear(f"{BLOCK}.mlp.fc1", "blocks/mlp/fc1"),
        *linear(f"{BLOCK}.mlp.fc2", "blocks/mlp/fc2"),
        *norm("layernorm", "norm"),
    ),
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    ignore=(
        r"(dinov2\.|dinov2_with_registers\.)?embeddings\.mask_token",
        r"classifier\..*",
    ),
)
_SWIGLU_NAMES = dataclasses.replace(
    _NAMES,
    rules=(
        *(r for r in _NAMES.rules if ".mlp." not in r.file),
        *gated(f"{BLOCK}.mlp.weights_in", "blocks/mlp"),
        *linear(f"{BLOCK}.mlp.weights_out", "blocks/mlp/fc2"),
    ),
)


def _parse(fields: Fields) -> ViTConfig:
    with_registers = fields.values.get("model_type") == "dinov2_with_registers"
    registers = fields.integer("num_register_tokens", 4, minimum=0) if with_registers else 0
    sizes = family.sizes(fields, patch_size=16 if with_registers else 14)
    swiglu = fields.flag("use_swiglu_ffn", False)
    return ViTConfig(
        **sizes,
        family="dinov2",
        mlp_width=mlp_width(int(sizes["width"] * fields.number("mlp_ratio", 4.0)), swiglu),
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        prefix_tokens=1 + registers,
        registers=registers,
        # Only the registers class of transformers resizes its table with antialiasing.
        antialias=with_registers,
        layer_scale=True,
        swiglu=swiglu,
    )


def mlp_width(wide: int, swiglu: bool) -> int:
    """The width of an MLP; of a gated one two thirds, rounded up to a multiple of 8."""
    return (int(wide * 2 / 3) + 7) // 8 * 8 if swiglu else wide


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    registers = {"num_register_tokens": config.registers} if config.registers else {}
    return family.describe(
        config,
        "dinov2_with_registers" if config.registers else "dinov2",
        **registers,
        mlp_ratio=whole_ratio(config),
        use_swiglu_ffn=config.swiglu,
        qkv_bias=config.qkv_bias,
    )


def whole_ratio(config: ViTConfig) -> int:
    """The whole number from which transformers computes this MLP width."""
    ratio = round(config.mlp_width * (1.5 if config.swiglu else 1) / config.width)
    if mlp_width(config.width * ratio, config.swiglu) != config.mlp_width:
        raise UserError(
            f"the image tower's MLP is {config.mlp_width} wide, which is no whole multiple of its "
            f"width {config.width}, as transformers wants it; export with --format jax"
        )
    return ratio


def _preprocessor(size: int) -> dict[str, Any]:
    size = min(size, 224)  # Published with crops of 224, though the table is for 518.
    return cropped("BitImageProcessor", size, edge=256 / 224, resample=3, **IMAGENET)


DINOV2 = family.declare(
    name="dinov2",
    title="DINOv2",
    models="facebook/dinov2-small, facebook/dinov2-with-registers-small",
    model_types={"dinov2": None, "dinov2_with_registers": None},
    parse=_parse,
    tables=(_NAMES, _SWIGLU_NAMES),
    prepare=partial(image_prepare, default=_preprocessor),
    classifier=ClassifierRows(layers=(CLASSIFIER,), pooling=lambda config: "cls+mean"),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _SWIGLU_NAMES if config.swiglu else _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="layernorm.bias"),
        unused={"embeddings.mask_token": 1},
        resizes=True,
    ),
)
