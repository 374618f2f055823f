"""BERT that norms before each branch: MegatronBERT, XLM-R XL, and RoBERTa with norms first.

MegatronBERT (arXiv 1909.08053) has BERT's positions; XLM-R XL (arXiv 2105.00572) and
RoBERTa-PreLayerNorm (arXiv 1904.01038, fairseq) count them as RoBERTa does. Only the last one norms
its embeddings. The last norm is a part of the tower.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.towers.family import NORMS, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.bert.bert import EMBEDDINGS, IGNORE, RENAMES
from ape_jax.towers.text.bert.bert import complete as with_types
from ape_jax.towers.text.transformer import TextConfig, TextTower, block_config

MEGATRON, ROBERTA, XLM_R_XL = "megatron-bert", "roberta-prelayernorm", "xlm-roberta-xl"
_DEFAULTS: dict[str, dict[str, Any]] = {
    MEGATRON: {
        "vocab_size": 29056,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    ROBERTA: {"vocab_size": 50265},
    XLM_R_XL: {
        "vocab_size": 250880,
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
        "layer_norm_eps": 1e-5,
    },
}


def _parse(fields: Fields, model_type: str) -> TextConfig:
    is_xl, is_megatron = model_type == XLM_R_XL, model_type == MEGATRON
    return TextConfig(
        family=model_type.replace("-", "_"),
        types=fields.integer("type_vocab_size", 1 if is_xl else 2, minimum=0),
        embed_norm=model_type == ROBERTA,
        **family.encoder_fields(fields, **_DEFAULTS[model_type]),
        **family.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 514 if is_xl else 512),
            padding_idx=None if is_megatron else fields.integer("pad_token_id", 1, minimum=0),
            pooling="cls" if is_megatron else "mean",
        ),
    )


def _describe(config: TextConfig, pooling: str, model_type: str) -> dict[str, Any]:
    return family.describe(config, model_type, type_vocab_size=max(config.types, 1))


_LAYER = "encoder.layer.{i}"


def _names(norm1: str, norm2: str, last: str, prefix: str) -> NameTable:
    """The names of one of the three: they differ in where norms are."""
    return NameTable(
        rules=(
            *EMBEDDINGS,
            *norm(f"{_LAYER}.{norm1}", "blocks/norm1"),
            *linear(f"{_LAYER}.attention.self.query", "blocks/attention/query"),
            *linear(f"{_LAYER}.attention.self.key", "blocks/attention/key"),
            *linear(f"{_LAYER}.attention.self.value", "blocks/attention/value"),
            *linear(f"{_LAYER}.attention.output.dense", "blocks/attention/out"),
            *norm(f"{_LAYER}.{norm2}", "blocks/norm2"),
            *linear(f"{_LAYER}.intermediate.dense", "blocks/mlp/fc1"),
            *linear(f"{_LAYER}.output.dense", "blocks/mlp/fc2"),
            *norm(last, "norm"),
        ),
        prefixes=("", prefix),
        ignore=IGNORE,
        renames=RENAMES,
    )


NAMES = {
    MEGATRON: _names("attention.ln", "ln", "encoder.ln", "bert."),
    ROBERTA: _names(
        "attention.LayerNorm", "intermediate.LayerNorm", "LayerNorm", "roberta_prelayernorm."
    ),
    XLM_R_XL: _names(
        "attention.self_attn_layer_norm", "LayerNorm", "encoder.LayerNorm", "roberta."
    ),
}


def _module(config: TextConfig, **options: Any) -> TextTower:
    return TextTower(config, block_config(config, norms="before"), last_norm=True, **options)


def _family(model_type: str, title: str, models: str) -> Family:
    names = NAMES[model_type]
    return Family(
        name=model_type.replace("-", "_"),
        kind="text",
        title=title,
        models=models,
        model_types={model_type: None},
        parse=partial(_parse, model_type=model_type),
        module=_module,
        tables=(names,),
        prepare=family.prepare,
        adapt=family.adapt,
        adapters=NORMS,
        torch=TorchClass(
            describe=partial(_describe, model_type=model_type),
            table=lambda config: names,
            pooler=PoolerOutput(pooling="cls", dense=True),
            complete=with_types,
        ),
    )


MEGATRON_BERT = _family(MEGATRON, "MegatronBERT", "nvidia/megatron-bert-uncased-345m")
ROBERTA_PRENORM = _family(ROBERTA, "RoBERTa-PreLayerNorm", "andreasmadsen/efficient_mlm_m0.40")
XLM_ROBERTA_XL = _family(XLM_R_XL, "XLM-R XL", "facebook/xlm-roberta-xl, facebook/xlm-roberta-xxl")
