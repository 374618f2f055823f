"""Qwen 2 (arXiv 2407.10671) and Qwen 3 (2505.09388): Qwen3-Embedding, GTE-Qwen2."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import Fields
from ape_jax.towers.text import family, rope
from ape_jax.towers.text.decoder import stack
from ape_jax.towers.text.decoder.stack import DecoderConfig

QWEN2_NAME, QWEN3_NAME = "qwen2", "qwen3"
_SIZES = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
_QKV = ("query", "key", "value")


def _parse(fields: Fields, name: str) -> DecoderConfig:
    is_3 = name == QWEN3_NAME
    sizes = stack.sizes(fields, **_SIZES, head_dim=128 if is_3 else None)
    positions = fields.integer("max_position_embeddings", 32768)
    # A model that was made to see both ways (GTE-Qwen2).
    causal = fields.flag("is_causal", True)
    return DecoderConfig(
        family=name,
        **sizes,
        biases=stack.biases(fields) if is_3 else _QKV,
        qk_norm=is_3,
        causal=causal,
        ropes=(rope.read(fields, positions=positions),),
        **_windows(fields, sizes["depth"], causal),
        **family.text_fields(fields, positions=positions, pooling="mean"),
    )


def _windows(fields: Fields, depth: int, causal: bool) -> dict[str, Any]:
    """The upper blocks are sliding, if any are."""
    window, first = stack.nullable(fields, "sliding_window", 4096), 28
    first = fields.integer("max_window_layers", first, minimum=0)
    if not fields.flag("use_sliding_window", False):
        window = None
    own = stack.kinds(fields, depth, lambda i: window is not None and i >= first)
    return stack.spans_by(own, window and stack.reach(window, causal=causal), fields)


def _describe(config: DecoderConfig, pooling: str, name: str) -> dict[str, Any]:
    more: dict[str, Any] = {} if config.causal else {"is_causal": False}
    if name == QWEN3_NAME:
        more["attention_bias"] = bool(config.biases)
    if config.reach is not None:
        window = config.reach + (1 if config.causal else 0)
        more |= {"use_sliding_window": True, "sliding_window": window}
    return stack.describe(config, name, layer_types=config.layer_types(), **more)


def _family(name: str, title: str, models: str) -> Any:
    return stack.declare(
        name,
        title,
        models,
        parse=partial(_parse, name=name),
        describe=partial(_describe, name=name),
    )


QWEN2 = _family(QWEN2_NAME, "Qwen2", "Alibaba-NLP/gte-Qwen2-1.5B-instruct")
QWEN3 = dataclasses.replace(
    _family(QWEN3_NAME, "Qwen3", "Qwen/Qwen3-Embedding-0.6B"), licence="Apache-2.0"
)
