"""C-RADIO (arXiv 2412.07679): DINOv2's blocks, a position table that is cropped, no last norm.

It takes pixels from 0 to 1 and normalises them itself. Its summary is that of several class tokens,
joined. In files these and its registers are one tensor.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from ape_jax.config.fields import is_number
from ape_jax.towers.family import Arrays, Fields, TorchClass
from ape_jax.towers.files.names import LEAD1, PATCHES, NameTable, Rule, fused, linear, norm
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import CLIP_STATISTICS, cropped, image_prepare
from ape_jax.towers.vision.vit.dinov2 import mlp_width

_BLOCK, _FRONT = "radio_model.model.blocks.{i}", "radio_model.model.patch_generator"
_BUFFERS = ("input_conditioner.norm_mean", "input_conditioner.norm_std", "summary_idxs")
# Those of its own repositories, which transformers writes as well.
_NAMES = NameTable(
    rules=(
        # Buffers of its class, which an export has and no tower.
        *(Rule(f"radio_model.{name}", name) for name in _BUFFERS),
        Rule(f"{_FRONT}.cls_token.token", "embed/registers"),
        Rule(f"{_FRONT}.pos_embed", "embed/position", LEAD1),
        Rule(f"{_FRONT}.embedder.weight", "embed/kernel", PATCHES),
        *fused(f"{_BLOCK}.attn.qkv"),
        *linear(f"{_BLOCK}.attn.proj", "blocks/attention/out"),
        *norm(f"{_BLOCK}.norm1", "blocks/norm1"),
        *norm(f"{_BLOCK}.norm2", "blocks/norm2"),
        Rule(f"{_BLOCK}.layer_scale1.lambda1", "blocks/scale1/scale"),
        Rule(f"{_BLOCK}.layer_scale2.lambda1", "blocks/scale2/scale"),
        *linear(f"{_BLOCK}.mlp.fc1", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.fc2", "blocks/mlp/fc2"),
    ),
    ignore=(
        r"radio_model\.(summary_idxs|input_conditioner\.norm_(mean|std))",
        r"radio_model\.model\.patch_generator\.video_embedder\.weight",
    ),
    # Its own repositories have none.
    constants={"blocks/scale1/scale": 1.0, "blocks/scale2/scale": 1.0},
)
_GATED_NAMES = dataclasses.replace(
    _NAMES,
    rules=(
        *(rule for rule in _NAMES.rules if ".mlp." not in rule.file),
        *linear(f"{_BLOCK}.mlp.gate_proj", "blocks/mlp/gate"),
        *linear(f"{_BLOCK}.mlp.up_proj", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.down_proj", "blocks/mlp/fc2"),
    ),
)


def _parse(fields: Fields) -> ViTConfig:
    defaults: dict[str, Any] = {"width": 1280, "depth": 32, "heads": 16}
    sizes = family.sizes(fields, patch_size=16, **defaults)
    classes = fields.integer("num_cls_tokens", 3)
    front = classes + fields.integer("num_registers", 7, minimum=0)
    gated = fields.flag("use_swiglu_ffn", False)
    return ViTConfig(
        **sizes,
        family="radio",
        mlp_width=mlp_width(int(sizes["width"] * fields.number("mlp_ratio", 4.0)), gated),
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        cls=False,
        registers=front,
        prefix_tokens=front,
        cls_tokens=_summary(fields, classes),
        position_prefix=0,
        bilinear=True,
        table_size=fields.integer("max_img_size", 2048),
        image_mean=_channels(fields, "norm_mean", CLIP_STATISTICS["image_mean"]),
        image_std=_channels(fields, "norm_std", CLIP_STATISTICS["image_std"]),
        patch_bias=False,
        layer_scale=True,
        swiglu=gated,
        last_norm=False,
    )


def _summary(fields: Fields, classes: int) -> tuple[int, ...]:
    """The class tokens that are joined."""
    found = fields.values.get("summary_idxs")
    found = [0, 1] if found is None else found
    valid = (
        isinstance(found, list)
        and found != []
        and all(type(i) is int and 0 <= i < classes for i in found)
    )
    if not valid:
        raise fields.error(f"'summary_idxs' is {found}; write a list of numbers below {classes}")
    return tuple(found)


def _channels(fields: Fields, key: str, default: list[float]) -> tuple[float, ...]:
    """A number for each of the three channels."""
    found = fields.values.get(key)
    found = default if found is None else found
    valid = isinstance(found, list) and len(found) == 3 and all(map(is_number, found))
    if not valid or (key == "norm_std" and min(found) <= 0):
        raise fields.error(f"{key!r} is {found}; write a list of three numbers")
    return tuple(float(x) for x in found)


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    classes = max(config.cls_tokens) + 1
    return family.describe(
        config,
        "radio",
        # Half a column more, since transformers rounds the product down.
        mlp_ratio=(config.mlp_width * (1.5 if config.swiglu else 1) + 0.5) / config.width,
        use_swiglu_ffn=config.swiglu,
        qkv_bias=config.qkv_bias,
        max_img_size=config.table_size,
        num_cls_tokens=classes,
        num_registers=config.registers - classes,
        summary_idxs=list(config.cls_tokens),
        norm_mean=list(config.image_mean),
        norm_std=list(config.image_std),
    )


def _computed(config: ViTConfig) -> Arrays:
    """The buffers of its class, which hold what its config says."""
    statistics = [
        np.array(x, np.float32).reshape(3, 1, 1) for x in (config.image_mean, config.image_std)
    ]
    buffers = [*statistics, np.array(config.cls_tokens, np.int64)]
    return dict(zip(_BUFFERS, buffers, strict=True))


RADIO = family.declare(
    name="radio",
    title="C-RADIO",
    models="nvidia/C-RADIOv4-H",
    model_types={"radio": None},
    parse=_parse,
    tables=(_NAMES, _GATED_NAMES),
    prepare=partial(
        image_prepare,
        default=partial(cropped, "CLIPImageProcessor", edge=1, resample=3, do_normalize=False),
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _GATED_NAMES if config.swiglu else _NAMES,
        resizes=True,
    ),
    computed=_computed,
)
