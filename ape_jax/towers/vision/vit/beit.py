"""BEiT (arXiv 2106.08254) and data2vec-vision (arXiv 2202.03555).

ViT with relative positions, a table of its own for each block or one for all, LayerScale, and no
bias of the keys. What is pooled is the norm of the mean of the patches (`use_mean_pooling`), and
then no token has passed that norm, or else CLS. data2vec-vision without a classifier has no norm.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ape_jax.errors import UserError
from ape_jax.nn.window import resized, window
from ape_jax.towers.family import Fields, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.files.rows import CLASSIFIER, ClassifierRows, own_pooling
from ape_jax.towers.files.sources import SafeTensors
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.family import BLOCK
from ape_jax.towers.vision.prepare import HALF, image_prepare, squashed

_BIAS = "relative_position_bias.relative_position_bias_table"
_RULES = (
    *family.EMBED,
    *family.ATTENTION,
    Rule(f"{BLOCK}.attention.attention.{_BIAS}", "blocks/attention/relative"),
    Rule(f"encoder.{_BIAS}", "relative_bias"),
    *norm(f"{BLOCK}.layernorm_before", "blocks/norm1"),
    *norm(f"{BLOCK}.layernorm_after", "blocks/norm2"),
    Rule(f"{BLOCK}.lambda_1", "blocks/scale1/scale"),
    Rule(f"{BLOCK}.lambda_2", "blocks/scale2/scale"),
    *linear(f"{BLOCK}.intermediate.dense", "blocks/mlp/fc1"),
    *linear(f"{BLOCK}.output.dense", "blocks/mlp/fc2"),
)
_NAMES = NameTable(
    rules=(*_RULES, *norm("layernorm", "norm")),
    prefixes=("", "beit.", "data2vec_vision."),
    ignore=(
        r".*relative_position_index",
        r"((beit|data2vec_vision)\.)?embeddings\.mask_token",
        r"(classifier|lm_head|layernorm|decode_head|auxiliary_head|fpn\d)\..*",
    ),
)
_MEAN_NAMES = dataclasses.replace(_NAMES, rules=(*_RULES, *norm("pooler.layernorm", "norm")))
# A model that predicts masked patches has its norm beside the tower.
_MASKED_NAMES = dataclasses.replace(_NAMES, renames=((r"^layernorm\.", "beit.layernorm."),))
_TABLES = (("use_relative_position_bias", "blocks"), ("use_shared_relative_position_bias", "all"))


def _parse(fields: Fields) -> ViTConfig:
    table = fields.flag("use_absolute_position_embeddings", False)
    mean = fields.flag("use_mean_pooling", True)
    normed = _has_norm(fields)
    fields.values.get("vocab_size")  # Of what it was trained to predict, which is no part of it.
    return ViTConfig(
        **family.sizes(fields, patch_size=16, eps=1e-12),
        family="beit",
        mlp_width=fields.integer("intermediate_size", 3072),
        pooling="mean" if mean else "cls",
        prefix_tokens=1,
        position_table=table,
        position_prefix=int(table),
        unbiased=("key",),
        layer_scale=fields.number("layer_scale_init_value", 0.1) > 0,
        relative=tuple(of for key, of in _TABLES if fields.flag(key, False)),
        norm_tokens=not mean,
        norm_pooled=mean and normed,
        last_norm=normed,
    )


def _has_norm(fields: Fields) -> bool:
    """Whether the tensors have a last norm; so it is where there are none to look at."""
    try:
        names = SafeTensors(fields.directory).shapes if fields.directory else {}
    except UserError:  # Said where they are read.
        return True
    return not names or any(re.search(r"(^|\.)layernorm\.weight$", name) for name in names)


def _resize(params: dict[str, Any], old: ViTConfig, new: ViTConfig) -> dict[str, Any]:
    """The position table and those of relative positions for another image size."""
    params = family.resize(params, old, new)
    if not old.relative or old.grid == new.grid:
        return params
    sizes = window(old.grid, (new.grid, new.grid))

    def at(table: np.ndarray) -> np.ndarray:
        other = resized(jnp.asarray(table, jnp.float32), sizes.down, sizes.across)
        return np.asarray(other, table.dtype)

    if "all" in old.relative:
        params = {**params, "relative_bias": at(params["relative_bias"])}
    if "blocks" in old.relative:
        blocks = params["blocks"]
        tables = np.stack([at(table) for table in blocks["attention"]["relative"]])
        blocks = {**blocks, "attention": {**blocks["attention"], "relative": tables}}
        params = {**params, "blocks": blocks}
    return params


def _describe(config: ViTConfig, pooling: str) -> dict[str, Any]:
    """A config.json for BeitModel, which computes the same as Data2VecVisionModel."""
    if not config.last_norm:
        raise UserError(
            "the image tower is data2vec-vision without its last norm, which transformers' class "
            "has; export with --format jax"
        )
    return family.describe(
        config,
        "beit",
        intermediate_size=config.mlp_width,
        use_absolute_position_embeddings=config.position_table,
        use_mean_pooling=config.norm_pooled,
        layer_scale_init_value=0.1 if config.layer_scale else 0.0,
        **{key: of in config.relative for key, of in _TABLES},
    )


BEIT = family.declare(
    name="beit",
    title="BEiT and data2vec-vision",
    models="microsoft/beit-base-patch16-224, facebook/data2vec-vision-base",
    model_types={"beit": None, "data2vec-vision": None},
    parse=_parse,
    resize=_resize,
    tables=(_NAMES, _MEAN_NAMES, _MASKED_NAMES),
    prepare=partial(
        image_prepare, default=partial(squashed, "BeitImageProcessor", resample=2, **HALF)
    ),
    groups=((r"relative_bias", "relative position"),),
    shared=("relative_bias",),
    classifier=ClassifierRows(layers=(CLASSIFIER,), pooling=own_pooling),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _MEAN_NAMES if config.norm_pooled else _NAMES,
        resizes=True,
    ),
)
