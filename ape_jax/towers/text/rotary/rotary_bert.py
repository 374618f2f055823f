"""BERT with rotary positions: Nomic (arXiv 2402.01613), GTE (2407.19669), Jina v3 (2409.10173).

Blocks norm after each branch, there is no table of positions, and the MLPs of the first two are
gated. Their publishers' files and those that transformers writes are called differently.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ape_jax.towers.family import DENSE, Family, Fields, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, fused, gated, linear, norm
from ape_jax.towers.text import family, rope
from ape_jax.towers.text.transformer import Span, TextConfig, TextTower, block_config

NOMIC, GTE, JINA = "nomic_bert", "gte", "jina_embeddings_v3"
_DEFAULTS: dict[str, dict[str, Any]] = {
    NOMIC: {"vocab_size": 30528, "hidden_act": "silu"},
    GTE: {"vocab_size": 250048},
    JINA: {
        "vocab_size": 250002,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-5,
    },
}
_THETA = {NOMIC: 1000.0, GTE: 160_000.0, JINA: 20_000.0}
_POSITIONS = {NOMIC: 2048, GTE: 8192, JINA: 8194}
_BIASES: dict[str, tuple[str, ...]] = {
    NOMIC: (),
    GTE: ("query", "key", "value", "out", "fc2"),
    JINA: ("query", "key", "value", "out", "fc1", "fc2"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryBertConfig(TextConfig):
    """The config of a BERT with rotary positions.

    Attributes:
      rope: the angles.
      gated: the MLPs are.
      biases: the linear layers of a block that have one.
    """

    rope: rope.Rope
    gated: bool
    biases: tuple[str, ...]


def _parse(fields: Fields, model_type: str) -> RotaryBertConfig:
    sizes = family.encoder_sizes(fields, **_DEFAULTS[model_type])
    head = fields.integer("head_dim", sizes["width"] // sizes["heads"])
    positions = fields.integer("max_position_embeddings", _POSITIONS[model_type])
    return RotaryBertConfig(
        family=model_type,
        rope=rope.read(fields, positions=positions, theta=_THETA[model_type]),
        gated=model_type != JINA,
        biases=_BIASES[model_type],
        types=fields.integer("type_vocab_size", 2 if model_type == NOMIC else 1, minimum=0),
        head_width=None if head * sizes["heads"] == sizes["width"] else head,
        position_table=False,
        **sizes,
        **family.text_fields(
            fields, positions=positions, pooling="cls" if model_type == GTE else "mean"
        ),
    )


# Keys of Nomic's own files, which are GPT-2's, by BERT's. What another value of the rest would
# change is not built.
_OWN_KEYS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
}
_OWN_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("swiglu",),
    "prenorm": (False, None),
    "parallel_block": (False, None),
    "use_rms_norm": (False, None),
    "causal": (False, None),
    "qkv_proj_bias": (False,),
    "mlp_fc1_bias": (False,),
    "mlp_fc2_bias": (False,),
    "rotary_emb_fraction": (1, None),
    "rotary_emb_interleaved": (False, None),
    "rotary_emb_scale_base": (None,),
    "rotary_scaling_factor": (None,),
    "num_experts": (None, 0),
}


def _parse_nomic(fields: Fields) -> RotaryBertConfig:
    if "n_embd" not in fields.values:
        return _parse(fields, NOMIC)
    for key, fits in _OWN_FIXED.items():
        if key in fields.values and fields.values[key] not in fits:
            raise fields.unsupported(
                f"{key!r} is {fields.values[key]!r}; of Nomic's models only those of "
                "nomic-embed-text-v1 and v1.5 are supported"
            )
    found = _OWN_KEYS | {key: key for key in ("vocab_size", "type_vocab_size")}
    own = {ours: fields.values[key] for ours, key in found.items() if key in fields.values}
    plain = Fields(own, fields.label, parent=fields.parent, directory=fields.directory)
    return _parse(plain, NOMIC)


_EMBED = (
    Rule("embeddings.word_embeddings.weight", "embed/token"),
    Rule("embeddings.token_type_embeddings.weight", "embed/type"),
)
# Heads of task classes, poolers, and buffers.
_IGNORE = (
    r"(.+\.)?embeddings\.(position_ids|token_type_ids)",
    r"(.+\.)?rotary_emb\..*inv_freq",
    r"(\w+\.)?pooler\.dense\.(weight|bias)",
    r"(cls|lm_head|classifier|qa_outputs)\..+",
)
_LAYER = "encoder.layers.{i}"
_OWN: dict[str, tuple[Rule, ...]] = {
    NOMIC: (
        *norm("emb_ln", "embed/norm"),
        *fused(f"{_LAYER}.attn.Wqkv"),
        *linear(f"{_LAYER}.attn.out_proj", "blocks/attention/out"),
        *norm(f"{_LAYER}.norm1", "blocks/norm1"),
        *linear(f"{_LAYER}.mlp.fc11", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.mlp.fc12", "blocks/mlp/gate"),
        *linear(f"{_LAYER}.mlp.fc2", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.norm2", "blocks/norm2"),
    ),
    GTE: (
        *norm("embeddings.LayerNorm", "embed/norm"),
        *fused("encoder.layer.{i}.attention.qkv_proj"),
        *linear("encoder.layer.{i}.attention.o_proj", "blocks/attention/out"),
        *norm("encoder.layer.{i}.attn_ln", "blocks/norm1"),
        *gated("encoder.layer.{i}.mlp.up_gate_proj", "blocks/mlp", first="fc1"),
        *linear("encoder.layer.{i}.mlp.down_proj", "blocks/mlp/fc2"),
        *norm("encoder.layer.{i}.mlp_ln", "blocks/norm2"),
    ),
    JINA: (
        *norm("emb_ln", "embed/norm"),
        *fused(f"{_LAYER}.mixer.Wqkv"),
        *linear(f"{_LAYER}.mixer.out_proj", "blocks/attention/out"),
        *norm(f"{_LAYER}.norm1", "blocks/norm1"),
        *linear(f"{_LAYER}.mlp.fc1", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.mlp.fc2", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.norm2", "blocks/norm2"),
    ),
}
_BLOCK = "layers.{i}"
_TRANSFORMERS = (
    *_EMBED,
    *norm("embeddings.LayerNorm", "embed/norm"),
    *linear(f"{_BLOCK}.self_attn.q_proj", "blocks/attention/query"),
    *linear(f"{_BLOCK}.self_attn.k_proj", "blocks/attention/key"),
    *linear(f"{_BLOCK}.self_attn.v_proj", "blocks/attention/value"),
    *linear(f"{_BLOCK}.self_attn.o_proj", "blocks/attention/out"),
    *norm(f"{_BLOCK}.post_attention_layernorm", "blocks/norm1"),
    *linear(f"{_BLOCK}.mlp.gate_proj", "blocks/mlp/gate"),
    *linear(f"{_BLOCK}.mlp.up_proj", "blocks/mlp/fc1"),
    *linear(f"{_BLOCK}.mlp.down_proj", "blocks/mlp/fc2"),
    *linear(f"{_BLOCK}.mlp.fc1", "blocks/mlp/fc1"),
    *linear(f"{_BLOCK}.mlp.fc2", "blocks/mlp/fc2"),
    *norm(f"{_BLOCK}.post_mlp_layernorm", "blocks/norm2"),
)


def _module(config: RotaryBertConfig, **options: Any) -> TextTower:
    block = block_config(config, norms="after", gated=config.gated, biases=config.biases)
    width = config.head_width or config.width // config.heads
    angles = {"frequencies": config.rope.frequencies(width), "strength": config.rope.strength}
    return TextTower(config, block, spans=(Span(**angles),), **options)


def _describe(config: RotaryBertConfig, pooling: str, model_type: str) -> dict[str, Any]:
    return family.describe(
        config,
        model_type,
        type_vocab_size=config.types,
        head_dim=config.head_width or config.width // config.heads,
        rope_parameters=config.rope.describe(),
    )


def _family(model_type: str, title: str, models: str, prefixes: tuple[str, ...]) -> Family:
    own = NameTable(rules=(*_EMBED, *_OWN[model_type]), prefixes=prefixes, ignore=_IGNORE)
    written = {
        JINA: [r for r in _TRANSFORMERS if "_proj" not in r.file or "self_attn" in r.file],
    }.get(model_type, [r for r in _TRANSFORMERS if ".mlp.fc" not in r.file])
    names = NameTable(rules=tuple(written), prefixes=prefixes, ignore=_IGNORE)
    return Family(
        name=model_type,
        kind="text",
        title=title,
        models=models,
        model_types={model_type: None},
        parse=_parse_nomic if model_type == NOMIC else partial(_parse, model_type=model_type),
        module=_module,
        tables=(own, names),
        prepare=family.prepare,
        adapt=family.adapt,
        adapters=DENSE,
        torch=TorchClass(
            describe=partial(_describe, model_type=model_type),
            table=lambda config: names,
        ),
    )


NOMIC_BERT = _family(
    NOMIC, "Nomic BERT", "nomic-ai/nomic-embed-text-v1.5", ("", "nomic_bert.", "bert.")
)
GTE_BERT = _family(GTE, "GTE", "alibaba-nlp-community/gte-multilingual-base", ("", "gte.", "new."))
JINA_V3 = dataclasses.replace(
    _family(JINA, "Jina v3", "jinaai/jina-embeddings-v3-hf", ("", "roberta.")),
    licence="CC-BY-NC-4.0",
)
