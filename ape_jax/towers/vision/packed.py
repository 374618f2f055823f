"""Embedding of images that lie packed on a canvas (`images/packed.py`), and of plain ones."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from ape_jax.images.packed import capacity, cells
from ape_jax.nn.convolution import cut_patches
from ape_jax.nn.matmul import product
from ape_jax.nn.positions import resize_positions


class PackedEmbed(nn.Module):
    """Image -> tokens and their mask: patches, and a position table resized to each image.

    Attributes:
      patch_size: pixels a side.
      width: of a token.
      grid: patches a side of the position table.
      max_patches: of a packed image; all others are plain, and a batch of one shape.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
    """

    patch_size: int
    width: int
    grid: int
    max_patches: int
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """Embed f32 [B, H, W, 3]."""
        size, width, normal = self.patch_size, self.width, nn.initializers.normal(0.02)
        kernel = self.param("kernel", normal, (size, size, 3, width), self.param_dtype)
        bias = self.param("bias", normal, (width,), self.param_dtype)
        table = self.param("position", normal, (self.grid**2, width), self.param_dtype)
        table = jnp.asarray(table, jnp.float32)
        patches = cut_patches(image, size)
        batch, *shape, _ = patches.shape
        flat = patches.reshape(batch, shape[0] * shape[1], -1)
        side = cells(self.max_patches)
        if shape == [side, side]:
            # The first pixel of the last cell says how many patches there are.
            down, across = flat[:, -1, :2].astype(jnp.int32).T
            flat = flat[:, : capacity(side)]
            place = jnp.arange(flat.shape[1])
            mask = place < (down * across)[:, None]
            position = _resized(table, self.grid, jnp.where(mask, place, 0), down, across)
        else:
            mask = jnp.ones(flat.shape[:2], bool)
            grid = (shape[0], shape[1])
            position = resize_positions(table, prefix=0, grid=grid, antialias=True, bilinear=True)
        x = product(flat, jnp.asarray(kernel).reshape(-1, width), self.dtype)
        return x + jnp.asarray(bias, jnp.float32) + position, mask


def _resized(
    table: Float[Array, "n d"],
    grid: int,
    place: Int32[Array, "b t"],
    down: Int32[Array, " b"],
    across: Int32[Array, " b"],
) -> Float[Array, "b t d"]:
    """The table resized to each image, at the places of its patches in reading order."""
    across = jnp.maximum(across, 1)[:, None]  # A row that fills up a batch holds no image.
    rows = _weights(grid, place // across, jnp.maximum(down, 1)[:, None])
    columns = _weights(grid, place % across, across)
    weights = (rows[..., :, None] * columns[..., None, :]).reshape(*place.shape, grid * grid)
    return jnp.einsum("btn,nd->btd", weights, table, precision=jax.lax.Precision.HIGHEST)


def _weights(
    old: int, row: Int32[Array, "b t"], new: Int32[Array, "b 1"]
) -> Float[Array, "b t old"]:
    """Rows of `positions.resize_matrix` (bilinear, antialiased), for a length of each image."""
    scale = old / new.astype(jnp.float32)
    distance = jnp.arange(old) + 0.5 - (scale * (row + 0.5))[..., None]
    weights = jnp.maximum(1 - jnp.abs(distance) / jnp.maximum(scale, 1.0)[..., None], 0.0)
    return weights / weights.sum(-1, keepdims=True)
