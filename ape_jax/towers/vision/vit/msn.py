"""ViT-MSN (arXiv 2204.07141): ViT, trained without labels on images of which most is hidden."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, TorchClass
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows, own_pooling
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, image_prepare, squashed
from ape_jax.towers.vision.vit import vit

# With a classifier, transformers 5 writes "vit." before some of the names and not before others.
_NAMES = dataclasses.replace(vit.NAMES, prefixes=("",), renames=((r"^vit\.", ""),))


def _parse(fields: Fields) -> ViTConfig:
    return vit.parse(fields, name="vit_msn", eps=1e-6)


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    more = {"intermediate_size": config.mlp_width, "qkv_bias": config.qkv_bias}
    return family.describe(config, "vit_msn", **more)


VIT_MSN = family.declare(
    name="vit_msn",
    title="ViT-MSN",
    models="facebook/vit-msn-base",
    model_types={"vit_msn": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare, default=partial(squashed, "ViTImageProcessor", resample=2, **IMAGENET)
    ),
    classifier=ClassifierRows(layers=(CLASSIFIER,), pooling=own_pooling),
    torch=TorchClass(describe=_describe, table=lambda config: _NAMES),
)
