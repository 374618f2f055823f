"""DeiT (arXiv 2012.12877), distilled: ViT with two prefix tokens, both with positions.

The DeiT files without distillation say model_type "vit".
"""

from __future__ import annotations

import dataclasses
from functools import partial

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows, Linear, own_pooling
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, cropped, image_prepare
from ape_jax.towers.vision.vit import vit


def _parse(fields: Fields) -> ViTConfig:
    config = dataclasses.replace(vit.parse(fields), family="deit", distilled=True)
    return dataclasses.replace(config, position_prefix=2, prefix_tokens=2)


DEIT = family.declare(
    name="deit",
    title="DeiT",
    models="facebook/deit-base-distilled-patch16-224",
    model_types={"deit": None},
    parse=_parse,
    tables=(vit.NAMES,),
    prepare=partial(
        image_prepare,
        default=partial(cropped, "BitImageProcessor", edge=256 / 224, resample=3, **IMAGENET),
    ),
    # That of the distillation token reads another vector.
    classifier=ClassifierRows(
        layers=(CLASSIFIER, Linear(weight="cls_classifier.weight")), pooling=own_pooling
    ),
    torch=TorchClass(
        describe=vit.describe,
        table=lambda config: vit.NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
    ),
)
