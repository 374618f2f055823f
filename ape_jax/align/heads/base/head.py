"""Common parts of heads: base class, input, application, unit length, layers at zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ape_jax.align.heads.base.batch_norm import STATS
from ape_jax.align.packing import Packed
from ape_jax.errors import UserError
from ape_jax.nn.tree import Tree
from ape_jax.towers.tower import TowerConfig, pool_tokens

DType = Any
Mix = Callable[[Array], Array]
TorchLayer = tuple[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """Place of a head in a model, from which its maker (`config.components.HeadSpec`) builds it.

    Attributes:
      features: the joint width E.
      tower: config of the tower under it.
      dtype: input dtype of the matrix products.
      zero: whether it starts at zero, as a later part of a sum.
    """

    features: int
    tower: TowerConfig
    dtype: DType = jnp.bfloat16
    zero: bool = False


def maker(head: Callable[..., Head], *, tower: bool = False) -> Callable[..., Head]:
    """The maker of a head that has the fields `features`, `dtype`, `zero` and those of its options.

    Args:
      head: its class.
      tower: whether the tower's config is a field, too.
    """

    def make(site: Site, **options: Any) -> Head:
        if tower:
            options["tower"] = site.tower
        return head(features=site.features, dtype=site.dtype, zero=site.zero, **options)

    return make


class Head(nn.Module):
    """Maps what a tower gives to the joint space, not yet at unit length.

    An image head takes pooled features [B, d] or all tokens [B, T, d], a text head a `TextInput`;
    both take `train`.
    """

    @property
    def mixes_input(self) -> bool:
        """True if mixup acts on the one vector that the head takes, and not on its output.

        It must where a head on one vector is not linear; a text head then takes `mix` as well.
        """
        return False

    @nn.nowrap
    def to_torch(self, width: int, embed: int) -> TorchLayer:
        """Describes the head in torch: a layer of the shipped `modeling_ape.py` and its arguments.

        Args:
          width: of its input.
          embed: the joint width E.

        Raises:
          UserError: saying why there is no such layer.
        """
        raise UserError(
            f"--format: there is no torch layer for the head {type(self).__name__}; write --format "
            "jax or stablehlo"
        )

    @nn.nowrap
    def torch_params(self, params: PyTree) -> PyTree:
        """The parameters of that layer, by the names that flax would give them."""
        return params


def embed(
    head: Head,
    variables: Mapping[str, PyTree],
    inputs: Float[Array, "B *T d"] | TextInput,
    rng: Array | None,
    mix: Mix | None,
    weights: Float[Array, " E"] | None = None,
    *,
    unit: bool = True,
) -> tuple[Float[Array, "n E"], Mapping[str, PyTree]]:
    """Unit-length embeddings; n is B, or half of it where `mix` joins two rows.

    Args:
      head: the head.
      variables: its `params` and, with batch norm, its `batch_stats`.
      inputs: what it takes.
      rng: key of dropout in training; None for inference.
      mix: maps one vector a row to another, as mixup does; see `Head.mixes_input`.
      weights: fixed factors of what the head gives; None for none.
      unit: whether the embeddings are brought to unit length.

    Returns:
      The embeddings, and in training the new `batch_stats`, {} for a head without batch norm.
    """
    settings: dict[str, Any] = {"train": rng is not None}
    settings["rngs"] = None if rng is None else {"dropout": rng}
    if mix is not None and head.mixes_input:
        if isinstance(inputs, TextInput):
            settings["mix"] = mix
        else:
            inputs = mix(inputs)
        mix = None
    mutable = [] if rng is None else [STATS]
    z, updated = head.apply(variables, inputs, mutable=mutable, **settings)
    z = z if mix is None else mix(z)
    z = z if weights is None else z.astype(jnp.float32) * weights
    return normalize(z) if unit else z.astype(jnp.float32), updated


def normalize(z: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Rows at unit length in f32; a zero row stays zero instead of turning into NaN."""
    z = z.astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, axis=-1, keepdims=True), 1e-24))


def last_kernel(zero: bool, usual: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initialiser of a head's last layer; at zero, the head adds nothing at first."""
    return nn.initializers.zeros if zero else usual


class TextInput(Tree):
    """Token encodings of B captions: `tokens` and their mask, or `packed`.

    A head computes on `rows`, the tokens as they lie in memory, and lets `pool` average them; so it
    is one function for both forms.

    Attributes:
      tokens: f32 or bf16 [B, T, d], padded.
      mask: bool [B, T], true at real tokens.
      ids: i32 [B, T], vocabulary indices of padded tokens; None where they are unknown.
      packed: captions without padding, with ids and token indices of their own.
    """

    tokens: Float[Array, "B T d"] | None = None
    mask: Bool[Array, "B T"] | None = None
    ids: Int[Array, "B T"] | None = None
    packed: Packed | None = None

    @property
    def rows(self) -> Float[Array, "n m d"]:
        """The tokens as they lie, padded [B, T, d] or packed [G, S, d]."""
        tokens = self.tokens if self.packed is None else self.packed.tokens
        if tokens is None:
            raise ValueError("captions have tokens, padded or packed")
        return tokens

    @property
    def row_ids(self) -> Int[Array, "n m"]:
        """Vocabulary indices of `rows`.

        Raises:
          ValueError: where the batch has none.
        """
        ids = self.ids if self.packed is None else self.packed.ids
        if ids is None:
            raise ValueError("a lookup head needs the ids of the tokens beside them")
        return ids

    def pool(
        self, x: Float[Array, "n m w"], pooling: str, tower: TowerConfig
    ) -> Float[Array, "B _"]:
        """Pools `x`, which lies as `rows` do, to one vector a caption.

        Args:
          x: a value a token.
          pooling: how, see `config.poolings`.
          tower: config of the tower whose tokens these are; it knows which of them carry text.
        """
        if self.packed is not None:
            return self.packed.replace(tokens=x).pool(pooling)
        if self.mask is None:
            raise ValueError("padded captions have a mask")
        return pool_tokens(x, self.mask, pooling, tower)

    def spread(self, pooled: Float[Array, "B w"]) -> Float[Array, "n m w"]:
        """Gives each token what its caption has, as `rows` lie; zero in packed padding.

        Args:
          pooled: one vector a caption.
        """
        if self.packed is not None:
            return self.packed.spread(pooled)
        rows = self.rows
        return jnp.broadcast_to(pooled[:, None], (*rows.shape[:2], pooled.shape[-1]))
