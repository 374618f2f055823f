"""AIMv2's image tower (arXiv 2411.14402): RMS norms, gated MLPs, and no biases in the blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import CONV, LEAD11, NameTable, Rule, linear, norm
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import CLIP_STATISTICS, cropped, image_prepare

_LAYER = "encoder.layers.{i}"
BLOCKS = (
    *linear(f"{_LAYER}.attention.q_proj", "blocks/attention/query"),
    *linear(f"{_LAYER}.attention.k_proj", "blocks/attention/key"),
    *linear(f"{_LAYER}.attention.v_proj", "blocks/attention/value"),
    *linear(f"{_LAYER}.attention.out_proj", "blocks/attention/out"),
    *norm(f"{_LAYER}.rms_norm1", "blocks/norm1"),
    *norm(f"{_LAYER}.rms_norm2", "blocks/norm2"),
    *linear(f"{_LAYER}.ffn.gate_proj", "blocks/mlp/gate"),
    *linear(f"{_LAYER}.ffn.up_proj", "blocks/mlp/fc1"),
    *linear(f"{_LAYER}.ffn.down_proj", "blocks/mlp/fc2"),
    *norm("rms_norm", "norm"),
)
"""Of both towers."""

_NAMES = NameTable(
    rules=(
        Rule("embeddings.patch_embed.weight", "embed/kernel", CONV),
        Rule("embeddings.patch_embed.bias", "embed/bias"),
        *norm("embeddings.rms_norm", "embed/norm"),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *BLOCKS,
        Rule("head.cls_token", "head/probe", LEAD11),
        *linear("head.k_proj", "head/attention/key"),
        *linear("head.v_proj", "head/attention/value"),
        *linear("head.output_proj", "head/attention/out"),
    ),
    prefixes=("", "vision_model."),
    ignore=family.BESIDE,
)


def _parse(fields: Fields) -> ViTConfig:
    defaults: dict[str, Any] = {
        "width": 1024,
        "depth": 24,
        "heads": 8,
        "act": "silu",
        "eps": 1e-5,
        "eps_key": "rms_norm_eps",
    }
    has_head, is_native = fields.flag("use_head", True), fields.flag("is_native", False)
    qkv_bias, mlp_bias = fields.flag("qkv_bias", False), fields.flag("mlp_bias", False)
    return ViTConfig(
        **family.sizes(fields, patch_size=14, **defaults),
        family="aimv2",
        mlp_width=fields.integer("intermediate_size", 2816),
        pooling="map" if has_head else "mean",
        norm_kind="rms",
        cls=False,
        position_prefix=0,
        position_table=not is_native,
        sincos=is_native,
        patch_norm=True,
        gated=True,
        qkv_bias=qkv_bias,
        unbiased=unbiased(qkv_bias, mlp_bias),
        map_head=has_head,
        map_bare=True,
    )


def unbiased(qkv_bias: bool, mlp_bias: bool) -> tuple[str, ...]:
    """The linear layers of a block without a bias, beside queries, keys and values."""
    return ("out",) * (not qkv_bias) + ("gate", "fc1", "fc2") * (not mlp_bias)


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    described = family.describe(
        config,
        "aimv2_vision_model",
        intermediate_size=config.mlp_width,
        qkv_bias=config.qkv_bias,
        mlp_bias="fc1" not in config.unbiased,
        use_head=pooling == "map",
        is_native=config.sincos,
    )
    return {**described, "rms_norm_eps": described.pop("layer_norm_eps")}


AIMV2 = family.declare(
    name="aimv2",
    title="AIMv2",
    models="apple/aimv2-large-patch14-224, apple/aimv2-large-patch14-224-lit",
    model_types={"aimv2": "vision_config", "aimv2_vision_model": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare,
        default=partial(cropped, "CLIPImageProcessor", edge=1, resample=3, **CLIP_STATISTICS),
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="map", last_bias="head.output_proj.bias"),
    ),
)
