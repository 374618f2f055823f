"""DeBERTa of versions 2 and 3 (arXiv 2006.03654, 2111.09543): BERT with disentangled attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.nn.attention import key_bias
from ape_jax.nn.blocks import Mlp
from ape_jax.towers.family import DENSE, Family, Fields, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.bert import bert
from ape_jax.towers.text.deberta import attention
from ape_jax.towers.text.deberta.attention import TERMS, Disentangled, Relative
from ape_jax.towers.text.transformer import TextConfig, TextTower


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebertaConfig(TextConfig):
    """The config of a DeBERTa.

    Attributes:
      span: half of the rows of the table of distances.
      buckets, furthest: see `attention.rows`.
      terms, shared: see `attention.Disentangled`.
      distance_norm: a norm of that table.
    """

    span: int
    buckets: int
    furthest: int
    terms: tuple[str, ...]
    shared: bool
    distance_norm: bool


class DebertaBlock(nn.Module):
    """The block of BERT with another attention."""

    config: DebertaConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], context: Relative) -> Float[Array, "b t d"]:
        """Run the block on the residual stream."""
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        attend = Disentangled(config.heads, config.terms, config.shared, **types, name="attention")
        mlp = Mlp(config.mlp_width, config.activation, **types, name="mlp")
        x = config.norm.module(self.param_dtype, name="norm1")(x + attend(x, context))
        return config.norm.module(self.param_dtype, name="norm2")(x + mlp(x))


class Distances(nn.Module):
    """The table of distances, normed if the config says so."""

    config: DebertaConfig
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> Float[Array, "n d"]:
        """All rows."""
        config = self.config
        init, shape = nn.initializers.normal(0.02), (2 * config.span, config.width)
        table = self.param("table", init, shape, self.param_dtype).astype(jnp.float32)
        if not config.distance_norm:
            return table
        return config.norm.module(self.param_dtype, name="norm")(table)


class DebertaTower(TextTower):
    """A DeBERTa; see TextTower."""

    config: DebertaConfig  # pyright: ignore[reportIncompatibleVariableOverride]: flax is frozen

    def setup(self) -> None:
        """Name the parts."""
        super().setup()
        self.distances = Distances(self.config, self.param_dtype, name="relative")

    def make_block(self) -> nn.Module:
        """A block with disentangled attention."""
        return DebertaBlock(self.config, self.dtype, self.param_dtype)

    def contexts(self, mask: Bool[Array, "b t"]) -> list[Any]:
        """The distances in a text of this length, for all blocks."""
        config = self.config
        sizes = {"span": config.span, "buckets": config.buckets, "furthest": config.furthest}
        distances = jnp.take(self.distances(), attention.rows(mask.shape[1], **sizes), axis=0)
        return [Relative(bias=key_bias(mask), distances=distances)]


def _parse(fields: Fields) -> DebertaConfig:
    sizes = {"vocab_size": 128100, "hidden_size": 1536, "intermediate_size": 6144}
    depth = {"num_hidden_layers": 24, "num_attention_heads": 24, "layer_norm_eps": 1e-7}
    shared = family.encoder_fields(fields, **sizes, **depth)
    _refuse(fields, shared)
    fields.flag("legacy", True)  # Which head a language model has.
    positions = fields.integer("max_position_embeddings", 512)
    furthest = fields.integer("max_relative_positions", -1, minimum=-1)
    furthest = furthest if furthest > 0 else positions
    buckets = max(fields.integer("position_buckets", -1, minimum=-1), 0)
    if buckets and (buckets < 4 or furthest - 1 <= buckets // 2):
        raise fields.error(
            f"position_buckets is {buckets} for distances up to {furthest}; write 4 or more, and "
            "less than twice these distances"
        )
    return DebertaConfig(
        family="deberta_v2",
        types=fields.integer("type_vocab_size", 0, minimum=0),
        position_table=fields.flag("position_biased_input", True),
        span=buckets or furthest,
        buckets=buckets,
        furthest=furthest,
        terms=_terms(fields),
        shared=fields.flag("share_att_key", False),
        distance_norm=_distance_norm(fields),
        **shared,
        **family.text_fields(fields, positions=positions, pooling="cls"),
    )


def _refuse(fields: Fields, shared: dict[str, Any]) -> None:
    """Refuses what is of no model but DeBERTa-v2's two largest, or of none."""
    if (kernel := fields.integer("conv_kernel_size", 0, minimum=0)) > 0:
        raise fields.unsupported(f"conv_kernel_size is {kernel}; no convolution is supported")
    if not fields.flag("relative_attention", False):
        raise fields.unsupported("relative_attention is false; only true is supported")
    width = shared["width"]
    for key, want in (("embedding_size", width), ("attention_head_size", width // shared["heads"])):
        if (found := fields.integer(key, want)) != want:
            raise fields.unsupported(f"{key} is {found}; only {want} is supported")


def _distance_norm(fields: Fields) -> bool:
    found = fields.values.get("norm_rel_ebd", "none")
    names = [n.strip() for n in found.lower().split("|")] if isinstance(found, str) else [found]
    if not all(name in ("none", "layer_norm") for name in names):
        raise fields.error(f"norm_rel_ebd is {str(found)[:60]!r}; write 'none' or 'layer_norm'")
    return "layer_norm" in names


def _terms(fields: Fields) -> tuple[str, ...]:
    found = fields.values.get("pos_att_type")
    found = [] if found is None else found
    names = [n.strip() for n in found.lower().split("|")] if isinstance(found, str) else found
    if not isinstance(names, list) or not set(map(str, names)) <= set(TERMS):
        raise fields.error(f"pos_att_type is {found!r}; write a list of {' and '.join(TERMS)}")
    return tuple(term for term in TERMS if term in names)


_LAYER = "encoder.layer.{i}"
NAMES = NameTable(
    rules=(
        *bert.EMBEDDINGS,
        Rule("encoder.rel_embeddings.weight", "relative/table"),
        *norm("encoder.LayerNorm", "relative/norm"),
        *linear(f"{_LAYER}.attention.self.query_proj", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.self.key_proj", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.self.value_proj", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.self.pos_key_proj", "blocks/attention/pos_key"),
        *linear(f"{_LAYER}.attention.self.pos_query_proj", "blocks/attention/pos_query"),
        *linear(f"{_LAYER}.attention.output.dense", "blocks/attention/out"),
        *norm(f"{_LAYER}.attention.output.LayerNorm", "blocks/norm1"),
        *linear(f"{_LAYER}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.output.dense", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.output.LayerNorm", "blocks/norm2"),
    ),
    prefixes=("", "deberta."),
    ignore=(
        *bert.IGNORE,
        r"(lm|mask)_predictions\..+",
        # In files of models that do not read it.
        r"(deberta\.)?embeddings\.position_embeddings\.weight",
    ),
    renames=bert.RENAMES,
)


def _describe(config: DebertaConfig, pooling: str) -> dict[str, Any]:
    return family.describe(
        config,
        "deberta-v2",
        type_vocab_size=config.types,
        position_biased_input=config.position_table,
        relative_attention=True,
        max_relative_positions=config.furthest,
        position_buckets=config.buckets or -1,
        pos_att_type=list(config.terms),
        share_att_key=config.shared,
        norm_rel_ebd="layer_norm" if config.distance_norm else "none",
    )


DEBERTA_V2 = Family(
    name="deberta_v2",
    kind="text",
    title="DeBERTa-v2 and v3",
    models="microsoft/deberta-v3-base, microsoft/mdeberta-v3-base",
    licence="MIT",
    model_types={"deberta-v2": None},
    parse=_parse,
    module=DebertaTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=(
        (r"relative/table", "relative position"),
        (r"blocks/attention/pos_(query|key)/kernel(_scale)?", "kernel"),
        (r"blocks/attention/pos_(query|key)/bias", "bias"),
    ),
    shared=("relative",),
    adapters=DENSE,
    torch=TorchClass(describe=_describe, table=lambda config: NAMES),
)
