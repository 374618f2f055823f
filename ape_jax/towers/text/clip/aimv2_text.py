"""AIMv2's text tower (arXiv 2411.14402): CLIP's, of RMS norms, gated MLPs and without biases."""

from __future__ import annotations

import dataclasses
from typing import Any

from ape_jax.nn.blocks import DENSE
from ape_jax.towers.family import NORMS, Family, Fields
from ape_jax.towers.files.names import NameTable, Rule
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import Span, TextConfig, TextTower, block_config
from ape_jax.towers.vision.clip.aimv2 import BLOCKS, unbiased

_NAMES = NameTable(
    rules=(
        Rule("embeddings.token_embedding.weight", "embed/token"),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *BLOCKS,
    ),
    prefixes=("", "text_model."),
    ignore=(
        r"vision_model\..+",
        r"(visual|text)_projection\.weight",
        r"logit_scale",
        r"(text_model\.)?embeddings\.position_ids",
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aimv2TextConfig(TextConfig):
    """The config of an AIMv2 text tower.

    Attributes:
      eos_id: the end-of-text token.
      unbiased: the linear layers of a block that have no bias.
    """

    eos_id: int
    unbiased: tuple[str, ...]
    embed_norm: bool = False


def _parse(fields: Fields) -> Aimv2TextConfig:
    positions = fields.integer("max_position_embeddings", 77)
    qkv_bias, mlp_bias = fields.flag("qkv_bias", False), fields.flag("mlp_bias", False)
    return Aimv2TextConfig(
        family="aimv2_text",
        vocab_size=fields.integer("vocab_size", 49408),
        width=fields.integer("hidden_size", 768),
        depth=fields.integer("num_hidden_layers", 12),
        heads=fields.integer("num_attention_heads", 6),
        mlp_width=fields.integer("intermediate_size", 2048),
        activation=fields.activation("hidden_act", "silu"),
        norm_eps=fields.number("rms_norm_eps", 1e-5),
        norm_kind="rms",
        eos_id=fields.integer("eos_token_id", 49407, minimum=0),
        unbiased=("query", "key", "value") * (not qkv_bias) + unbiased(qkv_bias, mlp_bias),
        **family.text_fields(fields, positions=positions, pooling="last"),
    )


def _module(config: Aimv2TextConfig, **options: Any) -> TextTower:
    biases = tuple(name for name in DENSE if name not in config.unbiased)
    return TextTower(
        config,
        block_config(config, norms="before", gated=True, biases=biases),
        last_norm=True,
        # Transformers' class sees all of a text that comes without a mask, which none here does.
        spans=(Span(causal=True),),
        ends_at=config.eos_id,
        **options,
    )


AIMV2_TEXT = Family(
    name="aimv2_text",
    kind="text",
    title="AIMv2",
    models="apple/aimv2-large-patch14-224-lit",
    model_types={"aimv2": "text_config", "aimv2_text_model": None},
    parse=_parse,
    module=_module,
    tables=(_NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=NORMS,
    torch="has a class in transformers that AutoModel does not make",
)
