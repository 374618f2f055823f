"""A text family from outside the package: blocks with a mean over tokens and a learned gate.

All that the package asks of a family stands in this file; `FAMILIES.register(GATED)` adds it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ape_jax.nn.attention import key_bias
from ape_jax.nn.layers import Dense, LayerNorm
from ape_jax.nn.stack import run_stack
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import TextConfig, TextEmbed
from ape_jax.towers.tower import Encoded, pool


class GatedBlock(nn.Module):
    """`x + gate * mix(norm1(x) + mean of it)`, with one gate a channel."""

    norm_eps: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x, bias):
        width = x.shape[-1]
        y = LayerNorm(self.norm_eps, self.param_dtype, name="norm1")(x)
        mean = jax.nn.softmax(bias[:, 0], axis=-1) @ y
        y = Dense(width, dtype=self.dtype, param_dtype=self.param_dtype, name="mix")(y + mean)
        return x + self.param("gate", nn.initializers.ones, (width,), self.param_dtype) * y


class GatedText(nn.Module):
    """The module, with the methods that tower.py asks for."""

    config: TextConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"

    def setup(self):
        self.tokens = TextEmbed(self.config, self.param_dtype, name="embed")
        self.blocks = GatedBlock(self.config.norm_eps, self.dtype, self.param_dtype)

    def embed(self, batch):
        return self.tokens(batch["ids"], batch["mask"]), batch["mask"]

    def run_blocks(self, x, mask):
        options = {"depth": self.config.depth, "unroll": self.unroll, "remat": self.remat}
        return run_stack(self.blocks, x, key_bias(mask), **options)

    def finish(self, x, mask, pooling):
        return Encoded(x, mask, pool(x, mask, pooling, self.config))

    def __call__(self, batch, pooling=None):
        x, mask = self.embed(batch)
        return self.finish(self.run_blocks(x, mask), mask, pooling or self.config.pooling)


def _parse(fields: Fields) -> TextConfig:
    width = fields.integer("width")
    return TextConfig(
        family="gated",
        vocab_size=fields.integer("vocabulary"),
        width=width,
        depth=fields.integer("depth"),
        heads=1,
        mlp_width=width,
        activation="gelu",
        norm_eps=1e-6,
        **family.text_fields(fields, positions=fields.integer("positions"), pooling="mean"),
    )


_NAMES = NameTable(
    rules=(
        Rule("token", "embed/token"),
        Rule("position", "embed/position"),
        *norm("norm", "embed/norm"),
        *norm("layer.{i}.norm", "blocks/norm1"),
        *linear("layer.{i}.mix", "blocks/mix"),
        Rule("layer.{i}.gate", "blocks/gate"),
    )
)


def declare(**changes: Any) -> Family:
    """The family, or one that declares something else."""
    own: dict[str, Any] = {
        "name": "gated",
        "kind": "text",
        "title": "Gated text",
        "models": "none",
        "model_types": {"gated-text": None},
        "parse": _parse,
        "module": GatedText,
        "tables": (_NAMES,),
        "prepare": family.prepare,
        "adapt": family.adapt,
        "groups": (
            (r"blocks/mix/kernel", "kernel"),
            (r"blocks/mix/bias", "bias"),
            (r"blocks/gate", "gate"),
        ),
        "adapters": ("norm1", "mix"),
        "torch": "has no class in transformers",
    }
    return Family(**{**own, **changes})


GATED: Family = declare()
