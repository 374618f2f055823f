"""Layers of ConvNeXt: depthwise and patch convolutions, the norm over positions, and the block."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.nn.layers import ACTIVATIONS, Dense, LayerNorm, Scale
from ape_jax.nn.matmul import product

_KERNEL = 7  # Pixels a side of every depthwise convolution.
_TINY = 1e-6  # Of the norm over positions, in every version of it.


def cut_patches(image: Float[Array, "b h w c"], size: int) -> Float[Array, "b y x p"]:
    """Patches of `size` pixels a side, each flattened; a remainder is cut off, as torch does."""
    batch, height, width, channels = image.shape
    down, across = height // size, width // size
    x = image[:, : down * size, : across * size].reshape(batch, down, size, across, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, down, across, size * size * channels)


class DepthwiseConv(nn.Module):
    """A convolution of every channel by itself, 7 by 7, zeros around the image; in float32.

    The products are sums of shifted images: XLA fuses them, and is many times slower at grouped
    convolutions on CPUs.
    """

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the convolution."""
        height, width, channels = x.shape[1:]
        shape = (_KERNEL, _KERNEL, channels)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        kernel, side = jnp.asarray(kernel, jnp.float32), _KERNEL // 2
        padded = jnp.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
        places = [(i, j) for i in range(_KERNEL) for j in range(_KERNEL)]
        y = sum(padded[:, i : i + height, j : j + width] * kernel[i, j] for i, j in places)
        return y + jnp.asarray(bias, jnp.float32)


class PatchConv(nn.Module):
    """A convolution whose stride is its size: a product over patches."""

    size: int
    features: int
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b y x o"]:
        """Apply the convolution."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        kernel = jnp.asarray(kernel).reshape(-1, self.features)
        y = product(cut_patches(x, self.size), kernel, self.dtype)
        return y + jnp.asarray(bias, jnp.float32)


class ResponseNorm(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv 2301.00808): channels compete by length."""

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Apply the norm; the length of a channel is taken over all positions."""
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.zeros, width, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, width, self.param_dtype)
        length = jnp.sqrt(jnp.square(x).sum(1, keepdims=True))
        share = length / (length.mean(-1, keepdims=True) + _TINY)
        return x * share * scale.astype(jnp.float32) + bias.astype(jnp.float32) + x


class ConvMlp(nn.Module):
    """`fc2(activation(fc1(x)))`, in V2 with a `ResponseNorm` before `fc2`."""

    width: int
    activation: str
    response_norm: bool
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Apply the MLP."""
        dense = partial(Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        y = ACTIVATIONS[self.activation](dense(self.width, name="fc1")(x))
        if self.response_norm:
            y = ResponseNorm(self.param_dtype, name="grn")(y)
        return dense(x.shape[-1], name="fc2")(y)


class ConvNeXtBlock(nn.Module):
    """`x + scale(mlp(norm(depthwise(x))))` (ConvNeXt, arXiv 2201.03545).

    Attributes:
      grid: positions down and across; they lie in one axis, as in every block that is scanned.
      norm_eps: of the norm.
      activation: of the MLP, which is four times as wide as the block.
      response_norm: see `ConvMlp`.
      layer_scale: has LayerScale.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
    """

    grid: tuple[int, int]
    norm_eps: float
    activation: str = "gelu"
    response_norm: bool = False
    layer_scale: bool = True
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], bias: None = None) -> Float[Array, "b t d"]:
        """Run the block; there is no attention for a bias."""
        width = x.shape[-1]
        image = x.reshape(x.shape[0], *self.grid, width)
        y = DepthwiseConv(self.param_dtype, name="depthwise")(image).reshape(x.shape)
        y = LayerNorm(self.norm_eps, self.param_dtype, name="norm")(y)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = ConvMlp(4 * width, self.activation, self.response_norm, **types, name="mlp")(y)
        return x + (Scale(self.param_dtype, name="scale")(y) if self.layer_scale else y)
