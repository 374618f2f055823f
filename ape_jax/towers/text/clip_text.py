"""The text tower of CLIP (arXiv 2103.00020): causal, pre-norm, pooled at the end-of-text token."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ape_jax.nn import layers, stack
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import embed as text_embed
from ape_jax.towers.text.embed import TextConfig, TextEmbed
from ape_jax.towers.tower import Encoded, pool

# Configs written before transformers' pull request 24773 have this wrong value.
_LEGACY_EOS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig(TextConfig):
    """The config of a CLIP text tower.

    Attributes:
      eos_id: the end-of-text token; 2 means the largest id of each text, as in transformers.
    """

    eos_id: int
    embed_norm: bool = False


class ClipText(nn.Module):
    """CLIP's text tower; see tower.py for what its methods promise.

    A text ends at its end-of-text token: what lies behind it, which the causal tower never shows
    to that token, is masked out like padding. So "last" pools where transformers does.

    Attributes:
      config: see ClipTextConfig.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
      unroll: unroll the scan over blocks.
      remat: what the backward pass computes again, see stack.REMAT.
    """

    config: ClipTextConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"

    def setup(self) -> None:
        """Name the parts."""
        config = self.config
        self.tokens = TextEmbed(config, self.param_dtype, name="embed")
        self.blocks = layers.PreNormBlock(
            heads=config.heads,
            mlp_width=config.mlp_width,
            norm_eps=config.norm_eps,
            activation=config.activation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        self.norm = layers.LayerNorm(config.norm_eps, self.param_dtype)

    def embed(self, batch: Mapping[str, Any]) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """{"ids": i32 [B, T], "mask": bool [B, T]} -> (hidden state 0 [B, T, d], mask)."""
        mask = until_end(batch["ids"], batch["mask"], self.config.eos_id)
        return self.tokens(batch["ids"], mask), mask

    def run_blocks(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """The `config.depth` blocks."""
        bias = layers.key_bias(mask, causal=True)
        options = {"depth": self.config.depth, "unroll": self.unroll, "remat": self.remat}
        return stack.run_stack(self.blocks, x, bias, **options)

    def finish(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"], pooling: str) -> Encoded:
        """The last norm and the pooling."""
        x = self.norm(x)
        return Encoded(x, mask, pool(x, mask, pooling, self.config))

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Token ids to tokens and pooled vectors."""
        x, mask = self.embed(batch)
        x = self.run_blocks(x, mask)
        return self.finish(x, mask, pooling or self.config.pooling)


def until_end(
    ids: Int32[Array, "b t"], mask: Bool[Array, "b t"], eos_id: int
) -> Bool[Array, "b t"]:
    """The mask up to and with the token that transformers pools at; all of it if there is none."""
    ids = jnp.where(mask, ids, -1)
    is_end = ids == (ids.max(axis=1, keepdims=True) if eos_id == _LEGACY_EOS else eos_id)
    ended_before = jnp.cumsum(is_end, axis=1) - is_end > 0
    return mask & ~ended_before


def _parse(fields: Fields) -> ClipTextConfig:
    positions = fields.integer("max_position_embeddings", 77)
    return ClipTextConfig(
        family="clip_text",
        vocab_size=fields.integer("vocab_size", 49408),
        width=fields.integer("hidden_size", 512),
        depth=fields.integer("num_hidden_layers", 12),
        heads=fields.integer("num_attention_heads", 8),
        mlp_width=fields.integer("intermediate_size", 2048),
        activation=fields.choice("hidden_act", layers.ACTIVATIONS, "quick_gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        eos_id=fields.integer("eos_token_id", 49407, minimum=0),
        **text_embed.text_fields(fields, positions=positions, pooling="last"),
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

CLIP_TEXT = Family(
    name="clip_text",
    kind="text",
    model_types={"clip": "text_config", "clip_text_model": None},
    parse=_parse,
    module=ClipText,
    tables=(NAMES,),
    prepare=text_embed.prepare,
    adapt=text_embed.adapt,
)
