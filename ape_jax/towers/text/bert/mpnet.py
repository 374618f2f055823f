"""MPNet (arXiv 2004.09297), the body of all-mpnet-base-v2.

BERT's blocks without token types, positions counted as RoBERTa does, and T5's relative position
bias: one table of buckets x heads, added to the attention logits of every block.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ape_jax.nn.positions import BUCKETS
from ape_jax.towers.family import DENSE, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.bert.bert import EMBEDDINGS, IGNORE, RENAMES
from ape_jax.towers.text.transformer import TextConfig, TextTower

_PADDING_IDX = 1  # Fixed in transformers' modeling_mpnet.py, whatever the config says.


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPNetConfig(TextConfig):
    """The config of an MPNet.

    Attributes:
      buckets: rows of the table of relative positions; the first 32 are used.
    """

    buckets: int = BUCKETS


def _parse(fields: Fields) -> MPNetConfig:
    return MPNetConfig(
        family="mpnet",
        buckets=fields.integer("relative_attention_num_buckets", BUCKETS, minimum=BUCKETS),
        **family.encoder_fields(fields, vocab_size=30527),
        **family.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 512),
            padding_idx=_PADDING_IDX,
            pooling="mean",
        ),
    )


_LAYER = "encoder.layer.{i}"
NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        Rule("encoder.relative_attention_bias.weight", "relative_bias"),
        *linear(f"{_LAYER}.attention.attn.q", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.attn.k", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.attn.v", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.attn.o", "blocks/attention/out"),
        *norm(f"{_LAYER}.attention.LayerNorm", "blocks/norm1"),
        *linear(f"{_LAYER}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.output.dense", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.output.LayerNorm", "blocks/norm2"),
    ),
    prefixes=("", "mpnet."),
    ignore=IGNORE,
    renames=RENAMES,
)


def _module(config: MPNetConfig, **options: Any) -> TextTower:
    return TextTower(config, buckets=config.buckets, **options)


def _describe(config: MPNetConfig, pooling: str) -> dict[str, Any]:
    return family.describe(config, "mpnet", relative_attention_num_buckets=config.buckets)


MPNET = Family(
    name="mpnet",
    kind="text",
    title="MPNet",
    models="all-mpnet-base-v2",
    model_types={"mpnet": None},
    parse=_parse,
    module=_module,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=((r"relative_bias", "relative position"),),
    shared=("relative_bias",),
    adapters=DENSE,
    torch=TorchClass(
        describe=_describe,
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
    ),
)
