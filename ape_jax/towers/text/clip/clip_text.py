"""The text tower of CLIP (arXiv 2103.00020): causal, pre-norm, pooled at the end-of-text token."""

from __future__ import annotations

import dataclasses
from typing import Any

from ape_jax.nn.layers import ACTIVATIONS
from ape_jax.towers.family import NORMS, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import TextConfig, TextTower


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig(TextConfig):
    """The config of a CLIP text tower.

    Attributes:
      eos_id: the end-of-text token; 2 means the largest id of each text, as in transformers.
    """

    eos_id: int
    embed_norm: bool = False


def _parse(fields: Fields) -> ClipTextConfig:
    positions = fields.integer("max_position_embeddings", 77)
    return ClipTextConfig(
        family="clip_text",
        vocab_size=fields.integer("vocab_size", 49408),
        width=fields.integer("hidden_size", 512),
        depth=fields.integer("num_hidden_layers", 12),
        heads=fields.integer("num_attention_heads", 8),
        mlp_width=fields.integer("intermediate_size", 2048),
        activation=fields.choice("hidden_act", ACTIVATIONS, "quick_gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        eos_id=fields.integer("eos_token_id", 49407, minimum=0),
        **family.text_fields(fields, positions=positions, pooling="last"),
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


def _module(config: ClipTextConfig, **options: Any) -> TextTower:
    ends_at = config.eos_id
    return TextTower(config, norms_first=True, causal=True, ends_at=ends_at, **options)


def _describe(config: ClipTextConfig, pooling: str) -> dict[str, Any]:
    return family.describe(config, "clip_text_model", eos_token_id=config.eos_id)


CLIP_TEXT = Family(
    name="clip_text",
    kind="text",
    title="CLIP",
    models="openai/clip-vit-base-patch32",
    model_types={"clip": "text_config", "clip_text_model": None},
    parse=_parse,
    module=_module,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=NORMS,
    torch=TorchClass(
        describe=_describe,
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="last", last_bias="final_layer_norm.bias"),
        end_token=lambda config: config.eos_id,
    ),
)
