"""The image tower of SigLIP (arXiv 2303.15343): no CLS, pooled by attention ("map").

Its own pooling is transformers' `pooler_output`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import CONV, LEAD11, NameTable, Rule, fused, linear, norm
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import HALF, image_prepare, squashed

NAMES = NameTable(
    rules=(
        Rule("embeddings.patch_embedding.weight", "embed/kernel", CONV),
        Rule("embeddings.patch_embedding.bias", "embed/bias"),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *family.CLIP_BLOCKS,
        *norm("post_layernorm", "norm"),
        Rule("head.probe", "head/probe", LEAD11),
        *fused("head.attention.in_proj", "head/attention", joint="_"),
        *linear("head.attention.out_proj", "head/attention/out"),
        *norm("head.layernorm", "head/norm"),
        *linear("head.mlp.fc1", "head/mlp/fc1"),
        *linear("head.mlp.fc2", "head/mlp/fc2"),
    ),
    prefixes=("vision_model.", ""),
    ignore=family.BESIDE,
)


def _parse(fields: Fields) -> ViTConfig:
    head = fields.flag("vision_use_head", True)
    return ViTConfig(
        **family.sizes(fields, patch_size=16, act="gelu_pytorch_tanh"),
        family="siglip",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="map" if head else "mean",
        prefix_tokens=0,
        cls=False,
        position_prefix=0,
        map_head=head,
    )


def describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    """A config.json for SiglipVisionModel, with its head where that pools."""
    more = {"intermediate_size": config.mlp_width, "vision_use_head": pooling == "map"}
    return family.describe(config, "siglip_vision_model", **more)


SIGLIP = family.declare(
    name="siglip",
    title="SigLIP",
    models="google/siglip-base-patch16-224",
    model_types={"siglip": "vision_config", "siglip_vision_model": None},
    parse=_parse,
    tables=(NAMES,),
    prepare=partial(
        image_prepare, default=partial(squashed, "SiglipImageProcessor", resample=3, **HALF)
    ),
    classifier=ClassifierRows(layers=(CLASSIFIER,), pooling=lambda config: "mean"),
    torch=TorchClass(
        describe=describe,
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="map", last_bias="head.mlp.fc2.bias"),
    ),
)
