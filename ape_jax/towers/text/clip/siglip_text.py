"""The text tower of SigLIP (arXiv 2303.15343), SigLIP 2 (2502.14786), and big_vision's own.

Pre-norm blocks without a causal mask. The last position is what the model reads, and padding is a
part of the text: every sequence is filled up to `max_length` and all of it is attended to
(`TextConfig.attends_padding`). The linear head behind it is a head, and no part of the tower.
"""

from __future__ import annotations

from typing import Any

from ape_jax.towers.family import NORMS, Family, Fields
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.text import family
from ape_jax.towers.text.clip import clip_text
from ape_jax.towers.text.transformer import TextConfig, TextTower, block_config


def _parse(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 64)
    return TextConfig(
        family="siglip_text",
        vocab_size=fields.integer("vocab_size", 32000),
        width=fields.integer("hidden_size", 768),
        depth=fields.integer("num_hidden_layers", 12),
        heads=fields.integer("num_attention_heads", 12),
        mlp_width=fields.integer("intermediate_size", 3072),
        activation=fields.activation("hidden_act", "gelu_pytorch_tanh"),
        norm_eps=fields.number("layer_norm_eps", 1e-6),
        embed_norm=False,
        attends_padding=True,
        **family.text_fields(fields, positions=positions, pooling="last", trained=True),
    )


NAMES = NameTable(
    rules=clip_text.NAMES.rules,
    prefixes=clip_text.NAMES.prefixes,
    ignore=(
        r"vision_model\..+",
        r"(text_model\.)?head\.(weight|bias)",
        r"logit_(scale|bias)",
        r"(text_model\.)?embeddings\.position_ids",
    ),
)


def _module(config: TextConfig, **options: Any) -> TextTower:
    block = block_config(config, norms="before")
    return TextTower(config, block, last_norm=True, **options)


SIGLIP_TEXT = Family(
    name="siglip_text",
    kind="text",
    title="SigLIP",
    models="google/siglip-base-patch16-224, SigLIP 2, big_vision's LiT and SigLIP",
    model_types={
        "siglip": "text_config",
        "siglip_text_model": None,
        "siglip2": "text_config",
        "siglip2_text_model": None,
    },
    parse=_parse,
    module=_module,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=NORMS,
    torch="attends to padding, which no exported tokenizer adds to a text",
)
