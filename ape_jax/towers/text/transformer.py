"""The text transformer: one module for BERT, RoBERTa, DistilBERT, MPNet, CLIP text, SigLIP text.

They differ in where norms stand, in what a token may attend to and in where a text ends. A family's
file sets the switches; what differs from tower to tower of a family is in its config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ape_jax.nn.attention import Context, Rotation, key_bias
from ape_jax.nn.blocks import Block, BlockConfig
from ape_jax.nn.layers import Dense
from ape_jax.nn.positions import relative_buckets
from ape_jax.nn.stack import run_stack
from ape_jax.towers.files.sentence import Head
from ape_jax.towers.text.head import SentenceHead
from ape_jax.towers.tower import Encoded, Kind, TowerConfig, added, beside, pool

LARGEST = -1
"""As an end-of-text token: the largest id of each text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """The config of a text tower.

    Attributes:
      vocab_size: rows of the token table.
      positions: rows of the position table; without one, the longest text that the tower takes.
      position_table: whether there is one; if not, queries and keys are turned, or nothing is done.
      types: rows of the token type table, of which only row 0 is used; 0 is no table.
      task_types: likewise of ERNIE's table of tasks.
      embed_width: width of these tables, where a dense layer leads from there to `width`; None is
        `width` without such a layer.
      embed_scale: a factor on the rows of the token table, rounded to the tower's dtype as torch
        rounds it (Gemma).
      padding_idx: None: token t has position t. Else, RoBERTa's way, the n-th real token (from 1)
        has position `padding_idx + n`.
      embed_norm: a norm after the sum of embeddings.
      max_length: the longest sequence that `prepare` makes.
      attends_padding: the tower was trained with padding as a part of the text: `prepare` fills
        every sequence up to `max_length`, and the mask is True all along.
      pooling_known: `pooling` is what the tower was trained with, or its files say; if not, it is
        what towers of its family are usually read by.
      head: the modules that compute the pooling "head"; None without.
      dim: how many numbers of a vector sentence-transformers keeps after all that; 0 is all.
      unit: sentence-transformers' modules end in a division by the length, which is no part of the
        pooling (`BoundTower.encode`).
    """

    kind: Kind = "text"
    vocab_size: int
    positions: int
    position_table: bool = added(True)
    types: int = 0
    task_types: int = added(0)
    embed_width: int | None = added(None)
    embed_scale: float = added(1.0)
    padding_idx: int | None = None
    embed_norm: bool = True
    max_length: int
    attends_padding: bool = False
    pooling_known: bool = beside(True)
    head: Head | None = added(None)  # noqa: RUF009
    unit: bool = beside(False)
    dim: int = beside(0)

    def pooled_width(self, pooling: str | None = None) -> int:
        """The width of `Encoded.pooled`."""
        if (pooling or self.pooling) == "head" and self.head is not None:
            return self.head.width
        return super().pooled_width(pooling)

    @property
    def longest(self) -> int:
        """The longest sequence that the positions allow."""
        return self.positions - (0 if self.padding_idx is None else self.padding_idx + 1)


def block_config(config: TowerConfig, **more: Any) -> BlockConfig:
    """The blocks of a text tower by its config, and what else is given."""
    return BlockConfig(
        heads=config.heads,
        head_width=config.head_width,
        mlp_width=config.mlp_width,
        activation=config.activation,
        norm=config.norm,
        **more,
    )


class TextEmbed(nn.Module):
    """Token ids -> the sum of their embeddings, normed and projected if the config says so."""

    config: TextConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int32[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """Embed; an id or position beyond its table gives NaN."""
        config = self.config
        width = config.width if config.embed_width is None else config.embed_width

        def table(name: str, rows: int) -> Array:
            init = nn.initializers.normal(0.02)
            # Parameters that were just read lie on the host.
            return jnp.asarray(self.param(name, init, (rows, width), self.param_dtype))

        # Gathered before the cast: the table may be 250,000 rows.
        x = jnp.take(table("token", config.vocab_size), ids, axis=0).astype(jnp.float32)
        if config.embed_scale != 1.0:
            x = x * jnp.asarray(config.embed_scale, self.dtype).astype(jnp.float32)
        if config.position_table:
            where = position_ids(ids, mask, config.padding_idx)
            x = x + jnp.take(table("position", config.positions), where, axis=0).astype(jnp.float32)
        if config.types:
            x = x + table("type", config.types)[0].astype(jnp.float32)
        if config.task_types:
            x = x + table("task", config.task_types)[0].astype(jnp.float32)
        if config.embed_norm:
            x = config.norm.module(self.param_dtype, name="norm")(x)
        if config.embed_width is not None:
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            x = Dense(config.width, **types, name="projection")(x)
        return x


def position_ids(
    ids: Int32[Array, "b t"], mask: Bool[Array, "b t"], padding_idx: int | None
) -> Int32[Array, "#b t"]:
    """The row of the position table for each token.

    RoBERTa and MPNet count as fairseq's `make_positions` did: real tokens from `padding_idx + 1`
    on, and `padding_idx` at padding. A padding token inside a text, which torch takes for padding,
    is treated so here too.
    """
    if padding_idx is None:
        return jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
    real = (mask & (ids != padding_idx)).astype(jnp.int32)
    return jnp.cumsum(real, axis=1) * real + padding_idx


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """What a token may attend to, and by which angles positions tell themselves apart.

    Attributes:
      causal: itself and those before it only.
      reach: tokens at this distance or nearer only; None: all.
      frequencies: of the rotary positions, one for two channels of a head
        (`positions.rotary_frequencies`); () turns nothing.
      strength: a factor on the turned queries and keys (YaRN's attention factor).
      norm1: whether the first norm of a block acts, see `attention.Context`; None is True.
    """

    causal: bool = False
    reach: int | None = None
    frequencies: tuple[float, ...] = ()
    strength: float = 1.0
    norm1: bool | None = None

    def context(self, mask: Bool[Array, "b t"]) -> Context:
        """The context of blocks that attend so."""
        bias = key_bias(mask, causal=self.causal, reach=self.reach)
        norm1 = None if self.norm1 is None else jnp.asarray(self.norm1)
        if not self.frequencies:
            return Context(bias=bias, norm1=norm1)
        places = jnp.arange(mask.shape[1], dtype=jnp.float32)[None, :, None]
        angles = places * jnp.asarray(self.frequencies, jnp.float32)
        cos, sin = self.strength * jnp.cos(angles), self.strength * jnp.sin(angles)
        return Context(bias=bias, rotation=Rotation(cos=cos, sin=sin), norm1=norm1)


class TextTower(nn.Module):
    """A text transformer; see tower.py for what its methods promise.

    Attributes:
      config: see TextConfig.
      block: its blocks; None: BERT's, which norm after each branch.
      last_norm: a norm follows the last block, as where blocks norm before each branch (CLIP).
      spans: what a token attends to, by the kinds of blocks (`TowerConfig.kinds`).
      ends_at: the end-of-text token: what lies behind it is masked out like padding, so that "last"
        pools where transformers does, or `LARGEST`. None: a text ends where its mask does.
      buckets: rows of a table of relative positions (T5's), added to the attention logits of every
        block; 0 is no table. Blocks that have one each say so themselves (`BlockConfig.relative`).
      bucketing: options of `positions.relative_buckets` for these tables.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
      unroll: unroll the scan over blocks.
      remat: what the backward pass computes again, see stack.REMAT.
    """

    config: TextConfig
    block: BlockConfig | None = None
    last_norm: bool = False
    spans: tuple[Span, ...] = (Span(),)
    ends_at: int | None = None
    buckets: int = 0
    bucketing: tuple[tuple[str, int], ...] = ()
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"

    def setup(self) -> None:
        """Name the parts."""
        config = self.config
        self.tokens = TextEmbed(config, self.dtype, self.param_dtype, name="embed")
        self.blocks = self.make_block()
        if self.last_norm:
            self.norm = config.norm.module(self.param_dtype)
        if config.head is not None:
            self.head = SentenceHead(config.head, self.dtype, self.param_dtype)
        if self.buckets:
            init, shape = nn.initializers.normal(0.02), (self.buckets, config.heads)
            self.relative_bias = self.param("relative_bias", init, shape, self.param_dtype)

    def make_block(self) -> nn.Module:
        """A block, whose parameters get a leading layer axis."""
        block = self.block or block_config(self.config, norms="after")
        return Block(block, self.dtype, self.param_dtype)

    def embed(self, batch: Mapping[str, Any]) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """{"ids": i32 [B, T], "mask": bool [B, T]} -> (hidden state 0 [B, T, d], mask)."""
        ids, mask = batch["ids"], batch["mask"]
        if self.ends_at is not None:
            mask = _until_end(ids, mask, self.ends_at)
        return self.tokens(ids, mask), mask

    def run_blocks(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """The `config.depth` blocks; what the mask leaves out is not attended to, as in torch."""
        contexts = self.contexts(mask)
        options = {"depth": self.config.depth, "unroll": self.unroll, "remat": self.remat}
        options["tied"] = self.config.tied
        kinds = self.config.own_kinds
        if kinds is None:
            return run_stack(self.blocks, x, contexts[0], **options)
        return run_stack(self.blocks, x, contexts, kinds=kinds, **options)

    def contexts(self, mask: Bool[Array, "b t"]) -> list[Any]:
        """What the blocks of each kind read beside the residual stream."""
        contexts = [span.context(mask) for span in self.spans]
        if self.buckets or (self.block and self.block.relative):
            rows = relative_buckets(mask.shape[1], **dict(self.bucketing))
            contexts = [self._with_relative(context, rows) for context in contexts]
        return contexts

    def _with_relative(self, context: Context, rows: Int32[Array, "t t"]) -> Context:
        """A context with relative positions, or with their rows in a table of each block's own."""
        if not self.buckets:
            return context.replace(relative=rows)
        relative = jnp.take(self.relative_bias, rows, axis=0)
        relative = relative.astype(jnp.float32).transpose(2, 0, 1)[None]
        return context.replace(bias=jnp.asarray(context.bias) + relative)

    def finish(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"], pooling: str) -> Encoded:
        """The last norm, where there is one, and the pooling."""
        if self.last_norm:
            x = self.norm(x)
        if pooling == "head":
            return Encoded(x, mask, self.head(x, mask))
        return Encoded(x, mask, pool(x, mask, pooling, self.config))

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Token ids to tokens and pooled vectors."""
        x, mask = self.embed(batch)
        x = self.run_blocks(x, mask)
        return self.finish(x, mask, pooling or self.config.pooling)


def _until_end(ids: Int32[Array, "b t"], mask: Bool[Array, "b t"], end: int) -> Bool[Array, "b t"]:
    """The mask up to and with the token that transformers pools at; all of it if there is none."""
    ids = jnp.where(mask, ids, -1)
    is_end = ids == (ids.max(axis=1, keepdims=True) if end == LARGEST else end)
    ended_before = jnp.cumsum(is_end, axis=1) - is_end > 0
    return mask & ~ended_before
