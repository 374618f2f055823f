"""DistilBERT (arXiv 1910.01108): BERT without token types and with other names."""

from __future__ import annotations

from typing import Any

from ape_jax.towers.family import DENSE, Family, Fields, TorchClass
from ape_jax.towers.files.names import NameTable, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.bert.bert import EMBEDDINGS, IGNORE, RENAMES
from ape_jax.towers.text.transformer import TextConfig, TextTower

_LAYER = "transformer.layer.{i}"
NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        *linear(f"{_LAYER}.attention.q_lin", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.k_lin", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.v_lin", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.out_lin", "blocks/attention/out"),
        *norm(f"{_LAYER}.sa_layer_norm", "blocks/norm1"),
        *linear(f"{_LAYER}.ffn.lin1", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.ffn.lin2", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.output_layer_norm", "blocks/norm2"),
    ),
    prefixes=("", "distilbert."),
    ignore=IGNORE,
    renames=RENAMES,
)


def _parse(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    return TextConfig(
        family="distilbert",
        vocab_size=fields.integer("vocab_size", 30522),
        width=fields.integer("dim", 768),
        depth=fields.integer("n_layers", 6),
        heads=fields.integer("n_heads", 12),
        mlp_width=fields.integer("hidden_dim", 3072),
        activation=fields.activation("activation", "gelu"),
        norm_eps=1e-12,
        **family.text_fields(fields, positions=positions, pooling="mean"),
    )


def _describe(config: TextConfig, pooling: str) -> dict[str, Any]:
    return {
        "model_type": "distilbert",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.positions,
        "dim": config.width,
        "n_heads": config.heads,
        "hidden_dim": config.mlp_width,
        "activation": config.activation,
        "n_layers": config.depth,
    }


DISTILBERT = Family(
    name="distilbert",
    kind="text",
    title="DistilBERT",
    models="distilbert-base-uncased, its sentence-transformers",
    model_types={"distilbert": None},
    parse=_parse,
    module=TextTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=DENSE,
    torch=TorchClass(describe=_describe, table=lambda config: NAMES),
)
