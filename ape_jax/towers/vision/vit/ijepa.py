"""I-JEPA (arXiv 2301.08243): ViT without CLS; the mean of the patches is pooled."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, TorchClass
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows, own_pooling
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import HALF, image_prepare, squashed
from ape_jax.towers.vision.vit import vit

_NAMES = dataclasses.replace(
    vit.NAMES,
    prefixes=("", "ijepa."),
    ignore=(r"(ijepa\.)?(pooler\..*|embeddings\.mask_token)", r"classifier\..*"),
)


def _parse(fields: Fields) -> ViTConfig:
    return dataclasses.replace(
        vit.parse(fields, name="ijepa"),
        pooling="mean",
        cls=False,
        prefix_tokens=0,
        position_prefix=0,
    )


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    more = {"intermediate_size": config.mlp_width, "qkv_bias": config.qkv_bias}
    return family.describe(config, "ijepa", **more)


IJEPA = family.declare(
    name="ijepa",
    title="I-JEPA",
    models="facebook/ijepa_vith14_1k",
    licence="CC-BY-NC-4.0",
    model_types={"ijepa": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare, default=partial(squashed, "ViTImageProcessor", resample=2, **HALF)
    ),
    classifier=ClassifierRows(layers=(CLASSIFIER,), pooling=own_pooling),
    torch=TorchClass(describe=_describe, table=lambda config: _NAMES),
)
