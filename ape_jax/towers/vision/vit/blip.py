"""The image tower of BLIP (arXiv 2201.12086): ViT with other names, exported as ViTModel.

What is pooled passes the last norm a second time, as transformers' `pooler_output` does. What BLIP
itself projects for retrieval has passed it once: that is token 0.
"""

from __future__ import annotations

from functools import partial

from ape_jax.towers.family import Fields, TorchClass
from ape_jax.towers.files.names import CONV, LEAD1, LEAD11, NameTable, Rule, fused, linear, norm
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import CLIP_STATISTICS, image_prepare, squashed
from ape_jax.towers.vision.vit import vit

_ATTENTION = "encoder.layers.{i}.self_attn"
_NAMES = NameTable(
    rules=(
        Rule("embeddings.class_embedding", "embed/cls", LEAD11),
        Rule("embeddings.position_embedding", "embed/position", LEAD1),
        Rule("embeddings.patch_embedding.weight", "embed/kernel", CONV),
        Rule("embeddings.patch_embedding.bias", "embed/bias"),
        *fused(f"{_ATTENTION}.qkv"),
        *linear(f"{_ATTENTION}.projection", "blocks/attention/out"),
        *(rule for rule in family.CLIP_BLOCKS if ".self_attn." not in rule.file),
        *norm("post_layernorm", "norm"),
    ),
    prefixes=("vision_model.", ""),
    ignore=(*family.BESIDE, r"text_(encoder|decoder)\..*", r"(vision_proj|text_proj|itm_head)\..*"),
)


def _parse(fields: Fields) -> ViTConfig:
    return ViTConfig(
        **family.sizes(fields, patch_size=16, eps=1e-5, image_size=384),
        family="blip",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="cls",
        prefix_tokens=1,
        norm_twice=True,
    )


BLIP = family.declare(
    name="blip",
    title="BLIP",
    models="Salesforce/blip-itm-base-coco",
    model_types={"blip": "vision_config", "blip_vision_model": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare,
        default=partial(squashed, "BlipImageProcessor", resample=3, **CLIP_STATISTICS),
    ),
    torch=TorchClass(describe=vit.describe, table=lambda config: vit.NAMES),
)
