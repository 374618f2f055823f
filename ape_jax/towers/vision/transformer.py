"""The vision transformer: one module for ViT, DeiT, DINOv2, CLIP vision, SigLIP vision and timm.

They differ in the tokens before the patches, in where norms stand and in the last pooling; all of
that is in `ViTConfig`, which a family's `parse` fills.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.nn.attention import BIASES, NOTHING, Attention, Context, Rotation, key_bias
from ape_jax.nn.axial import Axial, square
from ape_jax.nn.blocks import DENSE, Block, BlockConfig, Mlp
from ape_jax.nn.matmul import product
from ape_jax.nn.positions import resize_positions, sincos_positions
from ape_jax.nn.stack import run_stack
from ape_jax.towers.tower import Encoded, TowerConfig, added, pool
from ape_jax.towers.vision.packed import PackedEmbed


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(TowerConfig):
    """The config of a vision transformer.

    Attributes:
      image_size: pixels a side that the position table is for.
      patch_size: pixels a side.
      cls: has a CLS token.
      distilled: has DeiT's distillation token after CLS.
      registers: register tokens between CLS and patches (arXiv 2309.16588).
      position_prefix: rows of the position table before those of the patches: for CLS, its
        companion and the registers, in this order, as far as they go.
      antialias, bilinear: how the table is resized to other image sizes, see positions.py.
      patch_bias: the patch embedding has a bias.
      qkv_bias: query, key and value have one.
      layer_scale: LayerScale after each branch.
      swiglu: the MLP is gated by SiLU, whatever `activation` says.
      pre_norm: a norm before the first block (CLIP).
      norm_tokens: the last norm is part of the token output; if not, only `pooled` sees it (CLIP).
      map_head: has an attention-pooling head (SigLIP).
      map_heads, map_mlp_width: of that head; None: those of the blocks.
      map_bare: that head's probe is its query as it stands, and no MLP follows (AIMv2).
      map_prefix: that head attends to the tokens before the patches too.
      last_norm: a norm follows the last block.
      norm_pooled: it follows the pooling, and no token has passed it.
      position_table: there is one.
      sincos: positions are sines and cosines of the columns, then of the rows (AIMv2).
      patch_norm: patches are normed before they get positions.
      rotation: how queries and keys of patches are turned.
      prefix_angles: other tokens are turned by learned angles; if not, they are not.
      unbiased: further linear layers of a block without a bias, of `blocks.DENSE`.
      gated: the MLP is gated by `activation`.
      norms, attention_norm, mlp_norm: see `blocks.BlockConfig`.
      qk_norm: each head's queries and keys are normed.
      max_patches: images may be packed, with at most so many patches (`packed.PackedEmbed`); 0
        where they are not, and no token is padding.
    """

    image_size: int
    patch_size: int
    cls: bool = True
    distilled: bool = False
    registers: int = 0
    position_prefix: int = 1
    antialias: bool = False
    bilinear: bool = added(False)
    patch_bias: bool = True
    qkv_bias: bool = True
    layer_scale: bool = False
    swiglu: bool = False
    pre_norm: bool = False
    norm_tokens: bool = True
    map_head: bool = False
    map_heads: int | None = added(None)
    map_mlp_width: int | None = added(None)
    map_bare: bool = added(False)
    map_prefix: bool = added(True)
    last_norm: bool = added(True)
    norm_pooled: bool = added(False)
    position_table: bool = added(True)
    sincos: bool = added(False)
    patch_norm: bool = added(False)
    rotation: Axial | None = added(None)  # noqa: RUF009
    prefix_angles: bool = added(False)
    unbiased: tuple[str, ...] = added(())
    gated: bool = added(False)
    norms: Literal["before", "after"] = added("before")
    attention_norm: bool = added(False)
    mlp_norm: bool = added(False)
    qk_norm: bool = added(False)
    max_patches: int = added(0)

    @property
    def grid(self) -> int:
        """Patches a side of the position table."""
        return self.image_size // self.patch_size

    @property
    def block(self) -> BlockConfig:
        """The description of its blocks."""
        without = self.unbiased + (() if self.qkv_bias else ("query", "key", "value"))
        return BlockConfig(
            heads=self.heads,
            mlp_width=self.mlp_width,
            norm=self.norm,
            norms=self.norms,
            activation="silu" if self.swiglu else self.activation,
            gated=self.swiglu or self.gated,
            biases=tuple(name for name in DENSE if name not in without),
            layer_scale=self.layer_scale,
            attention_norm=self.attention_norm,
            mlp_norm=self.mlp_norm,
            head_width=self.head_width,
            qk_norm=self.norm if self.qk_norm else None,
            interleaved=self.rotation is not None and self.rotation.interleaved,
        )

    def places(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """See `TowerConfig.places`."""
        if self.rotation is None:
            return {}
        down, across = batch["image"].shape[1:3]
        return {"grid": (down // self.patch_size, across // self.patch_size)}


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
            table = resize_positions(
                param("position", (rows + config.grid**2, width)),
                prefix=rows,
                grid=grid,
                antialias=config.antialias,
                bilinear=config.bilinear,
            )
            x = x + table[rows:]
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
        if config.rotation is None:
            return Context(bias=bias)
        prefix = config.prefix_tokens
        found = grid or square(mask.shape[1] - prefix)
        angles = config.rotation.angles(found, config.size_of_head)
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
        if config.norm_pooled and pooled is not None:
            # Vectors of a pooling such as "cls+mean" are side by side.
            parts = pooled.reshape(len(pooled), -1, config.width)
            pooled = self.norm(parts).reshape(pooled.shape)
        return Encoded(normed if config.norm_tokens else x, mask, pooled)

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Images to tokens and pooled vectors."""
        x, mask = self.embed(batch)
        x = self.run_blocks(x, mask, **self.config.places(batch))
        return self.finish(x, mask, pooling or self.config.pooling)
