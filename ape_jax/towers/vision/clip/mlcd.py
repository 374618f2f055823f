"""MLCD (arXiv 2407.17331): CLIP's image tower with its patches, and CLS, turned by their places."""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.nn.axial import Axial
from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import CONV, NameTable, Rule, norm
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import CLIP_STATISTICS, cropped, image_prepare

_NAMES = NameTable(
    rules=(
        Rule("class_pos_emb", "prefix_angles"),
        Rule("embeddings.class_embedding", "embed/cls"),
        Rule("embeddings.patch_embedding.weight", "embed/kernel", CONV),
        *norm("pre_layrnorm", "pre_norm"),
        *family.CLIP_BLOCKS,
        *norm("post_layernorm", "norm"),
    ),
    prefixes=("vision_model.", ""),
    ignore=(r"(vision_model\.)?(embeddings\.position_ids|vision_rotary_embedding\.inv_freq)",),
)


def _parse(fields: Fields) -> ViTConfig:
    defaults: dict[str, Any] = {"image_size": 336, "width": 1664, "depth": 48, "heads": 16}
    if fields.integer("num_key_value_groups", 1) != 1:
        raise fields.error("'num_key_value_groups' is not 1, which no published tower has; write 1")
    return ViTConfig(
        **family.sizes(fields, patch_size=14, eps=1e-5, **defaults),
        family="mlcd",
        mlp_width=fields.integer("intermediate_size", 8192),
        pooling="cls",
        prefix_tokens=1,
        patch_bias=False,
        pre_norm=True,
        norm_tokens=False,
        position_table=False,
        rotation=Axial(theta=_theta(fields)),
        prefix_angles=True,
    )


def _theta(fields: Fields) -> float:
    """The base of the frequencies, which configs of transformers 4 leave out."""
    found = fields.mapping("rope_parameters")
    if found.get("rope_type", "axial") != "axial":
        raise fields.error("'rope_parameters' is not of 'rope_type' 'axial'; write that of MLCD")
    return Fields(found, f"{fields.label}, 'rope_parameters'").number("rope_theta", 10_000.0)


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    assert config.rotation is not None, "every MLCD has one"
    rope = {"rope_type": "axial", "rope_theta": config.rotation.theta}
    more = {"intermediate_size": config.mlp_width, "rope_parameters": rope}
    return family.describe(config, "mlcd_vision_model", **more)


MLCD = family.declare(
    name="mlcd",
    title="MLCD",
    models="DeepGlint-AI/mlcd-vit-bigG-patch14-336",
    model_types={"mlcd_vision_model": None, "mlcd": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare,
        default=partial(cropped, "CLIPImageProcessor", edge=1, resample=3, **CLIP_STATISTICS),
    ),
    groups=((r"prefix_angles", "position embedding"),),
    shared=("prefix_angles",),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="post_layernorm.bias"),
        resizes=True,
    ),
)
