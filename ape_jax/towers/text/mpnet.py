"""MPNet (arXiv 2004.09297), the body of all-mpnet-base-v2.

BERT's blocks without token types, positions counted as RoBERTa does, and T5's relative position
bias: one table of buckets x heads, added to the attention logits of every block.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Int64

from ape_jax.nn import layers
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import embed as text_embed
from ape_jax.towers.text.bert import EMBEDDINGS, IGNORE, RENAMES, Bert, encoder_fields
from ape_jax.towers.text.embed import TextConfig

# Fixed in transformers' modeling_mpnet.py, whatever the config says.
_PADDING_IDX = 1
_BUCKETS = 32
_MAX_DISTANCE = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPNetConfig(TextConfig):
    """The config of an MPNet.

    Attributes:
      buckets: rows of the table of relative positions; the first 32 are used.
    """

    buckets: int = _BUCKETS


class MPNet(Bert):
    """BERT with relative positions; see Bert."""

    config: MPNetConfig

    def setup(self) -> None:
        """Name the parts."""
        super().setup()
        shape = (self.config.buckets, self.config.heads)
        init = nn.initializers.normal(0.02)
        self.relative_bias = self.param("relative_bias", init, shape, self.param_dtype)

    def attention_bias(self, mask: Bool[Array, "b t"]) -> Float[Array, "b h t t"]:
        """The bias of relative positions, [1, H, T, T], and that which hides padding."""
        bias = jnp.take(self.relative_bias, relative_buckets(mask.shape[1]), axis=0)
        return layers.key_bias(mask) + bias.astype(jnp.float32).transpose(2, 0, 1)[None]


def relative_buckets(length: int) -> Int32[Array, "t t"]:
    """The bucket of key s seen from query t (T5, arXiv 1910.10683, section 2.1).

    Half of the buckets is for keys before the query, half for those after it; in each, the nearer
    half is exact and the rest grows with the logarithm of the distance, up to 128. From there on it
    is the last one, so that a table of these distances does for any length, known or not.
    """
    table = _buckets(np.arange(-_MAX_DISTANCE, _MAX_DISTANCE + 1))
    place = jnp.arange(length)
    offset = jnp.clip(place[None] - place[:, None], -_MAX_DISTANCE, _MAX_DISTANCE)
    return jnp.asarray(table)[offset + _MAX_DISTANCE]


def _buckets(offset: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    half = _BUCKETS // 2
    exact = half // 2
    distance = np.abs(offset).astype(np.float32)
    # float32 throughout, as torch: a distance on the edge of a bucket must round the same way.
    ratio = np.log(np.maximum(distance, 1) / np.float32(exact)) / np.float32(
        np.log(_MAX_DISTANCE / exact)
    )
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int32), half - 1)
    bucket = np.where(distance < exact, distance.astype(np.int32), far) + half * (offset > 0)
    return bucket.astype(np.int32)


def _parse(fields: Fields) -> MPNetConfig:
    return MPNetConfig(
        family="mpnet",
        buckets=fields.integer("relative_attention_num_buckets", _BUCKETS, minimum=_BUCKETS),
        **encoder_fields(fields, vocab_size=30527),
        **text_embed.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 512),
            padding_idx=_PADDING_IDX,
            pooling="mean",
        ),
    )


_LAYER = "encoder.layer.{i}"
NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        Rule("encoder.relative_attention_bias.weight", "relative_bias"),
        *linear(f"{_LAYER}.attention.attn.q", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.attn.k", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.attn.v", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.attn.o", "blocks/attention/out"),
        *norm(f"{_LAYER}.attention.LayerNorm", "blocks/norm1"),
        *linear(f"{_LAYER}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.output.dense", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.output.LayerNorm", "blocks/norm2"),
    ),
    prefixes=("", "mpnet."),
    ignore=IGNORE,
    renames=RENAMES,
)

MPNET = Family(
    name="mpnet",
    kind="text",
    model_types={"mpnet": None},
    parse=_parse,
    module=MPNet,
    tables=(NAMES,),
    prepare=text_embed.prepare,
    adapt=text_embed.adapt,
)
