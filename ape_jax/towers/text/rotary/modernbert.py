"""ModernBERT (arXiv 2412.13663): norms first and no biases, rotary positions, local attention.

Of three blocks two attend to the 64 tokens on either side, with angles of their own. The first
block has no first norm, since the embeddings are normed: its row of `norm1` stands among the
parameters, is counted with them, and is neither read from a file nor written to one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ape_jax.towers.family import NORMS, Family, Fields, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, fused, gated, linear, norm
from ape_jax.towers.text import family, rope
from ape_jax.towers.text.transformer import Span, TextConfig, TextTower, block_config

_GLOBAL, _LOCAL, _FIRST = range(3)
_KINDS = {"full_attention": _GLOBAL, "sliding_attention": _LOCAL}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernBertConfig(TextConfig):
    """The config of a ModernBERT.

    Attributes:
      ropes: the angles of blocks that attend to all tokens, and of those that attend to near ones.
      reach: how far those see, to either side.
      first_local: whether the first block is one of those.
      biases: the linear layers of a block that have one.
    """

    ropes: tuple[rope.Rope, rope.Rope]
    reach: int
    first_local: bool
    biases: tuple[str, ...]


def _parse(fields: Fields) -> ModernBertConfig:
    depth = fields.integer("num_hidden_layers", 22)
    kinds = [_KINDS[name] for name in _layer_types(fields, depth)]
    positions = fields.integer("max_position_embeddings", 8192)
    attention, mlp = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return ModernBertConfig(
        family="modernbert",
        vocab_size=fields.integer("vocab_size", 50368),
        width=fields.integer("hidden_size", 768),
        depth=depth,
        heads=fields.integer("num_attention_heads", 12),
        mlp_width=fields.integer("intermediate_size", 1152),
        activation=fields.activation("hidden_activation", "gelu"),
        norm_eps=fields.number("norm_eps", 1e-5),
        norm_bias=fields.flag("norm_bias", False),
        kinds=(_FIRST, *kinds[1:]),
        ropes=(
            _rope(fields, positions, "full_attention", "global_rope_theta", 160_000.0),
            _rope(fields, positions, "sliding_attention", "local_rope_theta", 10_000.0),
        ),
        reach=fields.integer("local_attention", 128) // 2,
        first_local=kinds[0] == _LOCAL,
        biases=("query", "key", "value", "out") * attention + ("gate", "fc1", "fc2") * mlp,
        position_table=False,
        **family.text_fields(fields, positions=positions, pooling="mean"),
    )


def _rope(fields: Fields, positions: int, layers: str, older: str, default: float) -> rope.Rope:
    """The angles of one kind of blocks; older files have a key for each base."""
    theta = fields.number(older, default)
    nested = rope.section(rope.section(fields, "rope_parameters"), layers)
    scaled = rope.section(fields, "rope_scaling")
    found = scaled if scaled.values else nested
    return rope.read_section(found, theta=theta, positions=positions)


def _layer_types(fields: Fields, depth: int) -> list[str]:
    """What each block attends to; older files say only which of how many attends to all."""
    every = fields.integer("global_attn_every_n_layers", 3)
    found = fields.values.get("layer_types")
    if found is None:
        return ["sliding_attention" if i % every else "full_attention" for i in range(depth)]
    if not isinstance(found, list) or len(found) != depth or not set(found) <= _KINDS.keys():
        raise fields.error(
            f"'layer_types' must name one of {', '.join(_KINDS)} for each of {depth} layers"
        )
    return found


_LAYER = "layers.{i}"
NAMES = NameTable(
    rules=(
        Rule("embeddings.tok_embeddings.weight", "embed/token"),
        *norm("embeddings.norm", "embed/norm"),
        *norm(f"{_LAYER}.attn_norm", "blocks/norm1", since=1),
        *fused(f"{_LAYER}.attn.Wqkv"),
        *linear(f"{_LAYER}.attn.Wo", "blocks/attention/out"),
        *norm(f"{_LAYER}.mlp_norm", "blocks/norm2"),
        *gated(f"{_LAYER}.mlp.Wi", "blocks/mlp"),
        *linear(f"{_LAYER}.mlp.Wo", "blocks/mlp/fc2"),
        *norm("final_norm", "norm"),
    ),
    prefixes=("", "model."),
    ignore=(r"(head|decoder|classifier)\..+", r"(model\.)?rotary_emb\..*inv_freq"),
)


def _spans(config: ModernBertConfig) -> tuple[Span, Span, Span]:
    width = config.width // config.heads
    wide, near = (
        {"frequencies": kind.frequencies(width), "strength": kind.strength} for kind in config.ropes
    )
    everything = Span(**wide, norm1=True)
    local = Span(**near, reach=config.reach, norm1=True)
    first = dataclasses.replace(local if config.first_local else everything, norm1=False)
    return everything, local, first


def _module(config: ModernBertConfig, **options: Any) -> TextTower:
    block = block_config(config, norms="before", gated=True, biases=config.biases)
    return TextTower(config, block, last_norm=True, spans=_spans(config), **options)


def _describe(config: ModernBertConfig, pooling: str) -> dict[str, Any]:
    names = {kind: name for name, kind in _KINDS.items()}
    names[_FIRST] = names[_LOCAL if config.first_local else _GLOBAL]
    return {
        "model_type": "modernbert",
        "vocab_size": config.vocab_size,
        "pad_token_id": None,  # Its default is an id that a small vocabulary does not have.
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_activation": config.activation,
        "norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "attention_bias": "out" in config.biases,
        "mlp_bias": "fc2" in config.biases,
        "local_attention": 2 * config.reach,
        "layer_types": [names[kind] for kind in config.own_kinds or ()],
        "rope_parameters": {
            name: kind.describe() for name, kind in zip(_KINDS, config.ropes, strict=True)
        },
    }


MODERNBERT = Family(
    name="modernbert",
    kind="text",
    title="ModernBERT",
    models="answerdotai/ModernBERT-base, Alibaba-NLP/gte-modernbert-base, jhu-clsp/mmBERT-base",
    licence="Apache-2.0",
    model_types={"modernbert": None},
    parse=_parse,
    module=_module,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=NORMS,
    torch=TorchClass(describe=_describe, table=lambda config: NAMES),
)
