"""The image tower of CLIP (arXiv 2103.00020) and of those that differ from it by name alone.

They are MetaCLIP 2 (arXiv 2507.22062), Chinese-CLIP (arXiv 2211.01335) and AltCLIP (arXiv
2211.06679); all of them are exported as CLIPVisionModel, which computes the same.

`tokens` at layer -1 are transformers' `last_hidden_state`, which has not passed `post_layernorm`;
`pooled` has (with "cls" it equals transformers' `pooler_output`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import CONV, NameTable, Rule, norm
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import CLIP_STATISTICS, cropped, image_prepare

_NAMES = NameTable(
    rules=(
        Rule("embeddings.class_embedding", "embed/cls"),
        Rule("embeddings.patch_embedding.weight", "embed/kernel", CONV),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *norm("pre_layrnorm", "pre_norm"),  # so spelt in every CLIP file
        *family.CLIP_BLOCKS,
        *norm("post_layernorm", "norm"),
    ),
    prefixes=("vision_model.", ""),
    ignore=family.BESIDE,
    renames=((r"encoder\.layer\.", "encoder.layers."),),  # AltCLIP's, as transformers 5 writes it
)
_KIN = ("clip", "metaclip_2", "chinese_clip", "altclip")


def _parse(fields: Fields) -> ViTConfig:
    return ViTConfig(
        **family.sizes(fields, patch_size=32, eps=1e-5, act="quick_gelu"),
        family="clip",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="cls",
        prefix_tokens=1,
        patch_bias=False,
        pre_norm=True,
        norm_tokens=False,
    )


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    return family.describe(config, "clip_vision_model", intermediate_size=config.mlp_width)


CLIP = family.declare(
    name="clip",
    title="CLIP, MetaCLIP 2, Chinese-CLIP, AltCLIP",
    models="openai/clip-vit-base-patch32, facebook/metaclip-2-worldwide-s16, "
    "OFA-Sys/chinese-clip-vit-base-patch16, BAAI/AltCLIP",
    model_types={
        **dict.fromkeys(_KIN, "vision_config"),
        **dict.fromkeys([f"{name}_vision_model" for name in _KIN]),
    },
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare,
        default=partial(cropped, "CLIPImageProcessor", edge=1, resample=3, **CLIP_STATISTICS),
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="post_layernorm.bias"),
    ),
)
