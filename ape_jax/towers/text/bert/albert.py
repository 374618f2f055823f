"""ALBERT (arXiv 1909.11942): BERT with one block that is run again and again.

Its embeddings are narrower than the block, and a dense layer leads from there. The parameters of
the block are held once, as in files.
"""

from __future__ import annotations

from typing import Any

from ape_jax.towers.family import DENSE, Family, Fields, TorchClass
from ape_jax.towers.files.names import NameTable, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.bert.bert import EMBEDDINGS, IGNORE, RENAMES, complete
from ape_jax.towers.text.bert.electra import PROJECTION
from ape_jax.towers.text.transformer import TextConfig, TextTower


def _parse(fields: Fields) -> TextConfig:
    for key in ("num_hidden_groups", "inner_group_num"):
        if (found := fields.integer(key, 1)) != 1:
            raise fields.unsupported(
                f"{key} is {found}; only 1, as all published ALBERTs have it, is read"
            )
    sizes = {"vocab_size": 30000, "hidden_size": 4096, "intermediate_size": 16384}
    more = {"num_attention_heads": 64, "hidden_act": "gelu_new"}
    return TextConfig(
        family="albert",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        embed_width=fields.integer("embedding_size", 128),
        tied=True,
        **family.encoder_fields(fields, **sizes, **more),
        **family.text_fields(
            fields, positions=fields.integer("max_position_embeddings", 512), pooling="cls"
        ),
    )


# The layer of a name is that of a group, of which there is one.
_LAYER = "encoder.albert_layer_groups.{i}.albert_layers.0"
NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        *linear("encoder.embedding_hidden_mapping_in", "embed/projection"),
        *linear(f"{_LAYER}.attention.query", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.key", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.value", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.dense", "blocks/attention/out"),
        *norm(f"{_LAYER}.attention.LayerNorm", "blocks/norm1"),
        *linear(f"{_LAYER}.ffn", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.ffn_output", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.full_layer_layer_norm", "blocks/norm2"),
    ),
    prefixes=("", "albert."),
    ignore=(
        *IGNORE,
        r"(albert\.)?pooler\.(weight|bias)",
        r"(predictions|sop_classifier)\..+",
    ),
    renames=RENAMES,
)


def _describe(config: TextConfig, pooling: str) -> dict[str, Any]:
    more = {"type_vocab_size": max(config.types, 1), "num_hidden_groups": 1, "inner_group_num": 1}
    return family.describe(config, "albert", embedding_size=config.embed_width, **more)


ALBERT = Family(
    name="albert",
    kind="text",
    title="ALBERT",
    models="albert/albert-base-v2, sentence-transformers/paraphrase-albert-small-v2",
    model_types={"albert": None},
    parse=_parse,
    module=TextTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=PROJECTION,
    adapters=DENSE,
    torch=TorchClass(describe=_describe, table=lambda config: NAMES, complete=complete),
)
