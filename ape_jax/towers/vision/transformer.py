"""The vision transformer: one module for ViT, DeiT, DINOv2, CLIP vision, SigLIP vision and timm.

They differ in the tokens before the patches, in where norms stand and in the last pooling; all of
that is in `ViTConfig`, which a family's `parse` fills.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.nn.attention import BIASES, NOTHING, Attention, Context, Rotation, key_bias
from ape_jax.nn.axial import square
from ape_jax.nn.blocks import Block, Mlp
from ape_jax.nn.matmul import product
from ape_jax.nn.positions import resize_positions, sincos_positions
from ape_jax.nn.stack import run_stack
from ape_jax.nn.window import table_rows, window
from ape_jax.towers.tower import Encoded, pool
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.packed import PackedEmbed


class Embed(nn.Module):
    """Image -> tokens: patches, positions, CLS and its companions."""

    config: ViTConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b t d"]:
        """Embed f32 [B, H, W, 3]; a remainder that fills no patch is cut off, as torch does."""
        config, size, width = self.config, self.config.patch_size, self.config.width
        normal = nn.initializers.normal(0.02)

        def param(name: str, shape: tuple[int, ...]) -> Array:
            # Parameters that were just read lie on the host.
            return jnp.asarray(self.param(name, normal, shape, self.param_dtype), jnp.float32)

        # A convolution whose stride is its size is a matrix product over cut patches.
        kernel = param("kernel", (size, size, 3, width)).reshape(-1, width)
        batch, grid = image.shape[0], (image.shape[1] // size, image.shape[2] // size)
        if config.image_mean:
            image = (image - jnp.array(config.image_mean)) / jnp.array(config.image_std)
        x = image[:, : grid[0] * size, : grid[1] * size]
        x = x.reshape(batch, grid[0], size, grid[1], size, 3).transpose(0, 1, 3, 2, 4, 5)
        x = product(x.reshape(batch, grid[0] * grid[1], -1), kernel, self.dtype)
        if config.patch_bias:
            x = x + param("bias", (width,))
        if config.patch_norm:
            x = config.norm.module(self.param_dtype, name="norm")(x)

        rows = config.position_prefix if config.position_table else 0
        table = jnp.zeros((0, width))
        if config.position_table:
            size = (max(grid), max(grid)) if config.table_size else grid
            table = resize_positions(
                param("position", (rows + config.grid**2, width)),
                prefix=rows,
                grid=size,
                antialias=config.antialias,
                bilinear=config.bilinear,
            )
            places = table[rows:].reshape(*size, width)[: grid[0], : grid[1]]
            x = x + places.reshape(-1, width)
        if config.sincos:
            x = x + sincos_positions(grid, width)
        names = ["cls"] * config.cls + ["distillation"] * config.distilled
        prefix = [param(name, (width,))[None] for name in names]
        if config.registers:
            prefix.append(param("registers", (config.registers, width)))
        if prefix:
            first = jnp.concatenate(prefix)
            if rows:
                first = first + jnp.pad(table[:rows], ((0, len(first) - rows), (0, 0)))
            x = jnp.concatenate([jnp.tile(first, (batch, 1, 1)), x], axis=1)
        return x


class MapHead(nn.Module):
    """Multihead attention pooling (arXiv 2106.04560): a learned probe attends to the tokens."""

    config: ViTConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b t d"], context: Context = NOTHING
    ) -> Float[Array, "b d"]:
        """Pool the tokens."""
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(0.02)
        probe = self.param("probe", init, (config.width,), self.param_dtype).astype(jnp.float32)
        probe = jnp.tile(probe, (tokens.shape[0], 1, 1))
        bare, without = config.map_bare, ()
        if bare and not config.qkv_bias:
            without = ("query", "key", "value")
        x = Attention(
            config.map_heads or config.heads,
            biases=tuple(name for name in BIASES if name not in without),
            bare=("query",) if bare else (),
            **types,
            name="attention",
        )(probe, context, keys=tokens)
        if bare:
            return x[:, 0]
        y = config.norm.module(self.param_dtype, name="norm")(x)
        width = config.map_mlp_width or config.mlp_width
        x = x + Mlp(width, config.activation, **types, name="mlp")(y)
        return x[:, 0]


class ViT(nn.Module):
    """A vision transformer; see tower.py for what its methods promise.

    Attributes:
      config: see ViTConfig.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
      unroll: unroll the scan over blocks.
      remat: what the backward pass computes again, see stack.REMAT.
      inference: forward passes on a CPU, see inference.py.
    """

    config: ViTConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"
    inference: bool = False

    def setup(self) -> None:
        """Name the parts."""
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        wide = jnp.float32 if self.inference else self.dtype
        if config.max_patches:
            sizes = (config.patch_size, config.width, config.grid, config.max_patches)
            self.packed = PackedEmbed(*sizes, wide, self.param_dtype, name="embed")
        else:
            self.tokens = Embed(config, wide, self.param_dtype, name="embed")
        if config.pre_norm:
            self.pre_norm = config.norm.module(self.param_dtype)
        self.blocks = Block(config.block, **types, inference=self.inference)
        if "all" in config.relative:
            init, shape = nn.initializers.normal(0.02), (table_rows(config.grid), config.heads)
            self.relative_bias = self.param("relative_bias", init, shape, self.param_dtype)
        if config.last_norm:
            self.norm = config.norm.module(self.param_dtype)
        if config.map_head:
            self.head = MapHead(config, **types)
        if config.prefix_angles:
            shape = (config.prefix_tokens, config.size_of_head // 2)
            init = nn.initializers.normal(shape[1] ** -0.5)
            self.angles = self.param("prefix_angles", init, shape, self.param_dtype)

    def embed(self, batch: Mapping[str, Any]) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """{"image": f32 [B, H, W, 3]} -> (hidden state 0 [B, T, d], mask [B, T], all True)."""
        image = jnp.asarray(batch["image"], jnp.float32)
        if self.config.max_patches:
            return self.packed(image)
        x = self.tokens(image)
        if self.config.pre_norm:
            x = self.pre_norm(x)
        return x, jnp.ones(x.shape[:2], bool)

    def run_blocks(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"],
        grid: tuple[int, int] | None = None,
    ) -> Float[Array, "b t d"]:
        """The `config.depth` blocks; `grid` is (down, across) of the patches, None a square."""
        options = {name: getattr(self, name) for name in ("unroll", "remat", "inference")}
        context = self._context(mask, grid)
        return run_stack(self.blocks, x, context, depth=self.config.depth, **options)

    def _context(self, mask: Array, grid: tuple[int, int] | None) -> Context:
        """What the blocks read beside tokens."""
        config = self.config
        # Of packed images alone, some tokens are padding.
        bias = key_bias(mask) if config.max_patches else None
        prefix = config.prefix_tokens
        if config.relative:
            found = window(config.grid, grid or square(mask.shape[1] - prefix))
            if "all" in config.relative:
                bias = found.bias(jnp.asarray(self.relative_bias, jnp.float32))
            return Context(bias=bias, window=found)
        if config.rotation is None:
            return Context(bias=bias)
        places = grid or square(mask.shape[1] - prefix)
        angles = config.rotation.angles(places, config.size_of_head)
        own = jnp.zeros((prefix, angles.shape[1]))
        if config.prefix_angles:
            own = jnp.asarray(self.angles, jnp.float32)
        angles = jnp.concatenate([own, angles])[None]
        return Context(bias=bias, rotation=Rotation(cos=jnp.cos(angles), sin=jnp.sin(angles)))

    def finish(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"], pooling: str) -> Encoded:
        """The last norm and the pooling."""
        config = self.config
        normed = self.norm(x) if config.last_norm and not config.norm_pooled else x
        if pooling == "map":
            tokens = normed if config.map_prefix else normed[:, config.prefix_tokens :]
            hidden = Context(bias=key_bias(mask)) if config.max_patches else NOTHING
            pooled = self.head(tokens, hidden)
        else:
            pooled = pool(normed, mask, pooling, config)
        if (config.norm_pooled or config.norm_twice) and pooled is not None:
            # Vectors of a pooling such as "cls+mean" are side by side.
            parts = pooled.reshape(len(pooled), -1, config.width)
            pooled = self.norm(parts).reshape(pooled.shape)
        return Encoded(normed if config.norm_tokens else x, mask, pooled)

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Images to tokens and pooled vectors."""
        x, mask = self.embed(batch)
        x = self.run_blocks(x, mask, **self.config.places(batch))
        return self.finish(x, mask, pooling or self.config.pooling)
