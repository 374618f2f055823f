"""The encoder of MAE (arXiv 2111.06377), which sees every patch here and in their order.

It is ViT with a fixed table of sines and cosines, which files hold, and is exported as ViTModel:
transformers' own class shuffles the patches and drops most of them, even outside of training. What
is pooled is the mean of the patches, since CLS was trained for nothing.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from ape_jax.towers.family import Fields, TorchClass
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, image_prepare, squashed
from ape_jax.towers.vision.vit import vit


def _parse(fields: Fields) -> ViTConfig:
    return dataclasses.replace(vit.parse(fields, name="vit_mae"), pooling="mean")


VIT_MAE = family.declare(
    name="vit_mae",
    title="ViT-MAE",
    models="facebook/vit-mae-base",
    model_types={"vit_mae": None},
    parse=_parse,
    tables=(vit.NAMES,),
    prepare=partial(
        image_prepare, default=partial(squashed, "ViTImageProcessor", resample=2, **IMAGENET)
    ),
    torch=TorchClass(describe=vit.describe, table=lambda config: vit.NAMES),
)
