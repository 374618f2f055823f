"""The network of every ConvNeXt (arXiv 2201.03545): stages of blocks, each narrower than the next.

What a tower of transformers can do that this one cannot: its stages differ in width, so that only
its output is read (`layer=-1`), nothing is cached below a trained part but the input, and `top:K`,
`adapter` and `append` have no blocks of one width to work on. 'full', 'layernorm', 'bitfit' and
'lora' train it (`lora_targets` for example ".*/mlp/fc[12]"). Any image size will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ape_jax.errors import UserError
from ape_jax.nn.convolution import ConvNeXtBlock, PatchConv
from ape_jax.nn.layers import LayerNorm
from ape_jax.nn.stack import run_stack
from ape_jax.towers.tower import Encoded, TowerConfig, pool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig(TowerConfig):
    """The config of a ConvNeXt; `width` is that of the last stage, and `depth` is 0.

    Attributes:
      image_size: pixels a side it was made for.
      patch_size: pixels a side of one position of the last stage.
      stem_size: pixels a side of one position of the first stage.
      widths: of the stages.
      depths: blocks of each stage.
      inner_eps: of all norms but the last.
      response_norm: see `nn.convolution.ConvMlp`.
      layer_scale: LayerScale after each block.
      mean_token: the mean of the positions is token 0, and the last norm is part of the tokens
        (DINOv3); if not, only `pooled` sees that norm.
    """

    image_size: int
    patch_size: int
    stem_size: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    inner_eps: float
    response_norm: bool = False
    layer_scale: bool = True
    mean_token: bool = False

    @property
    def norm_tokens(self) -> bool:
        """Whether the last norm is part of the token output."""
        return self.mean_token


class Stem(nn.Module):
    """Image -> the positions of the first stage: patches, and a norm."""

    config: ConvNeXtConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        """Embed f32 [B, H, W, 3]."""
        config, types = self.config, (self.dtype, self.param_dtype)
        x = PatchConv(config.stem_size, config.widths[0], *types, name="patches")(image)
        return LayerNorm(config.inner_eps, self.param_dtype, name="norm")(x)


class Stage(nn.Module):
    """Blocks of one width, before them a norm and a convolution to half the size.

    Attributes:
      config: of the tower.
      place: of the stage, from 0; the first halves nothing.
      dtype, param_dtype, unroll, remat, inference: as for `ConvNeXt`.
    """

    config: ConvNeXtConfig
    place: int
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"
    inference: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        """Run the stage."""
        config, width = self.config, self.config.widths[self.place]
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.place:
            x = LayerNorm(config.inner_eps, self.param_dtype, name="norm")(x)
            x = PatchConv(2, width, **types, name="down")(x)
        batch, height, across, _ = x.shape
        block = ConvNeXtBlock(
            grid=(height, across),
            norm_eps=config.inner_eps,
            activation=config.activation,
            response_norm=config.response_norm,
            layer_scale=config.layer_scale,
            **types,
            name="blocks",
        )
        options = {name: getattr(self, name) for name in ("unroll", "remat", "inference")}
        depth = config.depths[self.place]
        tokens = x.reshape(batch, height * across, width)
        return run_stack(block, tokens, None, depth=depth, **options).reshape(x.shape)


class ConvNeXt(nn.Module):
    """A ConvNeXt; see tower.py for what its methods promise.

    Attributes:
      config: see ConvNeXtConfig.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
      unroll: unroll the scans over blocks.
      remat: what the backward pass computes again, see stack.REMAT.
      inference: forward passes on a CPU, see inference.py.
    """

    config: ConvNeXtConfig
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"
    inference: bool = False

    def setup(self) -> None:
        """Name the parts."""
        config, names = self.config, ("dtype", "param_dtype", "unroll", "remat", "inference")
        options = {name: getattr(self, name) for name in names}
        self.stem = Stem(config, jnp.float32 if self.inference else self.dtype, self.param_dtype)
        self.stages = [Stage(config, i, **options) for i in range(len(config.depths))]
        self.norm = LayerNorm(config.norm_eps, self.param_dtype)

    def embed(self, batch: Mapping[str, Any]) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """{"image": f32 [B, H, W, 3]} -> (what the last stage gives, mask, all True)."""
        x = self.stem(jnp.asarray(batch["image"], jnp.float32))
        for stage in self.stages:
            x = stage(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if self.config.mean_token:
            x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        return x, jnp.ones(x.shape[:2], bool)

    def run_blocks(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """Nothing: the stages are part of `embed`.

        Raises:
          UserError: for a block on top of them.
        """
        if self.config.depth:
            raise UserError(
                f"'append': a {self.config.family} tower has no blocks of one width that another "
                "could stand on; write another mode"
            )
        return x

    def finish(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"], pooling: str) -> Encoded:
        """The last norm and the pooling."""
        if self.config.mean_token:
            x = self.norm(x)
            return Encoded(x, mask, pool(x, mask, pooling, self.config))
        pooled = pool(x, mask, pooling, self.config)
        # Made in any case, so that the parameters do not depend on the pooling.
        normed = self.norm(x[:, 0] if pooled is None else pooled)
        return Encoded(x, mask, None if pooled is None else normed)

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Images to tokens and pooled vectors."""
        return self.finish(*self.embed(batch), pooling or self.config.pooling)
