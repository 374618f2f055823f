"""ViT (arXiv 2010.11929) in transformers' files, in timm's, and in big_vision's (big_vision.py).

The tanh pooler of transformers' class is a head, and no part of the tower.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.towers.family import Arrays, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, linear, norm
from ape_jax.towers.files.rows import CLASSIFIER, TIMM_HEAD, ClassifierRows, Linear, own_pooling
from ape_jax.towers.vision import big_vision, family
from ape_jax.towers.vision.clip import siglip
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.family import BLOCK
from ape_jax.towers.vision.prepare import HALF, image_prepare, squashed
from ape_jax.towers.vision.timm import names as timm

# The classes with heads on top keep the tower under a prefix and the heads beside it.
NAMES = NameTable(
    rules=(
        *family.EMBED,
        *family.ATTENTION,
        *norm(f"{BLOCK}.layernorm_before", "blocks/norm1"),
        *norm(f"{BLOCK}.layernorm_after", "blocks/norm2"),
        *linear(f"{BLOCK}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{BLOCK}.output.dense", "blocks/mlp/fc2"),
        *norm("layernorm", "norm"),
    ),
    prefixes=("", "vit.", "deit."),
    ignore=(
        r"(vit\.|deit\.)?pooler\..*",
        r"(vit\.|deit\.)?embeddings\.mask_token",
        r"(cls_|distillation_)?classifier\..*",
        r"decoder\..*",
    ),
)
# DeiT's own files and LilT's have them; a norm behind the pooling is none of this family's.
_TIMM_NAMES = dataclasses.replace(timm.NAMES, renames=())


def parse(fields: Fields, *, name: str = "vit", eps: float = 1e-12) -> ViTConfig:
    """google/vit-*: ViTConfig of transformers, or that of a family that differs by its defaults."""
    return ViTConfig(
        **family.sizes(fields, patch_size=16, eps=eps),
        family=name,
        mlp_width=fields.integer("intermediate_size", 3072),
        qkv_bias=fields.flag("qkv_bias", True),
        pooling="cls",
        prefix_tokens=1,
    )


def describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    """A config.json for ViTModel, or DeiTModel; SiglipVisionModel's for a tower without CLS."""
    if not config.cls:  # big_vision's.
        return siglip.describe(config, pooling)
    if pooling == "map":
        raise UserError(
            "the image tower has CLS and a pooling head, which no class of transformers has; "
            "export with --format jax"
        )
    kind = "deit" if config.distilled else "vit"
    more = {"intermediate_size": config.mlp_width, "qkv_bias": config.qkv_bias}
    return family.describe(config, kind, **more)


def _complete(config: ViTConfig, arrays: Arrays) -> Arrays:
    """With a row for CLS in the position table, which transformers' always have."""
    if not config.cls or config.position_prefix:
        return arrays
    position = arrays["embed/position"]
    return {**arrays, "embed/position": np.concatenate([np.zeros_like(position[:1]), position])}


# A two-tower file has a projection of the same name, under "img/".
_BIG_VISION_HEAD = Linear(
    weight="head/kernel",
    is_kernel=True,
    prefixes=tuple(prefix for prefix in big_vision.PREFIXES if "img/" not in prefix),
    without=("pre_logits/kernel",),
)

VIT = family.declare(
    name="vit",
    title="ViT and AugReg",
    models="google/vit-base-patch16-224-in21k, big_vision's .npz",
    model_types={"vit": None},
    parse=parse,
    tables=(NAMES, _TIMM_NAMES),
    prepare=partial(
        image_prepare, default=partial(squashed, "ViTImageProcessor", resample=2, **HALF)
    ),
    classifier=ClassifierRows(
        layers=(CLASSIFIER, TIMM_HEAD, _BIG_VISION_HEAD), pooling=own_pooling
    ),
    torch=TorchClass(
        describe=describe,
        table=lambda config: NAMES if config.cls else siglip.NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
        complete=_complete,
    ),
)
