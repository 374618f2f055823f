"""DINOv3 (arXiv 2508.10104): registers, and patches turned by their places in every block."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ape_jax.nn.axial import Axial
from ape_jax.towers.family import Arrays, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import CONV, LEAD1, LEAD11, NameTable, Rule, linear, norm
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, image_prepare, squashed

_BLOCK = "layer.{i}"
_NAMES = NameTable(
    rules=(
        Rule("embeddings.cls_token", "embed/cls", LEAD11),
        Rule("embeddings.register_tokens", "embed/registers", LEAD1),
        Rule("embeddings.patch_embeddings.weight", "embed/kernel", CONV),
        Rule("embeddings.patch_embeddings.bias", "embed/bias"),
        *linear(f"{_BLOCK}.attention.q_proj", "blocks/attention/query"),
        *linear(f"{_BLOCK}.attention.k_proj", "blocks/attention/key"),
        *linear(f"{_BLOCK}.attention.v_proj", "blocks/attention/value"),
        *linear(f"{_BLOCK}.attention.o_proj", "blocks/attention/out"),
        *norm(f"{_BLOCK}.norm1", "blocks/norm1"),
        *norm(f"{_BLOCK}.norm2", "blocks/norm2"),
        Rule(f"{_BLOCK}.layer_scale1.lambda1", "blocks/scale1/scale"),
        Rule(f"{_BLOCK}.layer_scale2.lambda1", "blocks/scale2/scale"),
        *linear(f"{_BLOCK}.mlp.gate_proj", "blocks/mlp/gate"),
        *linear(f"{_BLOCK}.mlp.up_proj", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.down_proj", "blocks/mlp/fc2"),
        *norm("norm", "norm"),
    ),
    ignore=(r"embeddings\.mask_token",),
    renames=((r"^model\.layer\.", "layer."),),  # As transformers 5 calls them in memory.
)
# Keys of the config and the layers of a block that have a bias with each.
_BIASES = {
    "query_bias": ("query",),
    "key_bias": ("key",),
    "value_bias": ("value",),
    "proj_bias": ("out",),
    "mlp_bias": ("gate", "fc1", "fc2"),
}


def _parse(fields: Fields) -> ViTConfig:
    registers = fields.integer("num_register_tokens", 0, minimum=0)
    has = {key: fields.flag(key, key != "key_bias") for key in _BIASES}
    return ViTConfig(
        **family.sizes(fields, patch_size=16, eps=1e-5, width=384, heads=6),
        family="dinov3",
        mlp_width=fields.integer("intermediate_size", 1536),
        pooling="cls",
        prefix_tokens=1 + registers,
        registers=registers,
        position_table=False,
        rotation=Axial(theta=fields.number("rope_theta", 100.0), centered=True),
        unbiased=tuple(n for key, names in _BIASES.items() if not has[key] for n in names),
        layer_scale=True,
        gated=fields.flag("use_gated_mlp", False),
    )


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    assert config.rotation is not None, "every DINOv3 has one"
    return family.describe(
        config,
        "dinov3_vit",
        intermediate_size=config.mlp_width,
        num_register_tokens=config.registers,
        rope_theta=config.rotation.theta,
        use_gated_mlp=config.gated,
        **{key: names[0] not in config.unbiased for key, names in _BIASES.items()},
    )


def _complete(config: ViTConfig, arrays: Arrays) -> Arrays:
    """Registers are a tensor even where there are none."""
    return {"embed/registers": np.zeros((0, config.width), np.float32), **arrays}


DINOV3 = family.declare(
    name="dinov3",
    title="DINOv3",
    models="facebook/dinov3-vits16-pretrain-lvd1689m",
    licence="DINOv3 License, gated",
    model_types={"dinov3_vit": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare, default=partial(squashed, "DINOv3ViTImageProcessor", resample=2, **IMAGENET)
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="norm.bias"),
        unused={"embeddings.mask_token": 2},
        complete=_complete,
    ),
)
