"""Llama (arXiv 2302.13971, 2407.21783), Mistral (2310.06825) and EuroBERT (2503.05500)."""

from __future__ import annotations

from typing import Any

from ape_jax.towers.family import Fields
from ape_jax.towers.text import family, rope
from ape_jax.towers.text.decoder import stack
from ape_jax.towers.text.decoder.stack import DecoderConfig

_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
_MISTRAL = {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8}
_EUROBERT = {
    "vocab_size": 128256,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "rms_norm_eps": 1e-5,
}


def _shared(fields: Fields, positions: int, default: dict[str, Any]) -> dict[str, Any]:
    positions = fields.integer("max_position_embeddings", positions)
    return {
        **stack.sizes(fields, **default),
        "ropes": (rope.read(fields, positions=positions),),
        **family.text_fields(fields, positions=positions, pooling="mean"),
    }


def _parse_llama(fields: Fields) -> DecoderConfig:
    return DecoderConfig(
        family="llama",
        biases=stack.biases(fields),
        causal=fields.flag("is_causal", True),
        **_shared(fields, 2048, _LLAMA),
    )


def _describe_llama(config: DecoderConfig, pooling: str) -> dict[str, Any]:
    causal = {} if config.causal else {"is_causal": False}
    return stack.describe(config, "llama", **_with_biases(config), **causal)


def _with_biases(config: DecoderConfig) -> dict[str, Any]:
    return {"attention_bias": "out" in config.biases, "mlp_bias": "fc2" in config.biases}


def _parse_mistral(fields: Fields) -> DecoderConfig:
    shared = _shared(fields, 131072, _MISTRAL)
    causal, window = fields.flag("is_causal", True), stack.nullable(fields, "sliding_window", 4096)
    reach = None if window is None else stack.reach(window, causal=causal)
    return DecoderConfig(family="mistral", causal=causal, reach=reach, **shared)


def _describe_mistral(config: DecoderConfig, pooling: str) -> dict[str, Any]:
    more: dict[str, Any] = {} if config.causal else {"is_causal": False}
    reach = config.reach
    window = None if reach is None else reach + (1 if config.causal else 0)
    return stack.describe(config, "mistral", sliding_window=window, **more)


def _parse_eurobert(fields: Fields) -> DecoderConfig:
    return DecoderConfig(
        family="eurobert",
        biases=stack.biases(fields),
        causal=False,
        **_shared(fields, 8192, _EUROBERT),
    )


def _describe_eurobert(config: DecoderConfig, pooling: str) -> dict[str, Any]:
    return stack.describe(config, "eurobert", **_with_biases(config))


LLAMA = stack.declare(
    "llama",
    "Llama",
    "meta-llama/Llama-3.2-1B",
    parse=_parse_llama,
    describe=_describe_llama,
)
MISTRAL = stack.declare(
    "mistral",
    "Mistral",
    "intfloat/e5-mistral-7b-instruct",
    parse=_parse_mistral,
    describe=_describe_mistral,
)
EUROBERT = stack.declare(
    "eurobert",
    "EuroBERT",
    "EuroBERT/EuroBERT-210m",
    parse=_parse_eurobert,
    describe=_describe_eurobert,
)
