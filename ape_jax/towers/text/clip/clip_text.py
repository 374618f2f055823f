"""The text tower of CLIP (arXiv 2103.00020): causal, pre-norm, pooled at the end-of-text token.

MetaCLIP 2 (arXiv 2507.22062) has it with a multilingual vocabulary.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import NORMS, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import LARGEST, Span, TextConfig, TextTower, block_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig(TextConfig):
    """The config of a CLIP text tower.

    Attributes:
      eos_id: the end-of-text token.
    """

    eos_id: int
    embed_norm: bool = False


# CLIP's configs from before transformers' pull request 24773 have this wrong end-of-text token, and
# its class then takes the largest id of each text.
_LEGACY_END = 2


def _parse(fields: Fields, name: str) -> ClipTextConfig:
    positions = fields.integer("max_position_embeddings", 77)
    return ClipTextConfig(
        family=name,
        vocab_size=fields.integer("vocab_size", 49408),
        width=fields.integer("hidden_size", 512),
        depth=fields.integer("num_hidden_layers", 12),
        heads=fields.integer("num_attention_heads", 8),
        mlp_width=fields.integer("intermediate_size", 2048),
        activation=fields.activation("hidden_act", "quick_gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        eos_id=fields.integer("eos_token_id", 49407, minimum=0),
        **family.text_fields(fields, positions=positions, pooling="last", trained=True),
    )


_LAYER = "encoder.layers.{i}"
NAMES = NameTable(
    rules=(
        Rule("embeddings.token_embedding.weight", "embed/token"),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *linear(f"{_LAYER}.self_attn.q_proj", "blocks/attention/query"),
        *linear(f"{_LAYER}.self_attn.k_proj", "blocks/attention/key"),
        *linear(f"{_LAYER}.self_attn.v_proj", "blocks/attention/value"),
        *linear(f"{_LAYER}.self_attn.out_proj", "blocks/attention/out"),
        *norm(f"{_LAYER}.layer_norm1", "blocks/norm1"),
        *norm(f"{_LAYER}.layer_norm2", "blocks/norm2"),
        *linear(f"{_LAYER}.mlp.fc1", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.mlp.fc2", "blocks/mlp/fc2"),
        *norm("final_layer_norm", "norm"),
    ),
    prefixes=("", "text_model."),
    # The other tower and the projections: a head is what this project trains.
    ignore=(
        r"vision_model\..+",
        r"(visual|text)_projection\.weight",
        r"logit_scale",
        r"(text_model\.)?embeddings\.position_ids",
    ),
)


def _ends_at(config: ClipTextConfig) -> int:
    is_legacy = config.family == "clip_text" and config.eos_id == _LEGACY_END
    return LARGEST if is_legacy else config.eos_id


def _module(config: ClipTextConfig, **options: Any) -> TextTower:
    return TextTower(
        config,
        block_config(config, norms="before"),
        last_norm=True,
        spans=(Span(causal=True),),
        ends_at=_ends_at(config),
        **options,
    )


def _describe(config: ClipTextConfig, pooling: str) -> dict[str, Any]:
    return family.describe(config, "clip_text_model", eos_token_id=config.eos_id)


CLIP_TEXT = Family(
    name="clip_text",
    kind="text",
    title="CLIP",
    models="openai/clip-vit-base-patch32",
    model_types={"clip": "text_config", "clip_text_model": None},
    parse=partial(_parse, name="clip_text"),
    module=_module,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=NORMS,
    torch=TorchClass(
        describe=_describe,
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="last", last_bias="final_layer_norm.bias"),
        end_token=_ends_at,
    ),
)

METACLIP_2_TEXT = dataclasses.replace(
    CLIP_TEXT,
    name="metaclip_2_text",
    title="MetaCLIP 2",
    models="facebook/metaclip-2-worldwide-huge-quickgelu",
    model_types={"metaclip_2": "text_config", "metaclip_2_text_model": None},
    parse=partial(_parse, name="metaclip_2_text"),
    # Written as CLIP's class, whose own pooling takes its end-of-text token for a legacy of CLIP's.
    torch=TorchClass(describe=_describe, table=lambda config: NAMES, end_token=_ends_at),
)
