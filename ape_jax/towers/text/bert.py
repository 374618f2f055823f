"""BERT and its kin: BERT, RoBERTa, XLM-R, DistilBERT (arXiv 1810.04805, 1907.11692, 1910.01108).

Post-norm blocks after normed embeddings. RoBERTa and XLM-R count positions from the padding id on;
DistilBERT has no token types and other names. Poolers and language model heads are left out: a
tower's output is its last hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.nn import layers, stack
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import embed as text_embed
from ape_jax.towers.text.embed import TextConfig, TextEmbed
from ape_jax.towers.tower import Encoded, pool


class Bert(nn.Module):
    """A post-norm text encoder; see tower.py for what its methods promise.

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
        self.blocks = layers.PostNormBlock(
            heads=config.heads,
            mlp_width=config.mlp_width,
            norm_eps=config.norm_eps,
            activation=config.activation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

    def embed(self, batch: Mapping[str, Any]) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """{"ids": i32 [B, T], "mask": bool [B, T]} -> (hidden state 0 [B, T, d], mask)."""
        return self.tokens(batch["ids"], batch["mask"]), batch["mask"]

    def run_blocks(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """The `config.depth` blocks."""
        options = {"depth": self.config.depth, "unroll": self.unroll, "remat": self.remat}
        return stack.run_stack(self.blocks, x, self.attention_bias(mask), **options)

    def attention_bias(self, mask: Bool[Array, "b t"]) -> Float[Array, "b #h #t t"]:
        """What is added to the attention logits of every block."""
        return layers.key_bias(mask)

    def finish(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"], pooling: str) -> Encoded:
        """The pooling; the last block has normed already."""
        return Encoded(x, mask, pool(x, mask, pooling, self.config))

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Token ids to tokens and pooled vectors."""
        x, mask = self.embed(batch)
        x = self.run_blocks(x, mask)
        return self.finish(x, mask, pooling or self.config.pooling)


EMBEDDINGS = (
    Rule("embeddings.word_embeddings.weight", "embed/token"),
    Rule("embeddings.position_embeddings.weight", "embed/position"),
    Rule("embeddings.token_type_embeddings.weight", "embed/type"),
    *norm("embeddings.LayerNorm", "embed/norm"),
)
# Spellings of TensorFlow's BERT, which old files still have.
RENAMES = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
# Buffers, the pooler, and the heads of transformers' task classes.
IGNORE = (
    r"(.+\.)?embeddings\.(position_ids|token_type_ids)",
    r"(\w+\.)?pooler\.dense\.(weight|bias)",
    r"(cls|lm_head|classifier|pre_classifier|qa_outputs)\..+",
    r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
)

_LAYER = "encoder.layer.{i}"
BERT_NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        *linear(f"{_LAYER}.attention.self.query", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.self.key", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.self.value", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.output.dense", "blocks/attention/out"),
        *norm(f"{_LAYER}.attention.output.LayerNorm", "blocks/norm1"),
        *linear(f"{_LAYER}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.output.dense", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.output.LayerNorm", "blocks/norm2"),
    ),
    prefixes=("", "bert.", "roberta."),
    ignore=IGNORE,
    renames=RENAMES,
)

_DISTIL = "transformer.layer.{i}"
DISTILBERT_NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        *linear(f"{_DISTIL}.attention.q_lin", "blocks/attention/query"),
        *linear(f"{_DISTIL}.attention.k_lin", "blocks/attention/key"),
        *linear(f"{_DISTIL}.attention.v_lin", "blocks/attention/value"),
        *linear(f"{_DISTIL}.attention.out_lin", "blocks/attention/out"),
        *norm(f"{_DISTIL}.sa_layer_norm", "blocks/norm1"),
        *linear(f"{_DISTIL}.ffn.lin1", "blocks/mlp/fc1"),
        *linear(f"{_DISTIL}.ffn.lin2", "blocks/mlp/fc2"),
        *norm(f"{_DISTIL}.output_layer_norm", "blocks/norm2"),
    ),
    prefixes=("", "distilbert."),
    ignore=IGNORE,
    renames=RENAMES,
)


def encoder_fields(fields: Fields, *, vocab_size: int = 30522) -> dict[str, Any]:
    """The keys that BERT, RoBERTa and MPNet share, with transformers' defaults."""
    if fields.values.get("position_embedding_type", "absolute") != "absolute":
        found = fields.values["position_embedding_type"]
        raise fields.error(f"position_embedding_type is {found!r}; only 'absolute' is supported")
    if fields.flag("is_decoder", False):
        raise fields.error("is_decoder is true; only encoders are supported")
    return {
        "vocab_size": fields.integer("vocab_size", vocab_size),
        "width": fields.integer("hidden_size", 768),
        "depth": fields.integer("num_hidden_layers", 12),
        "heads": fields.integer("num_attention_heads", 12),
        "mlp_width": fields.integer("intermediate_size", 3072),
        "activation": fields.choice("hidden_act", layers.ACTIVATIONS, "gelu"),
        "norm_eps": fields.number("layer_norm_eps", 1e-12),
    }


def _parse_bert(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    return TextConfig(
        family="bert",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        **encoder_fields(fields),
        **text_embed.text_fields(fields, positions=positions, pooling="cls"),
    )


def _parse_roberta(fields: Fields) -> TextConfig:
    # RoBERTa's <s> saw no sentence task in pretraining, so its mean is the better default.
    return TextConfig(
        family="roberta",
        types=fields.integer("type_vocab_size", 2),
        **encoder_fields(fields, vocab_size=50265),
        **text_embed.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 512),
            padding_idx=fields.integer("pad_token_id", 1, minimum=0),
            pooling="mean",
        ),
    )


def _parse_distilbert(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    return TextConfig(
        family="distilbert",
        vocab_size=fields.integer("vocab_size", 30522),
        width=fields.integer("dim", 768),
        depth=fields.integer("n_layers", 6),
        heads=fields.integer("n_heads", 12),
        mlp_width=fields.integer("hidden_dim", 3072),
        activation=fields.choice("activation", layers.ACTIVATIONS, "gelu"),
        norm_eps=1e-12,
        **text_embed.text_fields(fields, positions=positions, pooling="mean"),
    )


BERT = Family(
    name="bert",
    kind="text",
    model_types={"bert": None},
    parse=_parse_bert,
    module=Bert,
    tables=(BERT_NAMES,),
    prepare=text_embed.prepare,
    adapt=text_embed.adapt,
)

ROBERTA = Family(
    name="roberta",
    kind="text",
    model_types={"roberta": None, "xlm-roberta": None, "camembert": None},
    parse=_parse_roberta,
    module=Bert,
    tables=(BERT_NAMES,),
    prepare=text_embed.prepare,
    adapt=text_embed.adapt,
)

DISTILBERT = Family(
    name="distilbert",
    kind="text",
    model_types={"distilbert": None},
    parse=_parse_distilbert,
    module=Bert,
    tables=(DISTILBERT_NAMES,),
    prepare=text_embed.prepare,
    adapt=text_embed.adapt,
)
