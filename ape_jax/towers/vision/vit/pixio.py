"""Pixio (arXiv 2512.15715): ViT with eight class tokens, whose mean is pooled."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import LEAD1, Rule
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, cropped, image_prepare
from ape_jax.towers.vision.vit import vit
from ape_jax.towers.vision.vit.dinov2 import whole_ratio

_NAMES = dataclasses.replace(
    vit.NAMES,
    rules=(
        Rule("embeddings.cls_token", "embed/registers", LEAD1),
        *(rule for rule in vit.NAMES.rules if rule.path not in ("embed/cls", "embed/registers")),
    ),
    prefixes=("", "pixio."),
    # As transformers calls the norms in memory.
    renames=((r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after.")),
)


def _parse(fields: Fields) -> ViTConfig:
    defaults: dict[str, Any] = {"image_size": 256, "width": 1280, "depth": 32, "heads": 16}
    sizes = family.sizes(fields, patch_size=16, **defaults)
    front = fields.integer("n_cls_tokens", 8)
    return ViTConfig(
        **sizes,
        family="pixio",
        mlp_width=int(sizes["width"] * fields.number("mlp_ratio", 4)),
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        cls=False,
        registers=front,
        prefix_tokens=front,
        position_prefix=front,
        cls_tokens=tuple(range(front)),
        cls_mean=True,
    )


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    ratio = whole_ratio(config)
    more = {"mlp_ratio": ratio, "qkv_bias": config.qkv_bias, "n_cls_tokens": config.prefix_tokens}
    return family.describe(config, "pixio", **more)


PIXIO = family.declare(
    name="pixio",
    title="Pixio",
    models="facebook/pixio-huge",
    model_types={"pixio": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare, default=partial(cropped, "BitImageProcessor", edge=1, resample=3, **IMAGENET)
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="layernorm.bias"),
        resizes=True,
    ),
)
