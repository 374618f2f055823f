"""Token ids to the residual stream: what all text families share before their blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ape_jax.errors import UserError
from ape_jax.nn.layers import LayerNorm
from ape_jax.towers.family import Fields
from ape_jax.towers.text import token_files, tokens
from ape_jax.towers.tower import Kind, TowerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """The config of a text tower.

    Attributes:
      vocab_size: rows of the token table.
      positions: rows of the position table.
      types: rows of the token type table, of which only row 0 is used; 0 is no table.
      padding_idx: None: token t has position t. Else, RoBERTa's way, the n-th real token (from 1)
        has position `padding_idx + n`.
      embed_norm: a norm after the sum of embeddings.
      max_length: the longest sequence that `prepare` makes.
      attends_padding: the tower was trained with padding as a part of the text: `prepare` fills
        every sequence up to `max_length`, and the mask is True all along.
    """

    kind: Kind = "text"
    vocab_size: int
    positions: int
    types: int = 0
    padding_idx: int | None = None
    embed_norm: bool = True
    max_length: int
    attends_padding: bool = False

    @property
    def longest(self) -> int:
        """The longest sequence that the position table allows."""
        return self.positions - (0 if self.padding_idx is None else self.padding_idx + 1)


class TextEmbed(nn.Module):
    """Token ids -> the sum of token, position and type embeddings, normed if the config says so."""

    config: TextConfig
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int32[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """Embed; an id or position beyond its table gives NaN."""
        config = self.config

        def table(name: str, rows: int) -> Array:
            init = nn.initializers.normal(0.02)
            return self.param(name, init, (rows, config.width), self.param_dtype)

        # Gathered before the cast: the table may be 250,000 rows.
        x = jnp.take(table("token", config.vocab_size), ids, axis=0).astype(jnp.float32)
        where = position_ids(ids, mask, config.padding_idx)
        x = x + jnp.take(table("position", config.positions), where, axis=0).astype(jnp.float32)
        if config.types:
            x = x + table("type", config.types)[0].astype(jnp.float32)
        if config.embed_norm:
            x = LayerNorm(config.norm_eps, self.param_dtype, name="norm")(x)
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


def text_fields(
    fields: Fields, *, positions: int, padding_idx: int | None = None, pooling: str
) -> dict[str, Any]:
    """The part of a TextConfig that sidecar files decide: `max_length` and `pooling`."""
    longest = positions - (0 if padding_idx is None else padding_idx + 1)
    if longest < _LEAST_LENGTH:
        raise fields.error(f"there are positions for {longest} tokens; a text tower needs more")
    own = {"positions": positions, "padding_idx": padding_idx}
    if fields.directory is None:
        return {**own, "max_length": longest, "pooling": pooling}
    return {
        **own,
        "max_length": token_files.max_length(
            fields.directory, least=_LEAST_LENGTH, positions=longest
        ),
        "pooling": token_files.default_pooling(fields.directory, pooling),
    }


# One token of text between two special ones.
_LEAST_LENGTH = 3


def adapt(config: TextConfig, options: Mapping[str, Any]) -> TextConfig:
    """Apply the options of `towers.load`."""
    if "image_size" in options:
        raise UserError(
            f"image_size is {options['image_size']!r}, which a text tower ({config.family}) does "
            "not have; leave it out"
        )
    length = options.get("max_length", config.max_length)
    if not isinstance(length, int) or not _LEAST_LENGTH <= length <= config.longest:
        raise UserError(
            f"max_length is {length!r}; this {config.family} tower takes lengths from "
            f"{_LEAST_LENGTH} to {config.longest}"
        )
    if not isinstance(options.get("prefix", ""), str):
        raise UserError(f"prefix is {options['prefix']!r}; write a text such as 'query: '")
    return dataclasses.replace(config, max_length=length)


def prepare(
    directory: Path | None, config: TextConfig, options: Mapping[str, Any]
) -> tokens.TextPrepare:
    """The tower's tokenizer; see tokens.load_prepare."""
    if directory is None:
        raise UserError(
            f"a {config.family} tower without a directory has no tokenizer; "
            "name a directory that holds config.json, the weights and tokenizer.json"
        )
    return tokens.load_prepare(
        directory,
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        prefix=options.get("prefix"),
        fills=config.attends_padding,
    )
