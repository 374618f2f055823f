"""What tells one vision transformer from another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ape_jax.images.packed import cells
from ape_jax.nn.axial import Axial
from ape_jax.nn.blocks import DENSE, BlockConfig
from ape_jax.nn.window import table_rows
from ape_jax.towers.tower import TowerConfig, added


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
      norm_twice: it follows the pooling too, of tokens that have passed it (BLIP).
      position_table: there is one.
      table_size: pixels a side that it is for, if it is resized to the longer side of an image and
        cropped (C-RADIO).
      image_mean, image_std: of channels, where the tower normalises images itself.
      sincos: positions are sines and cosines of the columns, then of the rows (AIMv2).
      patch_norm: patches are normed before they get positions.
      rotation: how queries and keys of patches are turned.
      prefix_angles: other tokens are turned by learned angles; if not, they are not.
      unbiased: further linear layers of a block without a bias, of `blocks.DENSE`.
      gated: the MLP is gated by `activation`.
      norms, attention_norm, mlp_norm: see `blocks.BlockConfig`.
      qk_norm: each head's queries and keys are normed.
      relative: which tables of relative positions there are, one for all blocks ("all") or one for
        each of them ("blocks"); see `nn.window`.
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
    norm_twice: bool = added(False)
    position_table: bool = added(True)
    table_size: int | None = added(None)
    image_mean: tuple[float, ...] = added(())
    image_std: tuple[float, ...] = added(())
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
    relative: tuple[str, ...] = added(())
    max_patches: int = added(0)

    @property
    def grid(self) -> int:
        """Patches a side of the position table."""
        return (self.table_size or self.image_size) // self.patch_size

    @property
    def input_size(self) -> int:
        """Pixels a side of what it is made for: an image, or a canvas of packed ones."""
        if self.max_patches:
            return cells(self.max_patches) * self.patch_size
        return self.image_size

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
            relative=table_rows(self.grid) if "blocks" in self.relative else 0,
            qk_norm=self.norm if self.qk_norm else None,
            interleaved=self.rotation is not None and self.rotation.interleaved,
        )

    def places(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """See `TowerConfig.places`."""
        if self.rotation is None and not self.relative:
            return {}
        down, across = batch["image"].shape[1:3]
        return {"grid": (down // self.patch_size, across // self.patch_size)}
