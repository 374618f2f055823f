"""The text tower of SigLIP (arXiv 2303.15343) and of big_vision's own text transformer.

Pre-norm blocks without a causal mask. The last position is what the model reads, and padding is a
part of the text: every sequence is filled up to `max_length` and all of it is attended to
(`TextConfig.attends_padding`). The linear head behind it is a head, and no part of the tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.nn import layers, stack
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.text import embed as text_embed
from ape_jax.towers.text.clip_text import NAMES as CLIP_NAMES
from ape_jax.towers.text.embed import TextConfig, TextEmbed
from ape_jax.towers.tower import Encoded, pool


class SiglipText(nn.Module):
    """SigLIP's text tower; see tower.py for what its methods promise.

    Attributes:
      config: see TextConfig.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
      unroll: unroll the scan over blocks.
      remat: what the backward pass computes again, see stack.REMAT.
    """

    config: TextConfig
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
        return self.tokens(batch["ids"], batch["mask"]), batch["mask"]

    def run_blocks(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """The `config.depth` blocks; what the mask leaves out is not attended to, as in torch."""
        bias = layers.key_bias(mask)
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


def _parse(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 64)
    return TextConfig(
        family="siglip_text",
        vocab_size=fields.integer("vocab_size", 32000),
        width=fields.integer("hidden_size", 768),
        depth=fields.integer("num_hidden_layers", 12),
        heads=fields.integer("num_attention_heads", 12),
        mlp_width=fields.integer("intermediate_size", 3072),
        activation=fields.choice("hidden_act", layers.ACTIVATIONS, "gelu_pytorch_tanh"),
        norm_eps=fields.number("layer_norm_eps", 1e-6),
        embed_norm=False,
        attends_padding=True,
        **text_embed.text_fields(fields, positions=positions, pooling="last"),
    )


NAMES = NameTable(
    rules=CLIP_NAMES.rules,
    prefixes=CLIP_NAMES.prefixes,
    ignore=(
        r"vision_model\..+",
        r"(text_model\.)?head\.(weight|bias)",
        r"logit_(scale|bias)",
        r"(text_model\.)?embeddings\.position_ids",
    ),
)

SIGLIP_TEXT = Family(
    name="siglip_text",
    kind="text",
    model_types={"siglip": "text_config", "siglip_text_model": None},
    parse=_parse,
    module=SiglipText,
    tables=(NAMES,),
    prepare=text_embed.prepare,
    adapt=text_embed.adapt,
)
