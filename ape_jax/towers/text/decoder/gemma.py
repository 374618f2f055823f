"""Gemma (arXiv 2403.08295) and Gemma 3's text model (2503.19786): EmbeddingGemma (2509.20354).

Norms keep their distance from one in files, and embeddings are multiplied by the root of the width.
Gemma 3 norms after its branches as well, and most of its blocks see near tokens only, by other
angles than the rest.
"""

from __future__ import annotations

from typing import Any

from ape_jax.towers.family import Fields
from ape_jax.towers.text import family, rope
from ape_jax.towers.text.decoder import stack
from ape_jax.towers.text.decoder.stack import DecoderConfig

_GEMMA = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "activation": "gelu_pytorch_tanh",
}
_GEMMA3 = {
    **_GEMMA,
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "activation_key": "hidden_activation",
}
_THETA_FULL = 1_000_000.0


def _shared(fields: Fields, default: dict[str, Any]) -> dict[str, Any]:
    sizes = stack.sizes(fields, **default)
    return {**sizes, "norm_offset": 1.0, "embed_scale": sizes["width"] ** 0.5}


def _parse_gemma(fields: Fields) -> DecoderConfig:
    if fields.flag("use_bidirectional_attention", False):
        raise fields.unsupported(
            "use_bidirectional_attention is true, which transformers applies to some batches alone"
        )
    shared = _shared(fields, _GEMMA)
    if shared["activation"] == "gelu":  # So do all first files, and meant the approximate one.
        shared["activation"] = "gelu_pytorch_tanh"
    positions = fields.integer("max_position_embeddings", 8192)
    return DecoderConfig(
        family="gemma",
        **shared,
        biases=stack.biases(fields),
        causal=fields.flag("is_causal", True),
        ropes=(rope.read(fields, positions=positions),),
        **family.text_fields(fields, positions=positions, pooling="mean"),
    )


def _describe_gemma(config: DecoderConfig, pooling: str) -> dict[str, Any]:
    causal = {} if config.causal else {"is_causal": False}
    return stack.describe(config, "gemma", attention_bias=bool(config.biases), **causal)


def _parse_gemma3(fields: Fields) -> DecoderConfig:
    if fields.values.get("attn_logit_softcapping") is not None:
        raise fields.unsupported(
            "attn_logit_softcapping is set; only towers without it are supported"
        )
    shared = _shared(fields, _GEMMA3)
    positions = fields.integer("max_position_embeddings", 131072)
    scalar = fields.integer("query_pre_attn_scalar", 256)
    size = shared["head_width"] or shared["width"] // shared["heads"]
    causal = not fields.flag("use_bidirectional_attention", False)
    return DecoderConfig(
        family="gemma3_text",
        **shared,
        biases=stack.biases(fields),
        qk_norm=True,
        post_norms=True,
        query_scalar=None if scalar == size else scalar,
        causal=causal,
        ropes=_ropes(fields, positions),
        **_windows(fields, shared["depth"], causal),
        **family.text_fields(fields, positions=positions, pooling="mean"),
    )


def _windows(fields: Fields, depth: int, causal: bool) -> dict[str, Any]:
    """Every sixth block is full."""
    window = stack.nullable(fields, "sliding_window", 4096)
    pattern = fields.integer("sliding_window_pattern", 6)
    own = stack.kinds(fields, depth, lambda i: bool((i + 1) % pattern))
    if window is not None:  # Of both sides together, where a token sees both.
        window = stack.reach(window, causal=True) if causal else window // 2
    return stack.spans_by(own, window, fields)


def _ropes(fields: Fields, positions: int) -> tuple[rope.Rope, rope.Rope]:
    """Of full and of sliding blocks; older files have a key for each base, and scale the first."""
    nested = rope.section(fields, "rope_parameters")
    thetas = {
        "full_attention": fields.number("rope_theta", _THETA_FULL),
        "sliding_attention": fields.number("rope_local_base_freq", rope.THETA),
    }
    found = {
        name: rope.read_section(rope.section(nested, name), theta=theta, positions=positions)
        for name, theta in thetas.items()
    }
    if fields.mapping("rope_scaling"):
        scaled = rope.section(fields, "rope_scaling")
        theta = found["full_attention"].theta
        found["full_attention"] = rope.read_section(scaled, theta=theta, positions=positions)
    return found["full_attention"], found["sliding_attention"]


def _describe_gemma3(config: DecoderConfig, pooling: str) -> dict[str, Any]:
    full, sliding = (found.describe() for found in config.ropes)
    reach = config.reach or 0
    described = stack.describe(
        config,
        "gemma3_text",
        hidden_activation=config.activation,
        attention_bias=bool(config.biases),
        query_pre_attn_scalar=config.query_scalar or config.size,
        use_bidirectional_attention=not config.causal,
        sliding_window=reach + 1 if config.causal else 2 * reach,
        layer_types=config.layer_types(),
        rope_parameters={"full_attention": full, "sliding_attention": sliding},
    )
    return {key: value for key, value in described.items() if key != "hidden_act"}


GEMMA = stack.declare(
    "gemma",
    "Gemma",
    "google/gemma-2b",
    parse=_parse_gemma,
    describe=_describe_gemma,
)
GEMMA3 = stack.declare(
    "gemma3_text",
    "Gemma 3",
    "google/embeddinggemma-300m",
    parse=_parse_gemma3,
    describe=_describe_gemma3,
    table=stack.names(
        "pre_feedforward_layernorm",
        ("post_attention_layernorm", "post_norm1"),
        ("post_feedforward_layernorm", "post_norm2"),
    ),
)
