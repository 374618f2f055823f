"""ConvNeXt (arXiv 2201.03545) and ConvNeXt V2 (arXiv 2301.00808).

`tokens` are the positions of the last stage, which transformers calls `last_hidden_state`; `pooled`
is the norm of their mean, its `pooler_output`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import Form, NameTable, Rule, norm
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows, own_pooling
from ape_jax.towers.vision.convnet import family
from ape_jax.towers.vision.convnet.network import ConvNeXtConfig
from ape_jax.towers.vision.prepare import IMAGENET, image_prepare

_LEAD111 = Form(
    "three leading 1s", lambda a: a[0, 0, 0], lambda a, h: a[None, None, None]
)  # of the norm over positions
_BLOCK = ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter")
_GRN = tuple(
    Rule(f"encoder.stages.{s}.layers.{{i}}.grn.{kind}", f"{to}/blocks/mlp/grn/{name}", _LEAD111)
    for s, to in family.STAGES
    for kind, name in (("weight", "scale"), ("bias", "bias"))
)
_NAMES = NameTable(
    rules=(
        *family.stage_rules(
            "encoder.stages.{s}",
            down=("downsampling_layer.0", "downsampling_layer.1"),
            block=_BLOCK,
            stem=("embeddings.patch_embeddings", "embeddings.layernorm"),
        ),
        *_GRN,
        *norm("layernorm", "norm"),
    ),
    prefixes=("", "convnext.", "convnextv2."),
    ignore=(r"classifier\..*",),
)


def _parse(fields: Fields) -> ConvNeXtConfig:
    second = fields.values.get("model_type") == "convnextv2"
    stem = fields.integer("patch_size", 4)
    return ConvNeXtConfig(
        **family.sizes(fields, eps=1e-12, stem_size=stem),
        family="convnext",
        pooling="mean",
        inner_eps=1e-6,
        response_norm=second,
        layer_scale=not second and fields.number("layer_scale_init_value", 1e-6) > 0,
    )


def _describe(config: ConvNeXtConfig, pooling: str) -> dict[str, Any]:
    more = {"num_stages": len(config.depths), "patch_size": config.stem_size}
    if config.response_norm:
        return family.describe(config, "convnextv2", **more)
    scale = 1e-6 if config.layer_scale else 0.0
    return family.describe(config, "convnext", layer_scale_init_value=scale, **more)


def _preprocessor(size: int) -> dict[str, Any]:
    settings = {"size": {"shortest_edge": size}, "crop_pct": 224 / 256, "resample": 3}
    return {"image_processor_type": "ConvNextImageProcessor", **settings, **IMAGENET}


CONVNEXT = family.declare(
    name="convnext",
    title="ConvNeXt and ConvNeXt V2",
    models="facebook/convnext-tiny-224, facebook/convnextv2-tiny-22k-224",
    model_types={"convnext": None, "convnextv2": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(image_prepare, default=_preprocessor),
    classifier=ClassifierRows(layers=(CLASSIFIER,), pooling=own_pooling),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="mean", last_bias="layernorm.bias"),
        resizes=True,
    ),
)
