"""The block of every transformer: an attention and an MLP on a residual stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.nn.attention import NOTHING, Attention, Context
from ape_jax.nn.layers import ACTIVATIONS, Dense, NormConfig, Scale

DENSE = ("query", "key", "value", "out", "gate", "fc1", "fc2")
"""The linear layers of a block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Everything in which one tower's blocks differ from another's; hashable.

    Attributes:
      heads: attention heads.
      mlp_width: hidden width of the MLP (of one half, if it is gated).
      norm: the norms.
      norms: "before" each branch (ViT, CLIP, LLaMA), "after" the sum (BERT), or "both": before the
        branch and after it, within the sum (Gemma).
      activation: of the MLP; see layers.ACTIVATIONS.
      gated: the MLP is `fc2(activation(gate(x)) * fc1(x))` (arXiv 2002.05202).
      biases: the linear layers that have one, of `DENSE`.
      layer_scale: LayerScale after each branch (CaiT, arXiv 2103.17239).
      mlp_norm: a norm before the MLP's last layer (EVA-02).
      attention_norm: a norm before the attention's last layer (EVA-02).
      kv_heads, head_width, scale, qk_norm, interleaved, relative: see `attention.Attention`.
    """

    heads: int
    mlp_width: int
    norm: NormConfig
    norms: Literal["before", "after", "both"] = "before"
    activation: str = "gelu"
    gated: bool = False
    biases: tuple[str, ...] = DENSE
    layer_scale: bool = False
    mlp_norm: bool = False
    attention_norm: bool = False
    kv_heads: int | None = None
    head_width: int | None = None
    scale: float | None = None
    qk_norm: NormConfig | None = None
    interleaved: bool = False
    relative: int = 0


class Mlp(nn.Module):
    """`fc2(activation(fc1(x)))`, or with a gate `fc2(activation(gate(x)) * fc1(x))`.

    Attributes:
      width: hidden width.
      activation: see layers.ACTIVATIONS.
      gated: see above.
      biases: the linear layers that have one.
      norm: before the last layer, None for none.
    """

    width: int
    activation: str = "gelu"
    gated: bool = False
    biases: tuple[str, ...] = DENSE
    norm: NormConfig | None = None
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Apply the MLP."""
        act = ACTIVATIONS[self.activation]
        if self.gated:
            y = act(self._dense("gate", self.width)(x)) * self._dense("fc1", self.width)(x)
        else:
            y = act(self._dense("fc1", self.width)(x))
        if self.norm is not None:
            y = self.norm.module(self.param_dtype, name="norm")(y)
        return self._dense("fc2", x.shape[-1])(y)

    def _dense(self, name: str, width: int) -> Dense:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return Dense(width, use_bias=name in self.biases, **types, name=name)


class Block(nn.Module):
    """A block as its config describes it.

    "before": `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.
    "after": `norm1(x + attention(x))`, then `norm2(x + mlp(x))`.
    "both": `x + post_norm1(attention(norm1(x)))`, then `x + post_norm2(mlp(norm2(x)))`.

    Attributes:
      config: see there.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
      inference: see inference.py.
    """

    config: BlockConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    inference: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], context: Context = NOTHING
    ) -> Float[Array, "b t d"]:
        """Run the block on the residual stream."""
        attention, mlp = self._attention(), self._mlp()
        norm1, norm2 = self._norm("norm1"), self._norm("norm2")
        if self.config.norms == "after":
            x = norm1(x + attention(x, context))
            return norm2(x + mlp(x))
        y = norm1(x)
        if context.norm1 is not None:
            y = jnp.where(context.norm1, y, x)
        x = x + self._branch("1", attention(y, context))
        return x + self._branch("2", mlp(norm2(x)))

    def _branch(self, place: str, y: Array) -> Array:
        """A branch's output as it is added."""
        if self.config.norms == "both":
            y = self._norm(f"post_norm{place}")(y)
        if self.config.layer_scale:
            y = Scale(self.param_dtype, name=f"scale{place}")(y)
        return y

    def _norm(self, name: str) -> Callable[[Array], Array]:
        return self.config.norm.module(self.param_dtype, name=name)

    def _attention(self) -> Attention:
        config = self.config
        return Attention(
            config.heads,
            biases=config.biases,
            kv_heads=config.kv_heads,
            head_width=config.head_width,
            scale=config.scale,
            qk_norm=config.qk_norm,
            out_norm=config.norm if config.attention_norm else None,
            interleaved=config.interleaved,
            relative=config.relative,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            inference=self.inference,
            name="attention",
        )

    def _mlp(self) -> Mlp:
        config = self.config
        return Mlp(
            config.mlp_width,
            config.activation,
            config.gated,
            config.biases,
            config.norm if config.mlp_norm else None,
            self.dtype,
            self.param_dtype,
            name="mlp",
        )
