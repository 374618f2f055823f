"""What the language models since LLaMA have in common, as text towers.

Blocks norm first by RMS (arXiv 2302.13971), have a gated MLP, rotary positions, and fewer heads of
keys and values than of queries. A token attends to those before it, or to all; in some blocks only
to near ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ape_jax.nn.blocks import BlockConfig
from ape_jax.towers.family import NORMS, Family, Fields, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear
from ape_jax.towers.text import family
from ape_jax.towers.text.rope import Rope
from ape_jax.towers.text.transformer import Span, TextConfig, TextTower, block_config

KINDS = ("full_attention", "sliding_attention")
"""The kinds of blocks (`TowerConfig.kinds`) by transformers' names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(TextConfig):
    """The config of a tower of this kind.

    Attributes:
      kv_heads: heads of keys and values.
      biases: the linear layers that have one, see `blocks.BlockConfig`.
      qk_norm: a norm of each head's queries and keys.
      post_norms: norms after the branches as well (Gemma 3).
      query_scalar: the logits are divided by its root; None is the width of a head.
      causal: a token attends to itself and those before it only.
      reach: in sliding blocks, and in all if `kinds` is (), to those at this distance or nearer
        only; None where all blocks are full.
      ropes: of full blocks, and of sliding ones where theirs are others.
    """

    kv_heads: int
    biases: tuple[str, ...] = ()
    qk_norm: bool = False
    post_norms: bool = False
    query_scalar: int | None = None
    causal: bool = True
    reach: int | None = None
    ropes: tuple[Rope, ...] = (Rope(),)
    norm_kind: Literal["layer", "rms"] = "rms"
    position_table: bool = False
    embed_norm: bool = False

    @property
    def size(self) -> int:
        """Channels of a head."""
        return self.head_width or self.width // self.heads

    def layer_types(self) -> list[str]:
        """The kind of each block by its name in transformers."""
        alike = 0 if self.reach is None else 1
        return [KINDS[kind] for kind in self.own_kinds or (alike,) * self.depth]


def sizes(fields: Fields, **default: Any) -> dict[str, Any]:
    """The keys that all of these models share.

    Args:
      fields: of the config.json.
      **default: values that the family's config class has; `num_key_value_heads` and `head_dim`
        are derived where they are left out.

    Raises:
      UserError: for values that do not fit together.
    """
    width = fields.integer("hidden_size", default["hidden_size"])
    heads = fields.integer("num_attention_heads", default["num_attention_heads"])
    kv_heads = nullable(fields, "num_key_value_heads", default.get("num_key_value_heads")) or heads
    if heads % kv_heads:
        raise fields.error(
            f"num_key_value_heads is {kv_heads}, which does not divide the {heads} attention "
            "heads; write a divisor of them"
        )
    size = nullable(fields, "head_dim", default.get("head_dim"))
    if (size or width // heads) % 2:
        raise fields.error(
            f"heads have {size or width // heads} channels, which rotary positions turn in pairs; "
            "write an even head_dim"
        )
    act = default.get("activation_key", "hidden_act")
    return {
        "vocab_size": fields.integer("vocab_size", default["vocab_size"]),
        "width": width,
        "depth": fields.integer("num_hidden_layers", default["num_hidden_layers"]),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_width": None if size is None or size * heads == width else size,
        "mlp_width": fields.integer("intermediate_size", default["intermediate_size"]),
        "activation": fields.activation(act, default.get("activation", "silu")),
        "norm_eps": fields.number("rms_norm_eps", default.get("rms_norm_eps", 1e-6)),
    }


def nullable(fields: Fields, key: str, default: int | None) -> int | None:
    """A whole number, or null, which is not the same as no such key."""
    value = fields.values.get(key)
    if value is None:
        return None if key in fields.values else default
    return fields.integer(key)


def biases(fields: Fields, own: Iterable[str] = ()) -> tuple[str, ...]:
    """The linear layers that have a bias, of models that have keys for it."""
    attention = ("query", "key", "value", "out") if fields.flag("attention_bias", False) else own
    mlp = ("gate", "fc1", "fc2") if fields.flag("mlp_bias", False) else ()
    return (*attention, *mlp)


def reach(window: int, *, causal: bool) -> int:
    """The farthest token that transformers' sliding window shows.

    Args:
      window: the value of `sliding_window`.
      causal: its mask counts the token itself; that of towers that see both ways does not.
    """
    return window - 1 if causal else window


def kinds(fields: Fields, depth: int, default: Callable[[int], bool]) -> tuple[int, ...]:
    """The kind of each block: 0 sees all tokens, 1 is sliding.

    Args:
      fields: of the config.json.
      depth: how many blocks.
      default: of block i, whether it is sliding where the config does not say.

    Raises:
      UserError: `layer_types` is no list of `depth` such names.
    """
    types = fields.values.get("layer_types")
    if types is None:
        return tuple(int(default(i)) for i in range(depth))
    if not isinstance(types, list) or len(types) != depth or not all(t in KINDS for t in types):
        raise fields.error(
            f"layer_types must be a list of {depth} names, each {' or '.join(map(repr, KINDS))}"
        )
    return tuple(KINDS.index(t) for t in types)


def spans_by(own: tuple[int, ...], window: int | None, fields: Fields) -> dict[str, Any]:
    """The fields of a config that kinds of blocks are: `kinds` and whether there is a `reach`.

    Args:
      own: of each block, see `kinds`.
      window: the farthest token that a sliding block sees, None where the config has no window.
      fields: of the config.json, for messages.
    """
    if not any(own):
        return {"kinds": (), "reach": None}
    if window is None:
        raise fields.error("layer_types has 'sliding_attention', and there is no sliding_window")
    return {"kinds": () if all(own) else own, "reach": window}


def module(config: DecoderConfig, **options: Any) -> TextTower:
    """The tower that a config describes."""
    return TextTower(config, block(config), last_norm=True, spans=_spans(config), **options)


def block(config: DecoderConfig) -> BlockConfig:
    """Its blocks."""
    scalar = config.query_scalar
    return block_config(
        config,
        norms="both" if config.post_norms else "before",
        gated=True,
        biases=config.biases,
        kv_heads=config.kv_heads,
        qk_norm=config.norm if config.qk_norm else None,
        scale=None if scalar is None else scalar**-0.5,
    )


def _spans(config: DecoderConfig) -> tuple[Span, ...]:
    """What a token attends to in full blocks and in sliding ones."""
    full, sliding = config.ropes[0], config.ropes[-1]

    def span(rope: Rope, reach: int | None) -> Span:
        return Span(
            causal=config.causal,
            reach=reach,
            frequencies=rope.frequencies(config.size),
            strength=rope.strength,
        )

    if config.reach is None:
        return (span(full, None),)
    if not config.kinds:
        return (span(sliding, config.reach),)
    return span(full, None), span(sliding, config.reach)


_LAYER = "layers.{i}"


def names(norm2: str, *post: tuple[str, str]) -> NameTable:
    """The names of a model's tensors.

    Args:
      norm2: the norm before the MLP.
      *post: the norms after the branches, and where they stand in a block.
    """

    def scale(file: str, path: str) -> Rule:
        return Rule(f"{file}.weight", f"{path}/scale")

    return NameTable(
        rules=(
            Rule("embed_tokens.weight", "embed/token"),
            scale(f"{_LAYER}.input_layernorm", "blocks/norm1"),
            *linear(f"{_LAYER}.self_attn.q_proj", "blocks/attention/query"),
            *linear(f"{_LAYER}.self_attn.k_proj", "blocks/attention/key"),
            *linear(f"{_LAYER}.self_attn.v_proj", "blocks/attention/value"),
            *linear(f"{_LAYER}.self_attn.o_proj", "blocks/attention/out"),
            scale(f"{_LAYER}.self_attn.q_norm", "blocks/attention/query_norm"),
            scale(f"{_LAYER}.self_attn.k_norm", "blocks/attention/key_norm"),
            scale(f"{_LAYER}.{norm2}", "blocks/norm2"),
            *(scale(f"{_LAYER}.{file}", f"blocks/{path}") for file, path in post),
            *linear(f"{_LAYER}.mlp.gate_proj", "blocks/mlp/gate"),
            *linear(f"{_LAYER}.mlp.up_proj", "blocks/mlp/fc1"),
            *linear(f"{_LAYER}.mlp.down_proj", "blocks/mlp/fc2"),
            scale("norm", "norm"),
        ),
        prefixes=("", "model.", "transformer."),
        # What predicts words or classes, and tables that older writers kept.
        ignore=(
            r"(lm_head|score|classifier|qa_outputs|dense)\..+",
            r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\..+",
        ),
    )


NAMES = names("post_attention_layernorm")
"""Of all but Gemma 3."""


def describe(config: DecoderConfig, model_type: str, **more: Any) -> dict[str, Any]:
    """The way back from `sizes`: a config.json for transformers."""
    return {
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.size,
        "hidden_act": config.activation,
        "max_position_embeddings": config.positions,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": config.ropes[0].describe(),
        # Of the class's vocabulary, which may be larger; nothing depends on it.
        "pad_token_id": None,
        **more,
        "num_hidden_layers": config.depth,
    }


def declare(
    name: str,
    title: str,
    models: str,
    *,
    parse: Callable[[Fields], DecoderConfig],
    describe: Callable[[DecoderConfig, str], dict[str, Any]],
    table: NameTable = NAMES,
) -> Family:
    """A family of this kind, whose `model_type` is its name."""
    return Family(
        name=name,
        kind="text",
        title=title,
        models=models,
        model_types={name: None},
        parse=parse,
        module=module,
        tables=(table,),
        prepare=family.prepare,
        adapt=family.adapt,
        adapters=NORMS,
        torch=TorchClass(describe=describe, table=lambda config: table),
    )
