"""The encoders of T5 (arXiv 1910.10683), mT5 (2010.11934) and umT5 (2304.09151).

Pre-norm blocks with RMS norms and without biases. Nothing tells positions apart but T5's buckets of
relative positions: one table for all blocks, in umT5 one for each. Logits are not scaled.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ape_jax.nn.layers import ACTIVATIONS
from ape_jax.nn.positions import BUCKETS, MAX_DISTANCE
from ape_jax.towers.family import NORMS, Family, Fields, TorchClass
from ape_jax.towers.files.names import LINEAR, NameTable, Rule
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import TextConfig, TextTower, block_config

_GATED = "gated-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config(TextConfig):
    """The config of a T5 encoder.

    Attributes:
      gated: whether its MLP is.
      buckets: rows of a table of relative positions.
      distance: from which on all keys are in the last bucket.
      own_tables: each block has a table (umT5), not all together one.
    """

    gated: bool
    buckets: int
    distance: int
    own_tables: bool


def _sizes(model_type: object) -> dict[str, Any]:
    """Transformers' defaults where T5's config class differs from mT5's and umT5's."""
    if model_type == "t5":
        sizes = {"vocab_size": 32128, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
        return {**sizes, "feed_forward_proj": "relu", "n_positions": 512}
    sizes = {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
    return {**sizes, "feed_forward_proj": "gated-gelu", "n_positions": 1024}


def _parse(fields: Fields) -> T5Config:
    model_type = fields.values.get("model_type")
    default = _sizes(model_type)
    known = [*ACTIVATIONS, *(f"{_GATED}{name}" for name in ACTIVATIONS)]
    mlp = fields.choice("feed_forward_proj", known, default["feed_forward_proj"])
    # Of its class: the GELU behind a gate is the approximate one.
    activation = "gelu_new" if mlp == "gated-gelu" else mlp.removeprefix(_GATED)
    buckets = fields.integer("relative_attention_num_buckets", BUCKETS, minimum=4)
    distance = fields.integer("relative_attention_max_distance", MAX_DISTANCE)
    if buckets % 4 or distance <= buckets // 4:
        raise fields.error(
            f"relative_attention_num_buckets is {buckets} and relative_attention_max_distance "
            f"{distance}; write a multiple of four, and more than a quarter of it"
        )
    return T5Config(
        family="t5",
        vocab_size=fields.integer("vocab_size", default["vocab_size"]),
        width=fields.integer("d_model", 512),
        depth=fields.integer("num_layers", default["num_layers"]),
        heads=fields.integer("num_heads", default["num_heads"]),
        head_width=fields.integer("d_kv", 64),
        mlp_width=fields.integer("d_ff", default["d_ff"]),
        activation=activation,
        gated=mlp.startswith(_GATED),
        norm_eps=fields.number("layer_norm_epsilon", 1e-6),
        norm_kind="rms",
        buckets=buckets,
        distance=distance,
        own_tables=model_type == "umt5",
        position_table=False,
        embed_norm=False,
        **family.text_fields(
            fields,
            positions=fields.integer("n_positions", default["n_positions"]),
            pooling="mean",
        ),
    )


def _weight(file: str, path: str) -> Rule:
    return Rule(f"{file}.weight", f"{path}/kernel", LINEAR)


_ATTENTION = "encoder.block.{i}.layer.0.SelfAttention"
_MLP = "encoder.block.{i}.layer.1.DenseReluDense"
_TABLE = "relative_attention_bias.weight"


_SHARED, _OWN = "shared.weight", "encoder.embed_tokens.weight"


def _names(token: str, *, gated: bool) -> NameTable:
    """The names where the token table has this one; files may hold it under both."""
    gate = (_weight(f"{_MLP}.wi_0", "blocks/mlp/gate"), _weight(f"{_MLP}.wi_1", "blocks/mlp/fc1"))
    other = re.escape(_OWN if token == _SHARED else _SHARED)
    return NameTable(
        rules=(
            Rule(token, "embed/token"),
            Rule(f"{_ATTENTION}.{_TABLE}".replace("{i}", "0"), "relative_bias"),
            Rule(f"{_ATTENTION}.{_TABLE}", "blocks/attention/relative"),
            _weight(f"{_ATTENTION}.q", "blocks/attention/query"),
            _weight(f"{_ATTENTION}.k", "blocks/attention/key"),
            _weight(f"{_ATTENTION}.v", "blocks/attention/value"),
            _weight(f"{_ATTENTION}.o", "blocks/attention/out"),
            Rule("encoder.block.{i}.layer.0.layer_norm.weight", "blocks/norm1/scale"),
            *(gate if gated else (_weight(f"{_MLP}.wi", "blocks/mlp/fc1"),)),
            _weight(f"{_MLP}.wo", "blocks/mlp/fc2"),
            Rule("encoder.block.{i}.layer.1.layer_norm.weight", "blocks/norm2/scale"),
            Rule("encoder.final_layer_norm.weight", "norm/scale"),
        ),
        prefixes=("", "transformer."),
        ignore=(
            rf"(transformer\.)?{other}",
            r"(transformer\.)?decoder\..+",
            r"(lm_head|classifier|classification_head|qa_outputs)\..+",
        ),
    )


def _module(config: T5Config, **options: Any) -> TextTower:
    block = block_config(
        config,
        norms="before",
        biases=(),
        gated=config.gated,
        scale=1.0,
        relative=config.buckets if config.own_tables else 0,
    )
    return TextTower(
        config,
        block,
        last_norm=True,
        buckets=0 if config.own_tables else config.buckets,
        bucketing=(("buckets", config.buckets), ("distance", config.distance)),
        **options,
    )


def _describe(config: T5Config, pooling: str) -> dict[str, Any]:
    mlp = "gelu" if config.gated and config.activation == "gelu_new" else config.activation
    return {
        "model_type": "umt5" if config.own_tables else "t5",
        "vocab_size": config.vocab_size,
        "n_positions": config.positions,
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.mlp_width,
        "num_heads": config.heads,
        "feed_forward_proj": f"{_GATED}{mlp}" if config.gated else mlp,
        "layer_norm_epsilon": config.norm_eps,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.distance,
        "num_layers": config.depth,
    }


T5 = Family(
    name="t5",
    kind="text",
    title="T5",
    models="sentence-t5, GTR, Instructor, FLAN-T5, mT5, umT5",
    model_types={"t5": None, "mt5": None, "umt5": None},
    parse=_parse,
    module=_module,
    tables=tuple(
        _names(token, gated=gated) for token in (_SHARED, _OWN) for gated in (False, True)
    ),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=((r"relative_bias", "relative position"),),
    shared=("relative_bias",),
    adapters=NORMS,
    torch=TorchClass(describe=_describe, table=lambda config: _names(_SHARED, gated=config.gated)),
)
